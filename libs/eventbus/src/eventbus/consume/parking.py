"""Messages that could not be handled yet: their key waits in the database, every other key goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from prometheus_client import Gauge

from chassis.ids import now
from eventbus.messages.message import Message
from stores.leases import Leases
from stores.mongo import Collection, Document, DuplicateKeyError, PyMongoError, Query, ensure_index

PARKED = Gauge("parked_keys", "Keys whose messages wait for another attempt.")
PARKED_AGE = Gauge("parked_oldest_seconds", "Age of the key that has waited longest.")

MEASURE_SECONDS = 15.0
LEASE_SECONDS = 60.0
CALL_SECONDS = 10.0
"""What a call of the database may take; see `stores.mongo`."""

MOST_BEHIND_ONE_KEY = 100
"""Messages are small; a document holds at most 16 MiB. With more, the partition waits instead."""


@dataclass(frozen=True)
class ParkedClaim:
    """A parked key that is being tried again, under a lease.

    Attributes:
        id: its `Message.order_key`.
        fence: of the lease.
        message: the oldest of its messages.
        attempts: how often that one has failed.
        ends_at: when the lease is over, by `time.monotonic`.
        until_ms: the same by the database's clock.
    """

    id: str
    fence: int
    message: Message
    attempts: int
    ends_at: float
    until_ms: int

    @classmethod
    def of(cls, document: Document, ends_at: float) -> ParkedClaim:
        """What a claimed key's document says.

        Args:
            document: its `_id`, `lease` and `messages`, of which there is at least one.
            ends_at: see above.
        """
        first = document["messages"][0]
        message = Message(**{name: first[name] for name in Message.__dataclass_fields__})
        lease = document["lease"]
        return cls(document["_id"], lease["fence"], message, first["attempts"], ends_at, lease["until_ms"])


class Parking:
    """The parked keys of one consumer group, each a document with its messages in order.

    A key is parked and let go in single writes, so a kill at any moment leaves it parked, or handled: a message that is
    read again after it was parked is recognised by its place.

    Args:
        collection: where the keys lie.
        owner: this replica's name in leases.
    """

    def __init__(self, collection: Collection, owner: str) -> None:
        self._keys = collection
        self._leases = Leases(collection)
        self._owner = owner
        self._questions: list[tuple[str, asyncio.Future[bool]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Create the index that claims use."""
        await ensure_index(self._keys, [("lease.until_ms", 1), ("created_at", 1)])

    async def holds(self, message: Message) -> bool:
        """Whether something of the message's key waits, so that it has to wait as well.

        Those who ask while a question is on its way share the next one: each answer is younger than its question.
        """
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._questions.append((message.order_key, answer))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await answer

    async def _ask(self) -> None:
        while self._questions:
            questions, self._questions = self._questions, []
            keys = sorted({key for key, _ in questions})
            try:
                parked = {found["_id"] async for found in self._keys.find({"_id": {"$in": keys}}, {"_id": 1})}
            except PyMongoError as error:
                _answer(questions, error)
            else:
                _answer(questions, parked)

    async def park(self, message: Message, attempts: int) -> bool:
        """Put a message behind those of its key; False when there is no room.

        Args:
            message: that waits.
            attempts: how often it has failed.
        """
        place, full = message.place, f"messages.{MOST_BEHIND_ONE_KEY - 1}"
        key = {"_id": message.order_key, "messages.place": {"$ne": place}, full: {"$exists": False}}
        change = {
            "$push": {"messages": {"place": place, "attempts": attempts, **asdict(message)}},
            "$setOnInsert": {
                "created_at": now(),
                "version": 0,
                # The key may have been parked before, under fences that must not come again.
                "lease": {"owner": "", "fence": time.time_ns() // 1000, "until_ms": 0},
            },
        }
        try:
            await self._keys.update_one(key, change, upsert=True)
        except DuplicateKeyError:
            return await self._keys.find_one({"_id": message.order_key, "messages.place": place}) is not None
        return True

    async def claim(self) -> ParkedClaim | None:
        """A key whose time has come, if there is one; nobody else tries it meanwhile."""
        ends_at = time.monotonic() + LEASE_SECONDS
        document = await self._leases.claim({}, self._owner, LEASE_SECONDS)
        if document is None:
            return None
        if not document["messages"]:  # emptied by a release that let go in two steps
            await self._keys.delete_one({"_id": document["_id"], "messages": {"$size": 0}})
            return None
        return ParkedClaim.of(document, ends_at)

    async def done(self, claim: ParkedClaim, seconds: float) -> ParkedClaim | None:
        """The oldest message is handled, or dead-lettered.

        Args:
            claim: on whose key.
            seconds: what an attempt may take.

        Returns:
            The key's next message under the same lease. None where there is none, or where the lease may end before
            that has been tried: then the next one is due at once.
        """
        last = await self._keys.delete_one({**self._mine(claim), "messages.1": {"$exists": False}})
        if last.deleted_count:
            return None
        change = {"$pop": {"messages": -1}}
        if time.monotonic() + CALL_SECONDS + seconds < claim.ends_at:
            document = await self._keys.find_one_and_update(self._mine(claim), change, return_document=True)
            return ParkedClaim.of(document, claim.ends_at) if document else None
        await self._keys.update_one(self._mine(claim), {**change, "$set": {"lease.owner": "", "lease.until_ms": 0}})
        return None

    async def failed(self, claim: ParkedClaim, pause: float) -> None:
        """Try it again after `pause` seconds."""
        due_ms = claim.until_ms + int((time.monotonic() + pause - claim.ends_at) * 1000)
        change = {"$inc": {"messages.0.attempts": 1}, "$set": {"lease.owner": "", "lease.until_ms": due_ms}}
        await self._keys.update_one(self._mine(claim), change)

    async def watch(self) -> None:
        """Keep the gauges of parked keys current, until cancelled."""
        while True:
            oldest = await self._keys.find_one({}, sort=[("created_at", 1)])
            PARKED.set(await self._keys.estimated_document_count())
            PARKED_AGE.set(now() - oldest["created_at"] if oldest else 0.0)
            await asyncio.sleep(MEASURE_SECONDS)

    def _mine(self, claim: ParkedClaim) -> Query:
        """Matches while nobody claimed the key after us and our message is still its oldest."""
        return {"_id": claim.id, "lease.fence": claim.fence, "messages.0.place": claim.message.place}


def _answer(questions: Sequence[tuple[str, asyncio.Future[bool]]], found: set[str] | PyMongoError) -> None:
    for key, answer in questions:
        if answer.done():  # who asked was cancelled
            continue
        if isinstance(found, PyMongoError):
            answer.set_exception(found)
        else:
            answer.set_result(key in found)
