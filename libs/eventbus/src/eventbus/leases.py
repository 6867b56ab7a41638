"""Leases by the database's clock: one worker at a time on a job, a fence that rises with every claim."""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import Gauge

from chassis.ids import SERVER_MS, now
from stores.mongo import Collection

ABANDONED = Gauge(
    "leases_expired_oldest_seconds", "Longest time that work somebody began has lain without a worker.", ["collection"]
)

UNCLAIMED = Gauge("work_unclaimed_oldest_seconds", "Age of the oldest work that no worker ever began.", ["collection"])

MEASURE_SECONDS = 15.0

FREE: dict[str, Any] = {"$expr": {"$lt": ["$lease.until_ms", SERVER_MS]}}
"""Matches what nobody holds a lease on."""


class Leases:
    """Claims, renews and releases leases kept in the documents of `collection`, in their field `lease`."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def claim(self, query: dict[str, Any], owner: str, seconds: float) -> dict[str, Any] | None:
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
                        "lease.until_ms": {"$add": [SERVER_MS, int(seconds * 1000)]},
                        "version": {"$add": ["$version", 1]},
                    }
                }
            ],
            sort=[("created_at", 1)],
            return_document=True,
        )

    async def renew(self, document_id: str, fence: int, seconds: float) -> bool:
        """Extend a lease; False when it is not ours any more, and the work must stop."""
        result = await self._collection.update_one(
            {"_id": document_id, "lease.fence": fence, "lease.owner": {"$ne": ""}},
            [{"$set": {"lease.until_ms": {"$add": [SERVER_MS, int(seconds * 1000)]}}}],
        )
        return result.matched_count == 1

    async def release(self, document_id: str, fence: int) -> None:
        """Give the lease back; the fence stays, so late writes of this attempt are still refused after a new claim."""
        await self._collection.update_one(
            {"_id": document_id, "lease.fence": fence}, {"$set": {"lease.owner": "", "lease.until_ms": 0}}
        )

    async def delay(self, document_id: str, fence: int, seconds: float) -> None:
        """Let nobody claim the document for some seconds: the wait before another attempt."""
        await self._collection.update_one(
            {"_id": document_id, "lease.fence": fence},
            [{"$set": {"lease.owner": "", "lease.until_ms": {"$add": [SERVER_MS, int(seconds * 1000)]}}}],
        )

    async def tenants_with_work(self, query: dict[str, Any]) -> list[str]:
        """Whose documents match and are free: nobody is asked in vain whose work is only under way or put off.

        Args:
            query: which documents are work; should use an index that holds the tenant and the lease's end.
        """
        pipeline: list[dict[str, Any]] = [{"$match": {"$and": [query, FREE]}}, {"$group": {"_id": "$tenant_id"}}]
        return [found["_id"] async for found in self._collection.aggregate(pipeline)]

    async def abandoned(self, query: dict[str, Any]) -> float:
        """For how long the work has lain without a worker whose lease ended first; 0 where all is held or given back.

        Args:
            query: which documents are work; should use an index.
        """
        pipeline: list[dict[str, Any]] = [
            {"$match": {"$and": [query, {"lease.owner": {"$nin": ["", None]}}]}},
            {"$group": {"_id": None, "until_ms": {"$min": "$lease.until_ms"}}},
            {"$project": {"ms": {"$subtract": [SERVER_MS, "$until_ms"]}}},
        ]
        found = await self._collection.aggregate(pipeline).to_list(1)
        return max(0.0, found[0]["ms"] / 1000) if found else 0.0

    async def unclaimed(self, query: dict[str, Any]) -> float:
        """Age of the oldest work that matches, is free and was never claimed; 0 where there is none.

        Args:
            query: which documents are work; should use an index.
        """
        never: dict[str, Any] = {"$and": [query, {"lease.fence": 0}, FREE]}
        oldest = await self._collection.find_one(never, {"created_at": 1}, sort=[("created_at", 1)])
        return max(0.0, now() - oldest["created_at"]) if oldest else 0.0

    async def watch(self, query: dict[str, Any]) -> None:
        """Keep the gauges of abandoned and of unclaimed work current, until cancelled."""
        while True:
            ABANDONED.labels(self._collection.name).set(await self.abandoned(query))
            UNCLAIMED.labels(self._collection.name).set(await self.unclaimed(query))
            await asyncio.sleep(MEASURE_SECONDS)
