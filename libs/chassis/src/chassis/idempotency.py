"""The `Idempotency-Key` contract: same key and body, same answer; another body, 422; also after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.auth import Principal
from chassis.errors import Conflict, SartorError, TooLarge, Unprocessable
from chassis.http import error_response

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

    Keys are the caller's own: the credential is checked first. An attempt that died half-way is taken over after a
    minute; the services derive their ids from `seed`, so the second attempt finds what the first one made. Multipart
    uploads and streamed answers pass through unstored; of an answer marked `cache-control: no-store`, which shows a
    secret, only its status is kept.

    Args:
        app: the application below.
        records: a Mongo collection with a TTL index on `expires_at` (see `prepare`).
    """

    def __init__(self, app: ASGIApp, records: Any) -> None:
        self.app = app
        self.records = records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the answer it had before."""
        headers = dict(scope.get("headers", ()))
        key, credential = headers.get(b"idempotency-key"), headers.get(b"authorization")
        multipart = headers.get(b"content-type", b"").startswith(b"multipart/")
        if scope["type"] != "http" or scope["method"] != "POST" or not key or not credential or multipart:
            await self.app(scope, receive, send)
            return
        try:
            caller = await scope["app"].state.authenticator.authenticate(credential.decode("latin-1"))
            await self._once(scope, receive, send, key, caller)
        except SartorError as error:
            await error_response(error)(scope, receive, send)

    async def _once(self, scope: Scope, receive: Receive, send: Send, key: bytes, caller: Principal) -> None:
        body = await _read(receive)
        whose = [caller.tenant_id, caller.key_id, caller.user_id or "", scope["path"], key.decode("latin-1")]
        record_id = hashlib.sha256("\x1f".join(whose).encode()).hexdigest()
        attempt = datetime.now(UTC)
        stored = await self._begin(record_id, hashlib.sha256(body).hexdigest(), attempt)
        if stored is not None:
            await _replay(stored, send)
            return
        token = seed.set(record_id)
        mine = {"_id": record_id, "started_at": attempt}

        async def store(answer: _Recorder) -> None:
            shown = {"headers": answer.headers, "body": bytes(answer.body)} if not answer.secret else {}
            await self.records.update_one(mine, {"$set": {"status": answer.status, **shown}})

        recorder = _Recorder(send, store)
        try:
            await self.app(scope, _replay_body(body, receive), recorder)
        finally:
            seed.reset(token)
            if not recorder.storable:
                await self.records.delete_one(mine)

    async def _begin(self, record_id: str, body_hash: str, at: datetime) -> dict[str, Any] | None:
        """Claim the key for the attempt that began at `at`, or return the answer it already has."""
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
            if "body" not in record:
                raise Conflict(
                    "This was done before, under the same Idempotency-Key; its answer held a secret and was not kept.",
                    code="answer_not_kept",
                )
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
    def secret(self) -> bool:
        """Whether the answer must not be kept."""
        return any(name == "cache-control" and "no-store" in value for name, value in self.headers)

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
            await self._store(self)
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
