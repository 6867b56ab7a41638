"""The `Idempotency-Key` contract: the same key and body get the same answer, and another body gets 422."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.auth import Principal, caller_of
from chassis.clock import utc_now
from chassis.crash import crash_point
from chassis.errors import Conflict, SartorError, TooLarge, Unprocessable
from chassis.http import error_response
from chassis.idempotency import DONE_AGAIN, seed
from chassis.ids import new_id
from stores.leases import Holds, keep_renewed
from stores.mongo import Collection, Document, PyMongoError, Query

log = structlog.get_logger()

MAX_BODY = 2 * 1024 * 1024
KEEP = timedelta(hours=24)
LEASE_SECONDS = 15.0
"""How long an attempt may be silent before another takes its key over."""

BOUNDARY = hashlib.sha256(b"a boundary").digest()
"""Stands for the boundary in the digest of a form."""


class Idempotency:
    """ASGI middleware that stores the answer of each POST carrying an `Idempotency-Key` for 24 hours.

    Keys are the caller's own: the credential is checked first. An attempt that died half-way is taken over when its
    lease is over; the services derive their ids from `seed`, so a later attempt finds what the first one made, also
    where one between them failed. A
    multipart upload is hashed as it streams by, whatever its boundary; its repetition is read and compared before it is
    answered. Streamed answers pass through unstored; of an answer marked `cache-control: no-store`, which shows a
    secret, only its status is kept; of one that was promised not to be kept (`answer_not_kept`), nothing, and a
    repetition is done again. What a client cut off did not send to its end was not asked, and leaves no record.

    Args:
        app: the application below.
        records: a Mongo collection with an index by which it drops them at `expires_at`.
    """

    def __init__(self, app: ASGIApp, records: Collection) -> None:
        self.app = app
        self.records = records
        self._holds = Holds(records, holder="attempt")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the answer it had before."""
        headers = dict(scope.get("headers", ()))
        key, credential = headers.get(b"idempotency-key"), headers.get(b"authorization")
        if scope["type"] != "http" or scope["method"] != "POST" or not key or not credential:
            await self.app(scope, receive, send)
            return
        try:
            caller = await caller_of(scope)
            attempt = _Attempt(_record_id(caller, scope["path"], key), new_id(""))
            content_type = headers.get(b"content-type", b"")
            if content_type.startswith(b"multipart/"):
                await self._upload_once(scope, receive, send, attempt, content_type)
            else:
                await self._once(scope, receive, send, attempt)
        except SartorError as error:
            await error_response(error)(scope, receive, send)

    async def _once(self, scope: Scope, receive: Receive, send: Send, attempt: _Attempt) -> None:
        body = await _read(receive)
        if body is None:
            return
        body_hash = hashlib.sha256(body).hexdigest()
        stored = await self._begin(attempt, body_hash)
        if stored is not None:
            await _replay(stored, send)
            return
        await self._answer(scope, _replay_body(body, receive), send, attempt, lambda: body_hash)

    async def _upload_once(
        self, scope: Scope, receive: Receive, send: Send, attempt: _Attempt, content_type: bytes
    ) -> None:
        seen = FormDigest(content_type)
        stored = await self._begin(attempt)
        if stored is not None:
            _expect_hash(stored, await _read_through(seen, receive, int(stored["body_size"] or 0)))
            await _replay(stored, send)
            return

        async def receive_and_hash() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                seen.update(message.get("body", b""), last=not message.get("more_body", False))
            return message

        await self._answer(scope, receive_and_hash, send, attempt, seen.hexdigest, lambda: seen.size)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        attempt: _Attempt,
        body_hash: Callable[[], str | None],
        body_size: Callable[[], int] = lambda: 0,
    ) -> None:
        """Let the application answer, and store the answer with the hash of the body it read to the end."""
        crash_point("idempotency.begun")
        token = seed.set(attempt.seed)

        async def store(answer: _Recorder) -> None:
            if (found := body_hash()) is None:
                return
            about: Document = {"body_hash": found, "body_size": body_size()}
            if scope.get("state", {}).get(DONE_AGAIN):
                holding.cancel()
                about |= {"until_ms": 0, "life": new_id("")}
            else:
                about["status"] = answer.status
                if not answer.secret:
                    about |= {"headers": answer.headers, "body": bytes(answer.body)}
            await self.records.update_one(attempt.mine, {"$set": about})

        recorder = _Recorder(send, store)
        holding = asyncio.create_task(self._hold(attempt))
        try:
            await self.app(scope, receive, recorder)
        finally:
            holding.cancel()
            seed.reset(token)
            if not recorder.storable or body_hash() is None:
                await self._let_go(attempt, recorder, asked=body_hash() is not None)

    async def _let_go(self, attempt: _Attempt, recorder: _Recorder, *, asked: bool) -> None:
        """Let another attempt begin at once; it finds what this one and earlier ones may have made before they failed.

        The key is forgotten where it was answered in a way that is not kept, and where nothing was ever done under it.
        """
        answered = 0 < recorder.status < 400
        if answered or (attempt.first and (not asked or recorder.status == 429)):
            await self.records.delete_one(attempt.mine)
        else:
            await self.records.update_one(attempt.mine, {"$set": {"until_ms": 0}})

    async def _begin(self, attempt: _Attempt, body_hash: str | None = None) -> Document | None:
        """Claim the key for this attempt, or return the answer it already has.

        Args:
            attempt: who asks.
            body_hash: of the request's body; None while it has not been read.

        Raises:
            Conflict: another attempt is under way.
            Unprocessable: the key belongs to a request with another body.
        """
        fresh = {"attempt": "", "until_ms": 0, "life": attempt.token, "expires_at": utc_now() + KEEP}
        record = await self.records.find_one_and_update(
            {"_id": attempt.record_id}, {"$setOnInsert": fresh}, upsert=True, return_document=False
        )
        attempt.life = str((record or fresh).get("life", ""))
        attempt.first = record is None
        if record is not None and body_hash and "body_hash" in record:
            _expect_hash(record, body_hash)
        if record is not None and "status" in record:
            return dict(record)
        unanswered = {"_id": attempt.record_id, "status": {"$exists": False}}
        if await self._holds.take(unanswered, attempt.token, LEASE_SECONDS) is None:
            error = Conflict("A request with this Idempotency-Key is still running.", code="idempotency_key_in_use")
            error.retry_after, error.transient = 1, True
            raise error
        return None

    async def _hold(self, attempt: _Attempt) -> None:
        """Keep the key while the attempt runs; one that is over soon costs no write."""
        await asyncio.sleep(LEASE_SECONDS / 4)
        renew = partial(self._holds.renew, attempt.record_id, attempt.token, LEASE_SECONDS)
        await keep_renewed(renew, LEASE_SECONDS, _not_renewed)


