"""Makes what the local broker expects of an object store true in front of one that does not keep it.

The broker keeps its offsets in objects that it replaces under `If-Match` and `If-None-Match`; a store that always
replaces them would, after a kill, let it begin again at offset 0. And it takes the object written first for the
earliest offset of a partition, though of two uploads at once the later offset's may end first: listings give times that
rise with the names. The broker is the only writer, and this its only way.

`python -m localstack.broker_storage PORT STORE` with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` set.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

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

FAILED = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>PreconditionFailed</Code></Error>'

LAST_MODIFIED = re.compile(rb"(?<=<LastModified>)[^<]+")


def in_order(listing: bytes) -> bytes:
    """A listing in which every object was modified after those named before it, where needed by a millisecond."""
    latest = datetime.min.replace(tzinfo=UTC)

    def later(match: re.Match[bytes]) -> bytes:
        nonlocal latest
        latest = max(datetime.fromisoformat(match[0].decode()), latest + timedelta(milliseconds=1))
        return latest.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()

    return LAST_MODIFIED.sub(later, listing)


class BrokerStorage:
    """Forwards requests, refuses uploads whose condition does not hold, and lists objects in the order of their times.

    Args:
        store: address of the object store.
        access_key: to ask what an object is at present.
        secret_key: the same.
    """

    def __init__(self, store: str, access_key: str, secret_key: str) -> None:
        self._store = httpx2.URL(store)
        self._http = httpx2.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False)
        pool = urllib3.PoolManager(timeout=ANSWER_SECONDS, retries=False)
        address = f"{self._store.host}:{self._store.port}"
        self._objects = Minio(address, access_key, secret_key, secure=False, http_client=pool)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._known: dict[str, str] = {}

    async def answer(self, request: Request) -> Response:
        """The store's answer, or 412."""
        try:
            if request.method in ("GET", "HEAD"):
                return await self._forward(request)
            return await self._change(request)
        except (httpx2.TransportError, urllib3.exceptions.HTTPError, ClientDisconnect):
            return Response(status_code=503)

    async def _change(self, request: Request) -> Response:
        """One change of a key at a time; what a conditional upload left is known until the next change."""
        expected, unexpected = request.headers.get("if-match"), request.headers.get("if-none-match")
        conditional = request.method == "PUT" and bool(expected or unexpected)
        key = request.url.path
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if conditional:
                present = self._known.get(key) or await asyncio.to_thread(self._present, key)
                if (unexpected and present) or (expected and expected.strip('"') != present):
                    return Response(FAILED, 412, media_type="application/xml")
            self._known.pop(key, None)  # until the store has answered, nobody knows
            if request.method == "POST":  # it may be about any key
                self._known.clear()
            answer = await self._forward(request)
            if conditional and answer.status_code == 200:
                self._known[key] = answer.headers.get("etag", "").strip('"')
            return answer

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

    def _present(self, path: str) -> str | None:
        """The entity tag of what is stored; None where nothing is."""
        bucket, _, key = path.lstrip("/").partition("/")
        try:
            return str(self._objects.stat_object(bucket_name=bucket, object_name=key).etag)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchBucket"):
                return None
            raise

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()


def main() -> None:
    """Serve until told to stop."""
    port, store = int(sys.argv[1]), sys.argv[2]
    storage = BrokerStorage(store, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await storage.close()

    app = Starlette(routes=[Route("/{path:path}", storage.answer, methods=METHODS)], lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
