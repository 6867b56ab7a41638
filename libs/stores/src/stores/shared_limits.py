"""Limits that hold over the replicas of a service: what each lets through is told to the others within a moment."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import structlog

from chassis.clock import utc_now
from chassis.ids import SERVER_MS
from chassis.limits import FRESH_SECONDS, MINUTE, Limiter
from stores.mongo import Collection, PyMongoError, Query, UpdateOne, ensure_index

log = structlog.get_logger()

GATHER_SECONDS = 0.02
"""What is used until then is told together, so that many names make few calls."""

BELIEVED_MS = 30_000
"""For so long after a limit was lowered another replica may believe the one before it."""

REST_SECONDS = 5.0
"""After a failure; meanwhile each replica counts for itself."""

KEEP = timedelta(hours=24)
"""After its last use an allowance is forgotten, with what is owed of it."""


class SharedLimit:
    """Exchanges what a limiter counts with those of the other replicas, through a collection.

    No request waits for it, and while the database is away each replica grants the limits for itself. What was used and
    could not be told is told no more: it may have been counted.

    Args:
        limiter: this replica's.
        records: where the replicas' count lies, a document for each allowance that is used.
    """

    def __init__(self, limiter: Limiter, records: Collection) -> None:
        self._limiter = limiter
        self._records = records

    async def prepare(self) -> None:
        """Let MongoDB drop what is used no more."""
        await ensure_index(self._records, "expires_at", expireAfterSeconds=0)

    async def run(self) -> None:
        """Exchange, until cancelled: at once what was used by a count that is stale, else with what follows."""
        while True:
            await self._limiter.used.wait()
            await asyncio.sleep(GATHER_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._limiter.stale.wait(), FRESH_SECONDS)
            try:
                await self.exchange()
            except PyMongoError as error:
                log.warning("limits_not_shared", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(REST_SECONDS)

    async def exchange(self) -> None:
        """Tell what was used here, and learn what is left.

        Raises:
            PyMongoError: the database did not do it.
        """
        if used := self._limiter.take_untold():
            self._limiter.learn(await self._count(used))

    async def _count(self, used: dict[str, tuple[int, float]]) -> dict[str, float]:
        names = {f"{self._limiter.what}/{name}": name for name in used}
        taken = [UpdateOne({"_id": key}, _less(*used[name]), upsert=True) for key, name in names.items()]
        await self._records.bulk_write(taken, ordered=False)
        found = self._records.find({"_id": {"$in": list(names)}}, {"level": 1})
        return {names[one["_id"]]: float(one["level"]) async for one in found}


def _less(limit: int, amount: float) -> list[Query]:
    """A bucket's fields, refilled by the database's clock since it was last used, and less the amount.

    Of the limits that replicas believe the highest holds, until nobody has named it for as long as one is believed: who
    has not heard of a new one yet takes nothing from those who have.
    """
    lately = {"$gt": ["$limit_at_ms", {"$subtract": [SERVER_MS, BELIEVED_MS]}]}
    higher = {"$and": [lately, {"$gt": ["$limit", limit]}]}
    of_all = {
        "limit": {"$cond": [higher, "$limit", limit]},
        "limit_at_ms": {"$cond": [higher, "$limit_at_ms", SERVER_MS]},
    }
    since: Query = {"$subtract": [SERVER_MS, {"$ifNull": ["$at_ms", SERVER_MS]}]}
    refill = {"$divide": [{"$multiply": [since, "$limit"]}, MINUTE * 1000]}
    full = {"$min": ["$limit", {"$add": [{"$ifNull": ["$level", "$limit"]}, refill]}]}
    left = {"level": {"$subtract": [full, amount]}, "at_ms": SERVER_MS, "expires_at": utc_now() + KEEP}
    return [{"$set": of_all}, {"$set": left}]
