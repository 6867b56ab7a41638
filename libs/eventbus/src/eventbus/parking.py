"""Messages that could not be handled yet: their key waits in the database, every other key goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from chassis.ids import now
from eventbus.leases import Leases
from stores.mongo import Collection, DuplicateKeyError

LEASE_SECONDS = 60.0
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

    async def prepare(self) -> None:
        """Create the index that claims use."""
        await self._keys.create_index([("lease.until_ms", 1), ("created_at", 1)])

    async def holds(self, record: Record) -> bool:
        """Whether something of the record's key waits, so that it has to wait as well."""
        return await self._keys.find_one({"_id": record.order_key}, {"_id": 1}) is not None

    async def park(self, record: Record, attempts: int) -> bool:
        """Put a message behind those of its key; False when there is no room.

        Args:
            record: the message.
            attempts: how often it has failed.
        """
        place, full = _place(record), f"messages.{MOST_BEHIND_ONE_KEY - 1}"
        key = {"_id": record.order_key, "messages.place": {"$ne": place}, full: {"$exists": False}}
        change: Mapping[str, Any] = {
            "$push": {"messages": {"place": place, "attempts": attempts, **asdict(record)}},
            "$setOnInsert": {
                "created_at": now(),
                "version": 0,
                "lease": {"owner": "", "fence": 0, "until_ms": 0},
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
        mine = _mine(held)
        change = {"$pop": {"messages": -1}, "$set": {"lease.owner": "", "lease.until_ms": 0}}
        await self._keys.update_one(mine, change)
        await self._let_go(held.id)

    async def failed(self, held: Held, pause: float) -> None:
        """Try it again after `pause` seconds."""
        mine = _mine(held)
        await self._keys.update_one(mine, {"$inc": {"messages.0.attempts": 1}})
        await self._leases.delay(held.id, held.fence, pause)

    async def depth(self) -> tuple[int, float]:
        """Number of parked keys, and the age in seconds of the oldest."""
        oldest = await self._keys.find_one({}, sort=[("created_at", 1)])
        return await self._keys.estimated_document_count(), now() - oldest["created_at"] if oldest else 0.0

    async def _let_go(self, key: str) -> None:
        await self._keys.delete_one({"_id": key, "messages": {"$size": 0}})


def _place(record: Record) -> str:
    return f"{record.partition}:{record.offset}"


def _mine(held: Held) -> dict[str, Any]:
    """The key as claimed. Fences begin again once a key was let go, so a late worker is told by its message too."""
    return {"_id": held.id, "lease.fence": held.fence, "messages.0.place": _place(held.record)}
