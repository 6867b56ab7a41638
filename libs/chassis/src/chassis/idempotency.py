"""The `Idempotency-Key` contract: same key and body, same answer; another body, 422; also after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.crash import crash_point
from chassis.errors import Conflict, SartorError, TooLarge, Unprocessable
from chassis.http import DATABASE_AWAY, error_response

MAX_BODY = 2 * 1024 * 1024
KEEP = timedelta(hours=24)
TAKE_OVER = timedelta(seconds=60)

seed: ContextVar[str | None] = ContextVar("idempotency_seed", default=None)
"""Set while a request with an `Idempotency-Key` runs; ids made from it make a repeated attempt name the same thing."""


def request_id_for(prefix: str, fallback: str) -> str:
    """An id derived from the request's idempotency key, or `fallback` where the request has none."""
    value = seed.get()
    return f"{prefix}{hashlib.sha256(f'{value}{prefix}'.encode()).hexdigest()[:24]}" if value else fallback


class Idempotency:
    """ASGI middleware that stores the answer of each POST carrying an `Idempotency-Key` for 24 hours.

    An attempt that died half-way is taken over after a minute; the services derive their ids from `seed`, so the
    second attempt finds what the first one made. Multipart uploads and streamed answers pass through unstored.

    Args:
        app: the application below.
        records: a Mongo collection with a TTL index on `expires_at` (see `prepare`).
        away: errors that say it cannot be reached; they are answered with 503.
    """

    def __init__(self, app: ASGIApp, records: Any, away: tuple[type[Exception], ...] = ()) -> None:
        self.app = app
        self.records = records
        self.away = away

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the answer it had before."""
        headers = dict(scope.get("headers", ()))
        key = headers.get(b"idempotency-key")
        multipart = headers.get(b"content-type", b"").startswith(b"multipart/")
        if scope["type"] != "http" or scope["method"] != "POST" or not key or multipart:
            await self.app(scope, receive, send)
            return
        answered = False

        async def send_and_note(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._once(scope, receive, send_and_note, key, headers.get(b"authorization", b""))
        except SartorError as error:
            await error_response(error)(scope, receive, send)
        except self.away:
            if not answered:
                await DATABASE_AWAY(scope, receive, send)

    async def _once(self, scope: Scope, receive: Receive, send: Send, key: bytes, caller: bytes) -> None:
        body = await _read(receive)
        record_id = hashlib.sha256(b"\x1f".join([caller, scope["path"].encode(), key])).hexdigest()
        body_hash = hashlib.sha256(body).hexdigest()
        stored = await self._begin(record_id, body_hash)
        if stored is not None:
            await _replay(stored, send)
            return
        crash_point("idempotency.begun")
        token = seed.set(record_id)

        async def store(answer: _Recorder) -> None:
            await self.records.update_one(
                {"_id": record_id},
                {"$set": {"status": answer.status, "headers": answer.headers, "body": bytes(answer.body)}},
            )

        recorder = _Recorder(send, store)
        try:
            await self.app(scope, _replay_body(body, receive), recorder)
        finally:
            seed.reset(token)
            if not recorder.storable:
                await self.records.delete_one({"_id": record_id})

    async def _begin(self, record_id: str, body_hash: str) -> dict[str, Any] | None:
        """Claim the key for this attempt, or return the answer it already has."""
        at = datetime.now(UTC)
        record = await self.records.find_one_and_update(
            {"_id": record_id},
            {"$setOnInsert": {"body_hash": body_hash, "started_at": at, "expires_at": at + KEEP}},
            upsert=True,
            return_document=False,
        )
        if record is None:
            return None
        if record["body_hash"] != body_hash:
            raise Unprocessable(
                "This Idempotency-Key was used with another request body. Use a new key for a new request.",
                code="idempotency_key_reused",
            )
        if "status" in record:
            return dict(record)
        taken = (
            await self.records.find_one_and_update(
                {"_id": record_id, "started_at": record["started_at"], "status": {"$exists": False}},
                {"$set": {"started_at": at}},
            )
            if at - record["started_at"].replace(tzinfo=UTC) > TAKE_OVER
            else None
        )
        if taken is None:
            error = Conflict("A request with this Idempotency-Key is still running.", code="idempotency_key_in_use")
            error.retry_after, error.transient = 1, True
            raise error
        return None


async def prepare(records: Any) -> None:
    """Create the index that lets MongoDB drop answers after 24 hours."""
    await records.create_index("expires_at", expireAfterSeconds=0)


class _Recorder:
    """Passes an answer on and keeps a copy of it, unless it is a stream or a server error.

    The copy is stored before the end of the answer is passed on, so a client that repeats at once finds it.
    """

    def __init__(self, send: Send, store: Callable[[_Recorder], Awaitable[None]]) -> None:
        self._send = send
        self._store = store
        self.status = 0
        self.headers: list[list[str]] = []
        self.body = bytearray()
        self._complete = False

    @property
    def storable(self) -> bool:
        streamed = any(name == "content-type" and value.startswith("text/event-stream") for name, value in self.headers)
        return self._complete and not streamed and 200 <= self.status < 500 and self.status != 429

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in message["headers"]]
        elif message["type"] == "http.response.body" and len(self.body) <= MAX_BODY:
            self.body += message.get("body", b"")
            self._complete = not message.get("more_body", False)
        if self._complete and self.storable:
            crash_point("idempotency.done")
            await self._store(self)
            crash_point("idempotency.stored")
        await self._send(message)


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise TooLarge(f"A request with an Idempotency-Key may have at most {MAX_BODY} bytes.")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return bytes(body)


def _replay_body(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def receive_again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _replay(stored: dict[str, Any], send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in stored["headers"]]
    headers.append((b"idempotent-replayed", b"true"))
    await send({"type": "http.response.start", "status": stored["status"], "headers": headers})
    await send({"type": "http.response.body", "body": stored["body"]})
