"""Leases by the database's clock: a document has one holder at a time, and work a fence that rises with every claim."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Gauge
from pydantic import BaseModel

from chassis.ids import SERVER_MS, now
from stores.mongo import Collection, Document, DuplicateKeyError, PyMongoError, Query

ABANDONED = Gauge(
    "leases_expired_oldest_seconds", "Longest time that work somebody began has lain without a worker.", ["collection"]
)

UNCLAIMED = Gauge("work_unclaimed_oldest_seconds", "Age of the oldest work that no worker ever began.", ["collection"])

MEASURE_SECONDS = 15.0


def in_seconds(seconds: float) -> Query:
    """A moment by the database's clock, in milliseconds, as an expression."""
    return {"$add": [SERVER_MS, int(seconds * 1000)]}


def over(until_ms: str) -> Query:
    """Matches documents in which the moment in a field is past."""
    return {"$expr": {"$lt": [f"${until_ms}", SERVER_MS]}}


FREE = over("lease.until_ms")
"""Matches what nobody holds a lease on."""

GIVEN_BACK: Document = {"lease.owner": "", "lease.until_ms": 0, "lease.unfinished": 0}
FORGIVEN: Document = {"lease.failures": 0, "lease.unfinished": 0}
ANEW: Document = {**FORGIVEN, "lease.progress": 0}
"""Of work that begins from the start: whatever was counted before, be it that its end could not be noted."""


async def keep_renewed(
    renew: Callable[[], Awaitable[bool]], seconds: float, away: Callable[[PyMongoError], None]
) -> None:
    """Renew a lease beside the work, until it is lost or could not be renewed in time.

    Args:
        renew: extends it; False when it is lost.
        seconds: its length; it is renewed at a quarter of that.
        away: told why it could not be renewed; it is tried again.
    """
    clock = asyncio.get_running_loop().time
    held_until = clock() + seconds
    while clock() < held_until:
        asked = clock()
        try:
            if not await renew():
                return
            held_until = asked + seconds
        except PyMongoError as error:
            away(error)
        await asyncio.sleep(seconds / 4)


class Holds:
    """Documents of which each has one holder at a time, known by name, for some seconds.

    Nothing is counted and there is no fence: `Leases` are for work.

    Args:
        collection: the documents.
        holder: their field for the holder's name.
        until_ms: their field for the end.
    """

    def __init__(self, collection: Collection, *, holder: str = "owner", until_ms: str = "until_ms") -> None:
        self._collection = collection
        self._holder = holder
        self._until_ms = until_ms

    def free_for(self, holder: str) -> Query:
        """Matches what nobody else holds."""
        return {"$or": [{self._holder: holder}, over(self._until_ms)]}

    @property
    def given_back(self) -> Document:
        """The fields of what nobody holds."""
        return {self._holder: "", self._until_ms: 0}

    async def take(
        self,
        query: Query,
        holder: str,
        seconds: float,
        *,
        sort: list[tuple[str, int]] | None = None,
        upsert: bool = False,
    ) -> Document | None:
        """Hold the first document that matches and that nobody else holds.

        Args:
            query: which documents; without an `$or`.
            holder: who holds it from now on, and perhaps has before.
            seconds: for how long.
            sort: which is the first.
            upsert: make it where there is none.

        Returns:
            The document; None where others hold all that match.
        """
        try:
            return await self._collection.find_one_and_update(
                {**query, **self.free_for(holder)},
                [{"$set": {self._holder: holder, self._until_ms: in_seconds(seconds)}}],
                sort=sort,
                upsert=upsert,
                return_document=True,
            )
        except DuplicateKeyError:  # it is there, and another's
            return None

    async def renew(self, document_id: str, holder: str, seconds: float) -> bool:
        """Hold it for some seconds more; False where it is another's."""
        renewed = await self._collection.update_one(
            {"_id": document_id, self._holder: holder}, [{"$set": {self._until_ms: in_seconds(seconds)}}]
        )
        return renewed.matched_count == 1

    async def give_back(self, document_id: str, holder: str) -> None:
        """Let others have it at once."""
        await self._collection.update_one({"_id": document_id, self._holder: holder}, {"$set": self.given_back})


class Lease(BaseModel):
    """Who works on an aggregate, and until when by the database's clock.

    `fence` rises with every claim; a write that carries an older one is refused.

    Attributes:
        failures: attempts that failed since the work last got further.
        unfinished: claims, the present one among them, of which no worker said how they ended.
        progress: how far the work ever got, in a unit of its own.
    """

    owner: str = ""
    fence: int = 0
    until_ms: int = 0
    failures: int = 0
    unfinished: int = 0
    progress: int = 0

    @property
    def deaths(self) -> int:
        """Workers that died of the work, one after the other, before the one that has it."""
        return max(0, self.unfinished - 1)

    @property
    def attempts(self) -> int:
        """Attempts that count: those that failed, those whose worker died last, and the present one."""
        return self.failures + self.unfinished


