"""Limits that hold over the replicas of a service: what each lets through is told to the others within a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from chassis.ids import SERVER_MS
from chassis.limits import MINUTE, Limiter
from stores.mongo import Collection, PyMongoError, UpdateOne, ensure_index

log = structlog.get_logger()

SHARE_SECONDS = 0.25
REST_SECONDS = 5.0
"""After a failure; meanwhile each replica counts for itself."""

KEEP = timedelta(hours=24)
"""After its last use an allowance is forgotten, with what is owed of it."""


class SharedLimits:
    """Exchanges what limiters count with those of the other replicas, through a collection.

    No request waits for it, and while the database is away each replica grants the limits for itself. What was used and
    could not be told is told no more: it may have been counted.

    Args:
        limiters: this replica's; each counts something else.
        records: where the replicas' count lies, a document for each allowance that is used.
    """

    def __init__(self, limiters: Sequence[Limiter], records: Collection) -> None:
        self._limiters = limiters
        self._records = records

    async def prepare(self) -> None:
        """Let MongoDB drop what is used no more."""
        await ensure_index(self._records, "expires_at", expireAfterSeconds=0)

    async def run(self) -> None:
        """Exchange, until cancelled."""
        while True:
            await asyncio.sleep(SHARE_SECONDS)
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
        for limiter in self._limiters:
            if used := limiter.take_untold():
                limiter.learn(await self._count(limiter.what, used))

    async def _count(self, what: str, used: dict[str, tuple[int, float]]) -> dict[str, float]:
        names = {f"{what}/{name}": name for name in used}
        taken = [UpdateOne({"_id": key}, [{"$set": _less(*used[name])}], upsert=True) for key, name in names.items()]
        await self._records.bulk_write(taken, ordered=False)
        found = self._records.find({"_id": {"$in": list(names)}}, {"level": 1})
        return {names[one["_id"]]: float(one["level"]) async for one in found}


def _less(limit: int, amount: float) -> dict[str, Any]:
    """A bucket's fields, refilled by the database's clock since it was last used, and less the amount."""
    since: dict[str, Any] = {"$subtract": [SERVER_MS, {"$ifNull": ["$at_ms", SERVER_MS]}]}
    refill = {"$multiply": [since, limit / (MINUTE * 1000)]}
    full = {"$min": [limit, {"$add": [{"$ifNull": ["$level", limit]}, refill]}]}
    return {
        "level": {"$subtract": [full, amount]},
        "at_ms": SERVER_MS,
        "expires_at": datetime.now(UTC) + KEEP,
    }
