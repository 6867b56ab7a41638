"""Files and dataset versions in MongoDB, their bytes in the object store."""

from __future__ import annotations

from typing import Any

from chassis.errors import NotFound
from chassis.ids import now
from eventbus.outbox import AggregateStore
from ingest.domain import Dataset, File
from stores.objects import Objects


class Files:
    """The service's documents and objects, in its own words."""

    def __init__(self, files: AggregateStore[File], datasets: AggregateStore[Dataset], objects: Objects) -> None:
        self.files = files
        self.datasets = datasets
        self.objects = objects

    async def prepare(self) -> None:
        """Create the indexes of the worker's and the sweeper's questions."""
        await self.files.collection.create_index([("state", 1), ("created_at", 1)])
        await self.files.collection.create_index("expires_at", sparse=True)

    async def visible(self, tenant_id: str, file_id: str) -> File:
        """A file that is not deleted.

        Raises:
            NotFound: there is none for this tenant.
        """
        found = await self.files.find_one(tenant_id, {"_id": file_id, "state": {"$ne": "deleted"}})
        if found is None:
            raise NotFound(f"No such File object: {file_id}", param="id")
        return found

    async def page(
        self, tenant_id: str, purpose: str | None, *, limit: int, after: str | None, newest_first: bool
    ) -> list[File]:
        """Files that are not deleted."""
        query: dict[str, Any] = {"state": {"$ne": "deleted"}}
        if purpose:
            query["purpose"] = purpose
        return await self.files.find(tenant_id, query, limit=limit, after=after, newest_first=newest_first)

    async def stored_bytes(self, tenant_id: str) -> int:
        """Bytes of the tenant's uploads."""
        pipeline: list[dict[str, Any]] = [
            {"$match": {"tenant_id": tenant_id, "state": {"$ne": "deleted"}}},
            {"$group": {"_id": None, "bytes": {"$sum": "$object.size"}}},
        ]
        found = await self.files.collection.aggregate(pipeline).to_list(1)
        return int(found[0]["bytes"]) if found else 0

    async def expired(self) -> list[File]:
        """Files of any tenant whose time is over."""
        query = {"expires_at": {"$lte": now(), "$ne": None}, "state": {"$ne": "deleted"}}
        return [file async for file in self.files.for_service(query)]

    async def half_deleted(self) -> list[File]:
        """Files of any tenant that nobody finds any more and whose bytes may still be there."""
        return [file async for file in self.files.for_service({"state": "deleted", "bytes_gone": {"$ne": True}})]

    async def claim(self, owner: str, seconds: float) -> File | None:
        """The oldest file that waits to be parsed."""
        return await self.files.claim({"state": "uploaded"}, owner, seconds)