class Leases:
    """Claims, renews and gives back leases kept in the documents of `collection`, in their field `lease`.

    A claim raises `unfinished` in the same write, and whoever gives the lease back, for whatever reason, sets it to 0:
    so a worker that dies counts without having said anything. See `Lease` for what else is counted.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def claim(self, query: Query, owner: str, seconds: float) -> Document | None:
        """Claim the oldest document that matches and whose lease is free or over.

        Args:
            query: which documents are work; should use an index.
            owner: the worker's name, for people.
            seconds: length of the lease.

        Returns:
            The document with its new fence, or None if there is no work.
        """
        return await self._collection.find_one_and_update(
            {"$and": [query, FREE]},
            [
                {
                    "$set": {
                        "lease.owner": owner,
                        "lease.fence": {"$add": ["$lease.fence", 1]},
                        "lease.until_ms": in_seconds(seconds),
                        "lease.unfinished": {"$add": [{"$ifNull": ["$lease.unfinished", 0]}, 1]},
                        "version": {"$add": ["$version", 1]},
                    }
                }
            ],
            sort=[("created_at", 1)],
            return_document=True,
        )

    async def renew(self, document_id: str, fence: int, seconds: float, wanted: Query | None = None) -> bool:
        """Extend a lease; False when it is not ours any more, and the work must stop.

        Args:
            document_id: the work.
            fence: of the claim.
            seconds: length of the lease from now.
            wanted: further conditions, without which nobody wants the work any more.
        """
        result = await self._collection.update_one(
            {**(wanted or {}), "_id": document_id, "lease.fence": fence, "lease.owner": {"$ne": ""}},
            [{"$set": {"lease.until_ms": in_seconds(seconds)}}],
        )
        return result.matched_count == 1

    async def release(self, document_id: str, fence: int) -> None:
        """Give the lease back, with its fence kept, so that late writes of this attempt are still refused."""
        await self._collection.update_one({"_id": document_id, "lease.fence": fence}, {"$set": GIVEN_BACK})

    async def delay(self, document_id: str, fence: int, seconds: float) -> None:
        """Give the lease back, and let nobody claim the document for some seconds."""
        until = {"lease.until_ms": in_seconds(seconds)}
        await self._collection.update_one(
            {"_id": document_id, "lease.fence": fence}, [{"$set": {**GIVEN_BACK, **until}}]
        )

    async def finish(self, document_id: str, fence: int) -> None:
        """Give the lease back, and forget what was counted: the work is over, and begins anew if it ever does."""
        await self._collection.update_one({"_id": document_id, "lease.fence": fence}, {"$set": {**GIVEN_BACK, **ANEW}})

    async def count_failure(self, document_id: str, fence: int) -> int | None:
        """Count a failed attempt, for which no death is counted.

        Returns:
            How many have failed since the work last got further; None when the lease is not ours any more.
        """
        found = await self._collection.find_one_and_update(
            {"_id": document_id, "lease.fence": fence},
            {"$inc": {"lease.failures": 1}, "$set": {"lease.unfinished": 0}},
            return_document=True,
        )
        return int(found["lease"]["failures"]) if found else None

    async def progress(self, document_id: str, fence: int, mark: int) -> None:
        """Note how far the work got (from 1), and forget what counts against it where that is further than ever."""
        further = {"$or": [{"lease.progress": {"$lt": mark}}, {"lease.progress": None}]}
        await self._collection.update_one(
            {**further, "_id": document_id, "lease.fence": fence}, {"$set": {**FORGIVEN, "lease.progress": mark}}
        )

    async def abandoned(self, query: Query) -> float:
        """For how long the work has lain without a worker whose lease ended first; 0 where all is held or given back.

        Args:
            query: which documents are work; should use an index.
        """
        pipeline: list[Query] = [
            {"$match": {"$and": [query, {"lease.owner": {"$nin": ["", None]}}]}},
            {"$group": {"_id": None, "until_ms": {"$min": "$lease.until_ms"}}},
            {"$project": {"ms": {"$subtract": [SERVER_MS, "$until_ms"]}}},
        ]
        found = await self._collection.aggregate(pipeline).to_list(1)
        return max(0.0, found[0]["ms"] / 1000) if found else 0.0

    async def unclaimed(self, query: Query) -> float:
        """Age of the oldest work that matches, is free and was never claimed; 0 where there is none.

        Args:
            query: which documents are work; should use an index.
        """
        never: Query = {"$and": [query, {"lease.fence": 0}, FREE]}
        oldest = await self._collection.find_one(never, {"created_at": 1}, sort=[("created_at", 1)])
        return max(0.0, now() - oldest["created_at"]) if oldest else 0.0

    async def watch(self, query: Query) -> None:
        """Keep the gauges of abandoned and of unclaimed work current, until cancelled."""
        while True:
            ABANDONED.labels(self._collection.name).set(await self.abandoned(query))
            UNCLAIMED.labels(self._collection.name).set(await self.unclaimed(query))
            await asyncio.sleep(MEASURE_SECONDS)
