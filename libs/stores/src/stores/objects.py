"""The object store through the minio client, in a bounded thread pool, with a SHA-256 on everything."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeAlias, TypeVar

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3 import BaseHTTPResponse

from chassis.crash import crash_point
from chassis.errors import NotFound, SartorError, Transient
from chassis.settings import ServiceSettings
from schemas import ObjectRef

ObjectClient: TypeAlias = Minio

P = ParamSpec("P")
T = TypeVar("T")

CHUNK = 1024 * 1024

CALL_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 256 * 1024
"""A transfer has the seconds of a call, and one more for each so many bytes."""


class DigestMismatch(SartorError):
    """The stored bytes are not the ones the reference names."""

    default_code = "digest_mismatch"


class Objects:
    """Reads and writes whole objects; every write returns an `ObjectRef`, every read checks its SHA-256.

    Args:
        settings: endpoint, credentials and bucket.
        workers: threads, and so the most calls at a time.
        client: in place of one of the store that the settings name.
    """

    def __init__(self, settings: ServiceSettings, *, workers: int = 8, client: ObjectClient | None = None) -> None:
        self.bucket = settings.objects_bucket
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="objects")
        self._client = client or _client(settings, workers)

    async def prepare(self) -> None:
        """Create the bucket if it is missing."""
        if not await self._call(self._client.bucket_exists, bucket_name=self.bucket):
            try:
                await self._call(self._client.make_bucket, bucket_name=self.bucket)
            except SartorError as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    async def ping(self) -> None:
        """Raise unless the store answers."""
        await self._call(self._client.bucket_exists, bucket_name=self.bucket)

    async def put_bytes(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> ObjectRef:
        """Store `data` under `key`."""
        await self._call(
            self._client.put_object,
            bucket_name=self.bucket,
            object_name=key,
            data=io.BytesIO(data),
            length=len(data),
            content_type=content_type,
        )
        return ObjectRef(bucket=self.bucket, key=key, sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    async def put_file(self, key: str, path: Path, content_type: str = "application/octet-stream") -> ObjectRef:
        """Store the file at `path` under `key`, in parts when it is large."""
        with path.open("rb") as source:
            return await self.put_stream(key, source, content_type)

    async def put_stream(self, key: str, source: BinaryIO, content_type: str = "application/octet-stream") -> ObjectRef:
        """Store a seekable file from its beginning under `key`."""
        digest, size = await self._call(_hash_stream, source)
        crash_point("objects.hashed")
        await self._within(
            _allowed(size),
            self._client.put_object,
            bucket_name=self.bucket,
            object_name=key,
            data=source,
            length=size,
            content_type=content_type,
        )
        crash_point("objects.stored")
        return ObjectRef(bucket=self.bucket, key=key, sha256=digest, size=size)

    async def get_bytes(self, ref: ObjectRef) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: no such object.
            DigestMismatch: the bytes are not those of `ref`.
        """
        data = await self._within(_allowed(ref.size), self._read, ref)
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise DigestMismatch(f"{ref.key}: stored bytes do not match sha256 {ref.sha256}.")
        return data

    async def download(self, ref: ObjectRef, path: Path) -> None:
        """Write the object to `path`, which appears only when its digest is right.

        Raises:
            NotFound, DigestMismatch: as `get_bytes`.
        """
        await self._within(_allowed(ref.size), self._download, ref, path)

    async def stream(self, ref: ObjectRef) -> AsyncGenerator[bytes, None]:
        """The object's bytes in chunks of 1 MiB, the last of which comes only when the digest of all is right.

        Raises:
            NotFound, DigestMismatch: as `get_bytes`; what was yielded until then is not to be used.
        """
        digest, held = hashlib.sha256(), b""
        async with aclosing(self._stream(ref.bucket, ref.key, digest.update)) as chunks:
            async for chunk in chunks:
                if held:
                    yield held
                held = chunk
        if digest.hexdigest() != ref.sha256:
            raise DigestMismatch(f"{ref.key}: stored bytes do not match sha256 {ref.sha256}.")
        if held:
            yield held

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The bytes of whatever lies under `key`, in chunks of 1 MiB, for who has lost its reference."""
        return self._stream(self.bucket, key, lambda _: None)

    async def _stream(self, bucket: str, key: str, see: Callable[[bytes], None]) -> AsyncGenerator[bytes, None]:
        """The bytes in chunks, each seen by `see` in the thread that reads it."""
        response = await self._call(self._client.get_object, bucket_name=bucket, object_name=key)
        try:
            while chunk := await self._call(_next_chunk, response, see):
                yield chunk
        finally:
            response.close()
            response.release_conn()

    async def delete(self, key: str) -> None:
        """Remove one object; removing an absent one is fine."""
        await self._call(self._client.remove_object, bucket_name=self.bucket, object_name=key)

    async def delete_prefix(self, prefix: str) -> int:
        """Remove every object below `prefix` and return how many there were."""
        keys = await self.keys(prefix)
        for key in keys:
            await self.delete(key)
        return len(keys)

    async def keys(self, prefix: str, *, before: datetime | None = None) -> list[str]:
        """The keys of all objects below `prefix`, or of those last written before that, by the store's clock."""
        return await self._call(
            lambda: [
                str(item.object_name)
                for item in self._client.list_objects(bucket_name=self.bucket, prefix=prefix, recursive=True)
                if before is None or (item.last_modified is not None and item.last_modified < before)
            ]
        )

    async def folders(self, prefix: str) -> list[str]:
        """The names of the folders in the one that `prefix`, with a slash at its end, names."""
        return await self._call(
            lambda: [
                str(item.object_name).removeprefix(prefix).rstrip("/")
                for item in self._client.list_objects(bucket_name=self.bucket, prefix=prefix)
                if item.is_dir
            ]
        )

    def close(self) -> None:
        """Stop the threads without waiting for calls under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, ref: ObjectRef) -> bytes:
        response = self._client.get_object(bucket_name=ref.bucket, object_name=ref.key)
        try:
            return b"".join(_chunks(response, _allowed(ref.size)))
        finally:
            response.close()
            response.release_conn()

    def _download(self, ref: ObjectRef, path: Path) -> None:
        partial_path = path.with_name(f"{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        response = self._client.get_object(bucket_name=ref.bucket, object_name=ref.key)
        digest = hashlib.sha256()
        try:
            with partial_path.open("wb") as file:
                for chunk in _chunks(response, _allowed(ref.size)):
                    digest.update(chunk)
                    file.write(chunk)
        except BaseException:  # half a file must not take the last room of a full disk
            partial_path.unlink(missing_ok=True)
            raise
        finally:
            response.close()
            response.release_conn()
        if digest.hexdigest() != ref.sha256:
            partial_path.unlink()
            raise DigestMismatch(f"{ref.key}: stored bytes do not match sha256 {ref.sha256}.")
        partial_path.rename(path)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._within(CALL_SECONDS, function, *args, **kwargs)

    async def _within(self, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call in a thread; after `seconds` nobody waits any more, and the thread ends at its next socket timeout."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                return await loop.run_in_executor(self._pool, partial(function, *args, **kwargs))
        except TimeoutError as error:
            raise Transient(f"The object store did not answer within {seconds:.0f} s.") from error
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchBucket", "NoSuchObject"):
                raise NotFound(f"No object {error.object_name}.") from error
            raise Transient(f"The object store refused: {error.code}.", code=error.code) from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise Transient(f"The object store cannot be reached ({type(error).__name__}).") from error


def _allowed(size: int) -> float:
    """Seconds that a transfer of `size` bytes may take."""
    return CALL_SECONDS + size / SLOWEST_BYTES_PER_SECOND


def _chunks(response: BaseHTTPResponse, seconds: float) -> Iterator[bytes]:
    """The body as it comes.

    Raises:
        TimeoutError: it is not there after `seconds`; each read has a deadline of its own, which a trickle never meets.
    """
    until = time.monotonic() + seconds
    while chunk := response.read1(CHUNK):
        yield chunk
        if time.monotonic() > until:
            raise TimeoutError


def _next_chunk(response: BaseHTTPResponse, see: Callable[[bytes], None]) -> bytes:
    chunk = response.read(CHUNK)
    see(chunk)
    return chunk


def _hash_stream(source: BinaryIO) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    source.seek(0)
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
    source.seek(0)
    return digest.hexdigest(), size


def _client(settings: ServiceSettings, workers: int) -> ObjectClient:
    """A client of the store that the settings name."""
    return Minio(
        endpoint=settings.objects_endpoint,
        access_key=settings.objects_access_key,
        secret_key=settings.objects_secret_key.get_secret_value(),
        secure=settings.objects_secure,
        region="us-east-1",
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=15),
            maxsize=workers,
            retries=urllib3.Retry(
                total=2,
                backoff_factor=0.2,
                status_forcelist=[500, 502, 503, 504],
                respect_retry_after_header=False,  # the store does not decide how long a thread sleeps
            ),
        ),
    )
