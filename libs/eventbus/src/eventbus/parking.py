"""Messages that could not be handled yet: their key waits in the database, every other key goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chassis.ids import now
from eventbus.leases import Leases
from stores.mongo import Collection, DuplicateKeyError, PyMongoError

LEASE_SECONDS = 60.0
FEW = 50
"""Parked keys that are read at once rather than asked about."""

MOST_BEHIND_ONE_KEY = 100
"""Messages are small; a document holds at most 16 MiB. With more, the partition waits instead."""


@dataclass(frozen=True)
class Record:
    """One Kafka message as it came, its topic without the installation's prefix."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, str]

    @property
    def place(self) -> str:
        """Where it lies in its topic, `partition:offset`."""
        return f"{self.partition}:{self.offset}"

    @property
    def order_key(self) -> str:
        """What must stay in order: the messages of one key, or of one partition where there is none."""
        key = self.key.hex() if self.key is not None else f"partition-{self.partition}"
        return f"{self.topic}/{key}"


@dataclass(frozen=True)
class Held:
    """A key that is being tried again, under a lease.

    Attributes:
        id: its `Record.order_key`.
        fence: of the lease.
        record: the oldest of its messages.
        attempts: how often that one has failed.
    """

    id: str
    fence: int
    record: Record
    attempts: int


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
        await self._keys.create_index([("lease.until_ms", 1), ("created_at", 1)])

    async def holds(self, record: Record) -> bool:
        """Whether something of the record's key waits, so that it has to wait as well.

        Those who ask while a question is on its way share the next one: each answer is younger than its question.
        """
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._questions.append((record.order_key, answer))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await answer

    async def _ask(self) -> None:
        while self._questions:
            questions, self._questions = self._questions, []
            try:
                held = await self._held_among({key for key, _ in questions})
            except PyMongoError as error:
                _answer(questions, error)
            else:
                _answer(questions, held)

    async def _held_among(self, keys: set[str]) -> set[str]:
        """Those of `keys` that are parked; mostly none is at all, which is cheaper to ask than about each key."""
        every = {found["_id"] async for found in self._keys.find({}, {"_id": 1}).limit(FEW + 1)}
        if len(every) <= FEW:
            return every & keys
        return {found["_id"] async for found in self._keys.find({"_id": {"$in": list(keys)}}, {"_id": 1})}

    async def park(self, record: Record, attempts: int) -> bool:
        """Put a message behind those of its key; False when there is no room.

        Args:
            record: the message.
            attempts: how often it has failed.
        """
        place, full = record.place, f"messages.{MOST_BEHIND_ONE_KEY - 1}"
        key = {"_id": record.order_key, "messages.place": {"$ne": place}, full: {"$exists": False}}
        change: Mapping[str, Any] = {
            "$push": {"messages": {"place": place, "attempts": attempts, **asdict(record)}},
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
            return await self._keys.find_one({"_id": record.order_key, "messages.place": place}) is not None
        return True

    async def claim(self) -> Held | None:
        """A key whose time has come, if there is one; nobody else tries it meanwhile."""
        document = await self._leases.claim({}, self._owner, LEASE_SECONDS)
        if document is None:
            return None
        if not document["messages"]:
            await self._let_go(document["_id"])
            return None
        first = document["messages"][0]
        record = Record(**{name: first[name] for name in Record.__dataclass_fields__})
        return Held(document["_id"], document["lease"]["fence"], record, first["attempts"])

    async def done(self, held: Held) -> None:
        """The oldest message is handled, or dead-lettered: the next one is due at once."""
        change = {"$pop": {"messages": -1}, "$set": {"lease.owner": "", "lease.until_ms": 0}}
        await self._keys.update_one(self._mine(held), change)
        await self._let_go(held.id)

    async def failed(self, held: Held, pause: float) -> None:
        """Try it again after `pause` seconds."""
        await self._keys.update_one(self._mine(held), {"$inc": {"messages.0.attempts": 1}})
        await self._leases.delay(held.id, held.fence, pause)

    async def depth(self) -> tuple[int, float]:
        """Number of parked keys, and the age in seconds of the oldest."""
        oldest = await self._keys.find_one({}, sort=[("created_at", 1)])
        return await self._keys.estimated_document_count(), now() - oldest["created_at"] if oldest else 0.0

    def _mine(self, held: Held) -> dict[str, Any]:
        """Matches while nobody claimed the key after us and our message is still its oldest."""
        return {"_id": held.id, "lease.fence": held.fence, "messages.0.place": held.record.place}

    async def _let_go(self, key: str) -> None:
        await self._keys.delete_one({"_id": key, "messages": {"$size": 0}})


def _answer(questions: Sequence[tuple[str, asyncio.Future[bool]]], found: set[str] | PyMongoError) -> None:
    for key, answer in questions:
        if answer.done():  # who asked was cancelled
            continue
        if isinstance(found, PyMongoError):
            answer.set_exception(found)
        else:
            answer.set_result(key in found)
