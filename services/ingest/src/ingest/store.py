"""Files and dataset versions in MongoDB, their bytes in the object store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO

from chassis.errors import NotFound
from chassis.ids import derived_id, new_id, now
from eventbus.outbox import AggregateStore
from ingest.domain import Dataset, File, State
from schemas import ObjectRef
from stores.mongo import Collection, ensure_index
from stores.objects import Objects
from stores.orphans import Orphans

KEPT: list[State] = ["uploaded", "processed", "error"]
TO_PARSE: dict[str, Any] = {"state": "uploaded"}
TO_PURGE: dict[str, Any] = {"state": "deleted", "purged": {"$ne": True}}


class Files:
    """The service's documents and objects, in its own words.

    Args:
        files: the uploads.
        datasets: what was made from them.
        arriving: by object key, bytes that are being stored and that no file names yet.
        turns: by tenant, when a file of theirs was last claimed to be parsed.
        objects: where the bytes lie.
    """

    def __init__(
        self,
        files: AggregateStore[File],
        datasets: AggregateStore[Dataset],
        arriving: Collection,
        turns: Collection,
        objects: Objects,
    ) -> None:
        self.files = files
        self.datasets = datasets
        self.objects = objects
        self._arriving = arriving
        self._turns = turns

    async def prepare(self) -> None:
        """Create the indexes of the worker's and the sweeper's questions."""
        await ensure_index(self.files.collection, [("state", 1), ("tenant_id", 1), ("created_at", 1)])
        await ensure_index(self.files.collection, [("state", 1), ("purged", 1)])
        await ensure_index(self.files.collection, [("state", 1), ("expires_at", 1)])
        await ensure_index(self.files.collection, [("tenant_id", 1), ("state", 1), ("object.size", 1)])

    async def visible(self, tenant_id: str, file_id: str, where: Mapping[str, Any] | None = None) -> File:
        """A file that is not deleted and meets the further conditions of `where`.

        Raises:
            NotFound: there is none for this tenant.
        """
        found = await self.files.find_one(tenant_id, {**(where or {}), "_id": file_id, "state": {"$ne": "deleted"}})
        if found is None:
            raise NotFound(f"No such File object: {file_id}", param="id")
        return found

    async def page(
        self,
        tenant_id: str,
        purpose: str | None,
        where: Mapping[str, Any],
        *,
        limit: int,
        after: str | None,
        newest_first: bool,
    ) -> list[File]:
        """Files that are not deleted and meet the further conditions of `where`."""
        query: dict[str, Any] = {**where, "state": {"$ne": "deleted"}}
        if purpose:
            query["purpose"] = purpose
        return await self.files.find(tenant_id, query, limit=limit, after=after, newest_first=newest_first)

    async def stored_bytes(self, tenant_id: str) -> int:
        """Bytes of the tenant's uploads, summed from an index that holds all it takes."""
        pipeline: list[dict[str, Any]] = [
            {"$match": {"tenant_id": tenant_id, "state": {"$in": KEPT}}},
            {"$group": {"_id": None, "bytes": {"$sum": "$object.size"}}},
        ]
        found = await self.files.collection.aggregate(pipeline).to_list(1)
        return int(found[0]["bytes"]) if found else 0

    async def expired(self) -> list[File]:
        """Files of any tenant whose time is over."""
        query = {"state": {"$in": KEPT}, "expires_at": {"$gt": 0, "$lte": now()}}
        return [file async for file in self.files.readable(query)]

    async def claim(self, owner: str, seconds: float) -> File | None:
        """The next file to be parsed: of the tenant that waited longest for a turn, its oldest."""
        return await self.files.claim_in_turn(TO_PARSE, self._turns, owner, seconds)

    async def claim_deleted(self, owner: str, seconds: float) -> File | None:
        """A deleted file whose bytes may lie there still, once no worker reads it any more."""
        return await self.files.claim(TO_PURGE, owner, seconds)

    async def hold(self, file: File, seconds: float) -> bool:
        """Go on reading a file; False when another worker has it or it was deleted, and the work must stop."""
        if not await self.files.leases.renew(file.id, file.lease.fence, seconds):
            return False
        return await self.files.find_one(file.tenant_id, {"_id": file.id, "state": "uploaded"}) is not None

    async def content(self, file: File) -> AsyncIterator[bytes]:
        """The bytes of a file, of which some are there already when this returns.

        Raises:
            NotFound: they are gone.
            Transient: the object store cannot be asked.
        """
        chunks = aiter(self.objects.stream(file.object))
        try:
            first = await anext(chunks, b"")
        except NotFound as error:
            message = f"The content of file '{file.id}' is gone. Delete the file and upload it again."
            raise NotFound(message, param="id", code="file_gone") from error

        async def all_of_it() -> AsyncIterator[bytes]:
            yield first
            async for chunk in chunks:
                yield chunk

        return all_of_it()

    async def put_upload(self, tenant_id: str, file_id: str, source: BinaryIO) -> ObjectRef:
        """Store an upload's bytes at a place of their own, noted first, so that a crash leaves none unknown."""
        key = f"tenants/{tenant_id}/files/{file_id}/{new_id('original-')}"
        await self._arriving.insert_one({"_id": key, "tenant_id": tenant_id, "file_id": file_id, "at": now()})
        return await self.objects.put_stream(key, source)

    async def settle_upload(self, tenant_id: str, file_id: str, key: str) -> None:
        """Keep the stored bytes if the file names them; remove them otherwise."""
        if await self.files.find_one(tenant_id, {"_id": file_id, "object.key": key}) is None:
            await self.objects.delete(key)
        await self._arriving.delete_one({"_id": key})

    async def settle_strays(self, seconds: int) -> None:
        """Settle the uploads of all tenants that were broken off longer ago than any may take."""
        async for stray in self._arriving.find({"at": {"$lt": now() - seconds}}):
            await self.settle_upload(stray["tenant_id"], stray["file_id"], stray["_id"])

    async def orphaned_bytes(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """Bytes of files that do not name them and never will; of files that were never written, those unknown."""
        query = {"_id": {"$in": list(folders)}, "tenant_id": tenant_id}
        files = {file.id: file async for file in self.files.for_service(query)}
        known = [(files[file_id], key) for file_id, keys in folders.items() if file_id in files for key in keys]
        return Orphans(
            removable=[key for file, key in known if not file.may_name(key)],
            unknown=[key for file_id, keys in folders.items() if file_id not in files for key in keys],
        )

    async def orphaned_datasets(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """Parts of dataset versions that were never written, but for those that are being made."""
        query = {**TO_PARSE, "tenant_id": tenant_id}
        coming = {dataset_id_of(file) async for file in self.files.for_service(query)}
        known = await self.datasets.collection.distinct("_id", {"_id": {"$in": list(folders)}, "tenant_id": tenant_id})
        kept = coming.union(known)
        return Orphans([], [key for dataset_id, keys in folders.items() if dataset_id not in kept for key in keys])

    async def remove_bytes(self, file: File) -> None:
        """Remove all that was stored of a file, but not a dataset version that was announced."""
        await self.objects.delete(file.object.key)
        await self.objects.delete_prefix(f"tenants/{file.tenant_id}/files/{file.id}/")
        await self.objects.delete_prefix(f"tenants/{file.tenant_id}/documents/{file.id}/")
        if file.dataset_id is None:
            unannounced = dataset_id_of(file)
            await self.datasets.collection.delete_one({"_id": unannounced, "tenant_id": file.tenant_id})
            await self.objects.delete_prefix(f"tenants/{file.tenant_id}/datasets/{unannounced}/")


def dataset_id_of(file: File) -> str:
    """The dataset version that a file's rows make: the same however often they are read."""
    return derived_id("ds-", file.id, file.object.sha256)
