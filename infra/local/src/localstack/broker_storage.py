"""Makes what the local broker expects of an object store true in front of one that does not keep it.

The broker keeps its offsets in objects that it replaces under `If-Match` and `If-None-Match`; a store that always
replaces them would, after a kill, let it begin again at offset 0. And it takes the object written first for the
earliest offset of a partition, though of two uploads at once the later offset's may end first: listings give times that
rise with the names. The broker is the only writer, and this its only way, so what it asks again and again, the end of
each partition and a list of all its batches, is answered from memory.

`python -m localstack.broker_storage PORT STORE` with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` set.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from weakref import WeakValueDictionary
from xml.sax.saxutils import escape

import httpx2
import urllib3
import uvicorn
from minio import Minio
from minio.error import S3Error
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

NOT_PASSED_ON = {b"accept-encoding", b"connection", b"date", b"keep-alive", b"transfer-encoding"}
METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE"]
ANSWER_SECONDS = 20.0
MEMORY_BYTES = 64 * 1024**2
OF_EACH_BYTES = 512
"""What an object costs beside its content."""

UNSURE_SECONDS = 60.0
"""After a change that the store has not answered, it may still make it: meanwhile it is asked."""

FAILED = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>PreconditionFailed</Code></Error>'
LAST_MODIFIED = re.compile(rb"(?<=<LastModified>)[^<]+")
UNAVAILABLE = 503
PARTIAL = ("range", "if-match", "if-modified-since", "if-unmodified-since")


@dataclass(frozen=True)
class Stored:
    """An object as the store has it.

    Attributes:
        etag: of its content, without quotes.
        size: bytes.
        modified: when it was written.
        content: its bytes.
    """

    etag: str
    size: int
    modified: datetime
    content: bytes = b""

    def headers(self) -> dict[str, str]:
        """What says so in an answer."""
        return {"etag": f'"{self.etag}"', "last-modified": format_datetime(self.modified, usegmt=True)}


class Listing:
    """Every object below a folder, by path.

    Attributes:
        whole: whether what the store held before is in it.
    """

    def __init__(self) -> None:
        self.whole = False
        self._objects: dict[str, Stored | None] = {}
        self._rendered: bytes | None = None

    def changed(self, path: str, stored: Stored | None) -> None:
        """The object is this, or gone."""
        self._objects[path] = dataclasses.replace(stored, content=b"") if stored else None
        self._rendered = None

    def found(self, objects: Mapping[str, Stored]) -> None:
        """What the store held, at a time after this began to take in changes."""
        self._objects = {**objects, **self._objects}
        self.whole = True

    def render(self, bucket: str, prefix: str) -> bytes:
        """As the store would say it."""
        if self._rendered is None:
            self._rendered = render(bucket, prefix, {path: one for path, one in self._objects.items() if one})
        return self._rendered


class Memory:
    """What the store holds, as far as it was read or written lately; nothing of it is older than the store's.

    Attributes:
        generation: rises when everything is forgotten; what was read before belongs to an earlier one.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._objects: OrderedDict[str, Stored] = OrderedDict()
        self._bytes = 0
        self._listings: dict[str, Listing] = {}
        self._unsure: dict[str, float] = {}

    def get(self, path: str) -> Stored | None:
        """The object, if known."""
        if path in self._objects:
            self._objects.move_to_end(path)
        return self._objects.get(path)

    def put(self, path: str, stored: Stored) -> None:
        """The store has said that it holds this."""
        self._drop(path)
        if self._is_unsure(path):
            return
        self._objects[path] = stored
        self._bytes += len(stored.content) + OF_EACH_BYTES
        while self._bytes > MEMORY_BYTES:
            self._drop(next(iter(self._objects)))

    def written(self, path: str, stored: Stored | None) -> None:
        """The store has said that it holds this from now on, or no such object."""
        if stored:
            self.put(path, stored)
        for folder in _folders(path):
            if folder in self._listings:
                self._listings[folder].changed(path, stored)

    def unknown(self, path: str) -> None:
        """Until the store has answered, nobody knows what this object is."""
        self._drop(path)

    def unanswered(self, path: str) -> None:
        """Whether the object is there, and what it is, is not known, and may still change."""
        self._drop(path)
        for name in (path, *_folders(path)):
            self._listings.pop(name, None)
            self._unsure[name] = time.monotonic() + UNSURE_SECONDS

    def clear(self) -> None:
        """Nothing is known."""
        self._objects.clear()
        self._listings.clear()
        self._bytes = 0
        self.generation += 1

    def listing(self, folder: str) -> Listing:
        """What takes in whatever is written below the folder from now on."""
        return Listing() if self._is_unsure(folder) else self._listings.setdefault(folder, Listing())

    def _is_unsure(self, name: str) -> bool:
        if self._unsure.get(name, 0) > time.monotonic():
            return True
        self._unsure.pop(name, None)
        return False

    def _drop(self, path: str) -> None:
        if known := self._objects.pop(path, None):
            self._bytes -= len(known.content) + OF_EACH_BYTES