@dataclass
class _Attempt:
    """One attempt at a request. One whose key was taken over meanwhile changes nothing any more.

    Attributes:
        record_id: of the key.
        token: of this attempt.
        life: the same for all attempts within the 24 hours of the key, another one when it is used again after them.
        first: of these it is the first.
    """

    record_id: str
    token: str
    life: str = ""
    first: bool = False

    @property
    def seed(self) -> str:
        """What ids are made from."""
        return f"{self.record_id}{self.life}"

    @property
    def mine(self) -> Query:
        return {"_id": self.record_id, "attempt": self.token}


def _not_renewed(error: PyMongoError) -> None:
    log.warning("idempotency_key_not_renewed", error=type(error).__name__)


def _record_id(caller: Principal, path: str, key: bytes) -> str:
    whose = [caller.tenant_id, caller.key_id, caller.user_id or "", path, key.decode("latin-1")]
    return hashlib.sha256("\x1f".join(whose).encode()).hexdigest()


class FormDigest:
    """SHA-256 of a multipart body as it comes, the same whatever its boundary: a client makes a new one each time.

    Args:
        content_type: the request's, which names the boundary.
    """

    def __init__(self, content_type: bytes) -> None:
        boundary = content_type.partition(b"boundary=")[2].split(b";")[0].strip().strip(b'"')
        self._mark = b"--" + boundary
        self._sha = hashlib.sha256()
        self._tail = b""
        self._complete = False
        self.size = 0

    def update(self, data: bytes, *, last: bool) -> None:
        """Take the next bytes; a boundary may lie across two calls."""
        data = self._tail + data
        while (at := data.find(self._mark)) >= 0:
            self._add(data[:at])
            self._add(BOUNDARY)
            data = data[at + len(self._mark) :]
        keep = 0 if last else len(self._mark) - 1
        cut = max(0, len(data) - keep)
        self._add(data[:cut])
        self._tail = data[cut:]
        self._complete = last

    def hexdigest(self) -> str | None:
        """The digest; None while the body has not been read to its end."""
        return self._sha.hexdigest() if self._complete else None

    def _add(self, data: bytes) -> None:
        self._sha.update(data)
        self.size += len(data)


class _Recorder:
    """Passes an answer on and keeps a copy of it, unless it is a stream, a server error or over `MAX_BODY`.

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
            self._complete = not message.get("more_body", False) and len(self.body) <= MAX_BODY
        if self._complete and self.storable:
            crash_point("idempotency.done")
            await self._store(self)
            crash_point("idempotency.stored")
        await self._send(message)


def _expect_hash(stored: Document, body_hash: str | None) -> None:
    if stored["body_hash"] != body_hash:
        raise Unprocessable(
            "This Idempotency-Key was used with another request body. Use a new key for a new request.",
            code="idempotency_key_reused",
        )


async def _read_through(seen: FormDigest, receive: Receive, size: int) -> str | None:
    """The digest of a body that is read for nothing else; None as soon as it is longer than `size`."""
    while seen.size <= size:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        last = not message.get("more_body", False)
        seen.update(message.get("body", b""), last=last)
        if last:
            return seen.hexdigest()
    return None


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None where the client went away before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise TooLarge(f"A request with an Idempotency-Key may have at most {MAX_BODY} bytes.")
        if not message.get("more_body", False):
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


async def _replay(stored: Document, send: Send) -> None:
    if "body" not in stored:
        raise Conflict(
            "This was done before, under the same Idempotency-Key; its answer held a secret and was not kept.",
            code="answer_not_kept",
        )
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in stored["headers"]]
    headers.append((b"idempotent-replayed", b"true"))
    await send({"type": "http.response.start", "status": stored["status"], "headers": headers})
    await send({"type": "http.response.body", "body": stored["body"]})