def _folders(path: str) -> Iterable[str]:
    return (path[: at + 1] for at, letter in enumerate(path) if letter == "/" and at)


def render(bucket: str, prefix: str, objects: Mapping[str, Stored]) -> bytes:
    """An S3 listing."""
    parts = [
        f"<Contents><Key>{escape(path.removeprefix(f'/{bucket}/'))}</Key>"
        f"<LastModified>{stored.modified.isoformat()}</LastModified><ETag>&quot;{stored.etag}&quot;</ETag>"
        f"<Size>{stored.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for path, stored in sorted(objects.items())
    ]
    listing = (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(parts)}</KeyCount>"
        f"<MaxKeys>{len(parts)}</MaxKeys><IsTruncated>false</IsTruncated>{''.join(parts)}</ListBucketResult>"
    )
    return in_order(listing.encode())


def in_order(listing: bytes) -> bytes:
    """The listing, in which every object was modified after those named before it, where needed by a millisecond."""
    latest = datetime.min.replace(tzinfo=UTC)

    def later(match: re.Match[bytes]) -> bytes:
        nonlocal latest
        latest = max(datetime.fromisoformat(match[0].decode()), latest + timedelta(milliseconds=1))
        return latest.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()

    return LAST_MODIFIED.sub(later, listing)


class BrokerStorage:
    """Forwards changes, refuses uploads whose condition does not hold, and answers what it knows.

    Args:
        store: address of the object store.
        access_key: to ask what an object is at present.
        secret_key: the same.
        bucket: the broker's. Whoever reaches the broker may read it all; what lies in other
            buckets is answered by the store, which checks who asks.
    """

    def __init__(self, store: str, access_key: str, secret_key: str, bucket: str) -> None:
        self._bucket = f"/{bucket}"
        self._store = httpx2.URL(store)
        self._http = httpx2.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False)
        pool = urllib3.PoolManager(timeout=ANSWER_SECONDS, retries=False)
        address = f"{self._store.host}:{self._store.port}"
        self._objects = Minio(address, access_key, secret_key, secure=False, http_client=pool)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._memory = Memory()

    async def answer(self, request: Request) -> Response:
        """The store's answer, or 412, or what is known."""
        try:
            if request.method not in ("GET", "HEAD"):
                return await self._change(request)
            if not f"{request.url.path}/".startswith(f"{self._bucket}/"):
                return await self._forward(request)
            if request.method == "GET" and set(request.query_params) == {"list-type", "prefix"}:
                return await self._list(request)
            if not request.query_params and not any(map(request.headers.get, PARTIAL)):
                return await self._get(request)
            return await self._forward(request)
        except (httpx2.TransportError, urllib3.exceptions.HTTPError, ClientDisconnect):
            return Response(status_code=UNAVAILABLE)

    async def _change(self, request: Request) -> Response:
        """One change of a key at a time."""
        expected, unexpected = request.headers.get("if-match"), request.headers.get("if-none-match")
        path = request.url.path
        async with self._lock(path):
            if request.method == "PUT" and (expected or unexpected):
                known = self._memory.get(path)
                present = known.etag if known else await asyncio.to_thread(self._present, path)
                if (unexpected and present) or (expected and expected.strip('"') != present):
                    return Response(FAILED, 412, media_type="application/xml")
            content = await request.body()
            # It may be about any key, or about a part of one; or the content is not what the body is.
            about_others = request.method == "POST" or bool(request.query_params)
            coded = "x-amz-decoded-content-length" in request.headers
            self._memory.unknown(path)
            told = False
            try:
                answer = await self._forward(request)
                told = answer.status_code < 500
            finally:
                if about_others:
                    self._memory.clear()
                if coded or not told:
                    self._memory.unanswered(path)
            if about_others or coded or not told:
                return answer
            if request.method == "PUT" and answer.status_code == 200:
                etag = answer.headers.get("etag", "").strip('"')
                self._memory.written(path, Stored(etag, len(content), datetime.now(UTC), content))
            elif request.method == "DELETE" and answer.status_code in (200, 204, 404):
                self._memory.written(path, None)
            return answer

    async def _get(self, request: Request) -> Response:
        path = request.url.path
        known = self._memory.get(path)
        if known is None:
            if request.method == "HEAD":
                return await self._forward(request)
            async with self._lock(path):
                generation = self._memory.generation
                known = await asyncio.to_thread(self._read, path)
                if known is None:
                    return await self._forward(request)
                if generation == self._memory.generation:
                    self._memory.put(path, known)
        if request.headers.get("if-none-match", "").strip('"') == known.etag:
            return Response(status_code=304, headers=known.headers())
        if request.method == "HEAD":
            return Response(headers={**known.headers(), "content-length": str(known.size)})
        return Response(known.content, headers=known.headers())

    async def _list(self, request: Request) -> Response:
        bucket, prefix = request.url.path.strip("/"), request.query_params["prefix"]
        folder = f"/{bucket}/{prefix}"
        if not prefix.endswith("/"):
            return await self._forward(request)
        async with self._lock(folder):
            listing = self._memory.listing(folder)
            if not listing.whole:
                found = await asyncio.to_thread(self._listed, bucket, prefix)
                if found is None:
                    return await self._forward(request)
                listing.found(found)
        return Response(listing.render(bucket, prefix), media_type="application/xml")

    def _lock(self, path: str) -> asyncio.Lock:
        return self._locks.setdefault(path, asyncio.Lock())

    async def _forward(self, request: Request) -> Response:
        path = request.scope["raw_path"] + (b"?" + query if (query := request.scope["query_string"]) else b"")
        asked = [(name, value) for name, value in request.headers.raw if name not in NOT_PASSED_ON]
        answer = await self._http.request(
            request.method,
            self._store.copy_with(raw_path=path),
            headers=[*asked, (b"accept-encoding", b"identity")],
            content=await request.body(),
        )
        headers = {name.lower(): value for name, value in answer.headers.raw if name.lower() not in NOT_PASSED_ON}
        content = answer.content
        if request.method == "GET" and "list-type" in request.query_params:
            content = in_order(content)
            headers[b"content-length"] = str(len(content)).encode()
        response = Response(content, answer.status_code)
        response.raw_headers = list(headers.items())
        return response

    def _read(self, path: str) -> Stored | None:
        """The object, which its caller may have already and so have asked for under a condition; None where none is."""
        bucket, _, key = path.lstrip("/").partition("/")
        try:
            with self._objects.get_object(bucket_name=bucket, object_name=key) as answer:
                content = bytes(answer.read())
        except S3Error:
            return None
        modified = parsedate_to_datetime(answer.headers["last-modified"])
        return Stored(answer.headers["etag"].strip('"'), len(content), modified, content)

    def _present(self, path: str) -> str | None:
        """The entity tag of what is stored; None where nothing is."""
        bucket, _, key = path.lstrip("/").partition("/")
        try:
            return str(self._objects.stat_object(bucket_name=bucket, object_name=key).etag)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchBucket"):
                return None
            raise

    def _listed(self, bucket: str, prefix: str) -> dict[str, Stored] | None:
        """Every object below the prefix, by path; None where the store does not say."""
        try:
            return {
                f"/{bucket}/{one.object_name}": Stored(
                    str(one.etag).strip('"'), one.size or 0, one.last_modified or datetime.now(UTC)
                )
                for one in self._objects.list_objects(bucket_name=bucket, prefix=prefix, recursive=True)
            }
        except S3Error:
            return None

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()


def main() -> None:
    """Serve until told to stop."""
    port, store = int(sys.argv[1]), sys.argv[2]
    storage = BrokerStorage(store, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], "kafka")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await storage.close()

    app = Starlette(routes=[Route("/{path:path}", storage.answer, methods=METHODS)], lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
