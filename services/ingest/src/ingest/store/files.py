"""Files and dataset versions in MongoDB, their bytes in the object store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from chassis.errors import Conflict, NotFound
from chassis.ids import derived_id, new_id, now
from chassis.streams import begun
from eventbus import AggregateStore
from ingest.domain import Dataset, File, State
from ingest.store.uses import Use, Uses
from ingest.texts import find_text
from schemas import ObjectRef
from schemas.http.ingest import FileText
from stores.mongo import Collection, Document, Query, ensure_index
from stores.objects import DigestMismatch, Objects
from stores.orphans import Orphans

FILE_SIZES = ("object.size", "derived_bytes")
DATASET_SIZES = (
    "prepared.train.size",
    "prepared.validation.size",
    "prepared.heldout.size",
    "prepared.manifest.size",
    "manifest.parts.card.size",
)
KEPT: list[State] = ["uploaded", "processed", "error"]
TO_PARSE: tuple[State, ...] = ("uploaded",)
TO_PURGE: Query = {"state": "deleted", "purged": {"$ne": True}}
LEFT_BEHIND: Query = {"state": "deleted", "told": {"$ne": True}}
"""Deleted under a release of which labeling, evaluator and trainer heard nothing."""

DATASETS_TO_PURGE: Query = {"state": "deleted"}
SHOWN_DATASETS: Query = {"state": {"$nin": ["deleted", "purged"]}}


class StoredElsewhere:
    """Bytes that other services hold of a tenant's data, as they say: adapters and evidence.

    A thing counts once, however many made it, and until the last of them has lost it: two jobs may make one adapter.

    Args:
        collection: one document for each thing, which stays without bytes once they are gone.
    """

    def __init__(self, collection: Collection) -> None:
        self._things = collection

    async def prepare(self) -> None:
        """Create the index of the sum, which holds all it takes."""
        await ensure_index(self._things, [("tenant_id", 1), ("bytes", 1)])

    async def count(self, tenant_id: str, thing: str, maker: str, size: int) -> None:
        """Count a thing that another service stored, once for its maker however often that is said."""
        await self._note(tenant_id, thing, "makers", maker, size)

    async def remove(self, tenant_id: str, thing: str, maker: str) -> None:
        """One who made a thing has lost it."""
        await self._note(tenant_id, thing, "lost", maker, {"$ifNull": ["$bytes", 0]})

    async def _note(self, tenant_id: str, thing: str, field: str, maker: str, size: int | Query) -> None:
        among = {name: {"$ifNull": [f"${name}", []]} for name in ("makers", "lost")}
        noted = {**among, field: {"$setUnion": [among[field], [maker]]}}
        left = {"$cond": [{"$setIsSubset": ["$makers", "$lost"]}, 0, size]}
        change: list[Document] = [{"$set": {"tenant_id": tenant_id, **noted}}, {"$set": {"bytes": left}}]
        await self._things.update_one({"_id": f"{tenant_id}/{thing}"}, change, upsert=True)

    async def bytes_of(self, tenant_id: str) -> int:
        """Bytes in all."""
        return await _sum(self._things, {"tenant_id": tenant_id, "bytes": {"$gt": 0}}, ["bytes"])


class Files:
    """The service's documents and objects, in its own words.

    Args:
        files: the uploads.
        datasets: what was made from them.
        arriving: by object key, bytes that are being stored and that no file names yet.
        uses: what rests on files.
        elsewhere: what other services hold.
        objects: where the bytes lie.
    """

    def __init__(
        self,
        files: AggregateStore[File],
        datasets: AggregateStore[Dataset],
        arriving: Collection,
        uses: Uses,
        elsewhere: StoredElsewhere,
        objects: Objects,
    ) -> None:
        self._files = files
        self._datasets = datasets
        self._uses = uses
        self._elsewhere = elsewhere
        self._objects = objects
        self._arriving = arriving

    async def prepare(self) -> None:
        """Create the indexes of the sweeper's questions, and of the sums."""
        await ensure_index(self._files.collection, [("state", 1), ("purged", 1)])
        await ensure_index(self._files.collection, [("state", 1), ("expires_at", 1)])
        await ensure_index(self._files.collection, [("tenant_id", 1), ("source_file_id", 1)])
        await ensure_index(self._files.collection, [("tenant_id", 1), ("project_id", 1)])
        sizes = [(name, 1) for name in FILE_SIZES]
        await ensure_index(self._files.collection, [("tenant_id", 1), ("purged", 1), *sizes])
        sizes = [(name, 1) for name in DATASET_SIZES]
        await ensure_index(self._datasets.collection, [("tenant_id", 1), ("state", 1), *sizes])
        await ensure_index(self._datasets.collection, [("tenant_id", 1), ("prepared.file_id", 1)])
        await self._uses.prepare()
        await self._elsewhere.prepare()

    async def find(self, tenant_id: str, file_id: str) -> File | None:
        """The tenant's file of that id, be it deleted or not."""
        return await self._files.find_one(tenant_id, {"_id": file_id})

    async def add(self, file: File) -> None:
        """Add a file.

        Raises:
            Conflict: there is one of its id.
        """
        await self._files.add(file)

    async def add_once(self, file: File) -> File:
        """Add a file, or return the one of its id."""
        return await self._files.add_once(file)

    async def write(self, file: File, change: Callable[[File], None]) -> File:
        """Apply a worker's change, refused once another worker has claimed the file."""
        return await self._files.update(file.tenant_id, file.id, change, fence=file.lease.fence)

    async def update(self, tenant_id: str, file_id: str, change: Callable[[File], None]) -> File:
        """Apply anybody else's change."""
        return await self._files.update(tenant_id, file_id, change)

    async def add_dataset(self, dataset: Dataset) -> Dataset:
        """Add a dataset version, or return the one of its id."""
        return await self._datasets.add_once(dataset)

    async def update_dataset(self, tenant_id: str, dataset_id: str, change: Callable[[Dataset], None]) -> None:
        """Change a dataset version."""
        await self._datasets.update(tenant_id, dataset_id, change)

    async def uses_of(self, tenant_id: str, file_id: str) -> list[Use]:
        """Who rests on a file's rows."""
        return await self._uses.of(tenant_id, file_id)

    async def visible(self, tenant_id: str, file_id: str, where: Mapping[str, str] | None = None) -> File:
        """A file that is not deleted and meets the further conditions of `where`.

        Raises:
            NotFound: there is none for this tenant.
        """
        found = await self._files.find_one(tenant_id, {**(where or {}), "_id": file_id, "state": {"$ne": "deleted"}})
        if found is None:
            raise NotFound(f"No such File object: {file_id}", param="id")
        return found

    async def page(
        self,
        tenant_id: str,
        purpose: str | None,
        where: Query,
        *,
        limit: int,
        after: str | None,
        newest_first: bool,
    ) -> list[File]:
        """Files that are not deleted and meet the further conditions of `where`."""
        query: Query = {**where, "state": {"$ne": "deleted"}}
        if purpose:
            query["purpose"] = purpose
        return await self._files.find(tenant_id, query, limit=limit, after=after, newest_first=newest_first)

    async def stored_bytes(self, tenant_id: str) -> int:
        """Bytes stored of the tenant's files and of all that is made from them, until they are gone.

        Each sum is read from an index that holds all it takes.
        """
        of_files = {"tenant_id": tenant_id, "purged": {"$in": [False, None]}}
        of_datasets = {"tenant_id": tenant_id, "state": {"$in": ["ready", "kept", "deleted", None]}}
        files = await _sum(self._files.collection, of_files, FILE_SIZES)
        datasets = await _sum(self._datasets.collection, of_datasets, DATASET_SIZES)
        return files + datasets + await self._elsewhere.bytes_of(tenant_id)

    async def made_from(self, file: File) -> list[File]:
        """A file, and those that people made from it by answering its rows."""
        answered = {"source_file_id": file.id, "state": {"$in": KEPT}}
        return [file, *await self._files.find(file.tenant_id, answered)]

    async def published_by(self, tenant_id: str, project_id: str) -> list[File]:
        """The files that a labeling project published, those that are deleted excepted."""
        return await self._files.find(tenant_id, {"project_id": project_id, "state": {"$in": KEPT}})

    async def shown_datasets(self, tenant_id: str, where: Query, *, limit: int, after: str | None) -> list[Dataset]:
        """Dataset versions whose rows are there and that meet the further conditions of `where`."""
        return await self._datasets.find(tenant_id, {**where, **SHOWN_DATASETS}, limit=limit, after=after)

    async def shown_dataset(self, tenant_id: str, dataset_id: str, where: Query) -> Dataset:
        """A dataset version whose rows are there.

        Raises:
            NotFound: there is none for this tenant that meets the conditions of `where`.
        """
        return await self._datasets.get(tenant_id, dataset_id, {**where, **SHOWN_DATASETS})

    async def outliving(self, tenant_id: str, file_id: str) -> list[Dataset]:
        """The dataset versions that stay although their file is deleted."""
        return await self._datasets.find(tenant_id, {"prepared.file_id": file_id, "state": "kept"})

    async def claim_deleted_dataset(self, owner: str, seconds: float) -> Dataset | None:
        """A deleted dataset version whose rows may lie there still."""
        return await self._datasets.claim(DATASETS_TO_PURGE, owner, seconds)

    async def expired(self) -> list[File]:
        """Files of any tenant whose time is over."""
        query = {"state": {"$in": KEPT}, "expires_at": {"$gt": 0, "$lte": now()}}
        return [file async for file in self._files.readable(query)]

    async def claim_deleted(self, owner: str, seconds: float) -> File | None:
        """A deleted file whose bytes may lie there still, once no worker reads it any more."""
        return await self._files.claim(TO_PURGE, owner, seconds)

    async def download(self, file: File, path: Path) -> None:
        """Write a file's bytes to `path`.

        Raises:
            NotFound, DigestMismatch: they are gone, or others.
        """
        await self._objects.download(file.object, path)

    async def text_of(self, file: File) -> FileText | None:
        """What was said of a file's text when it was read, found again in the store; None while it is no text.

        Raises:
            NotFound: it is gone.
        """
        return await find_text(self._objects, file)

    async def content(self, file: File) -> AsyncGenerator[bytes, None]:
        """The bytes of a file, of which some are there already when this returns.

        Raises:
            NotFound: they are gone, or others; of a long file that shows later, and what comes breaks off.
            Transient: the object store cannot be asked.
        """
        chunks = self._objects.stream(file.object)
        try:
            first = await anext(chunks, b"")
        except (NotFound, DigestMismatch) as error:
            message = f"The content of file '{file.id}' is gone or damaged. Delete the file and upload it again."
            raise NotFound(message, param="id", code="file_gone") from error
        return begun(first, chunks)

    async def put_upload(self, tenant_id: str, file_id: str, source: BinaryIO) -> ObjectRef:
        """Store an upload's bytes at a place of their own, noted first, so that a crash leaves none unknown."""
        key = f"tenants/{tenant_id}/files/{file_id}/{new_id('original-')}"
        await self._arriving.insert_one({"_id": key, "tenant_id": tenant_id, "file_id": file_id, "at": now()})
        return await self._objects.put_stream(key, source)

    async def close_upload(self, tenant_id: str, file_id: str, key: str) -> None:
        """Keep the stored bytes if the file names them; remove them otherwise."""
        if await self._files.find_one(tenant_id, {"_id": file_id, "object.key": key}) is None:
            await self._objects.delete(key)
        await self._arriving.delete_one({"_id": key})

    async def close_abandoned_uploads(self, seconds: int) -> None:
        """Close the uploads of all tenants that were broken off longer ago than any may take."""
        async for abandoned in self._arriving.find({"at": {"$lt": now() - seconds}}):
            await self.close_upload(abandoned["tenant_id"], abandoned["file_id"], abandoned["_id"])

    async def orphaned_bytes(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """Bytes of files that do not name them and never will; of files that were never written, those unknown."""
        query = {"_id": {"$in": list(folders)}, "tenant_id": tenant_id}
        files = {file.id: file async for file in self._files.for_service(query)}
        known = [(files[file_id], key) for file_id, keys in folders.items() if file_id in files for key in keys]
        return Orphans(
            removable=[key for file, key in known if not file.may_name(key)],
            unknown=[key for file_id, keys in folders.items() if file_id not in files for key in keys],
        )

    async def orphaned_datasets(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """Parts of dataset versions that were never written, but for those that are being made."""
        query = {"state": {"$in": list(TO_PARSE)}, "tenant_id": tenant_id}
        coming = {dataset_id_of(file) async for file in self._files.for_service(query)}
        theirs = {"_id": {"$in": list(folders)}, "tenant_id": tenant_id}
        known = await self._datasets.collection.distinct("_id", theirs)
        gone = await self._datasets.collection.distinct("_id", {**theirs, "state": "purged"})
        kept = coming.union(known)
        return Orphans(
            removable=[key for dataset_id in gone for key in folders[dataset_id]],
            unknown=[key for dataset_id, keys in folders.items() if dataset_id not in kept for key in keys],
        )

    async def note_purged(self, file: File) -> None:
        """The bytes of a claimed file are gone; one that a worker has written to meanwhile is claimed again."""
        file.purge()
        with suppress(Conflict):
            await self._files.save(file, fence=file.lease.fence)
        await self._files.leases.release(file.id, file.lease.fence)

    async def note_dataset_purged(self, dataset: Dataset) -> None:
        """The rows of a claimed dataset version are gone."""
        with suppress(Conflict):
            await self._datasets.update(dataset.tenant_id, dataset.id, Dataset.purge, fence=dataset.lease.fence)

    async def remove_bytes(self, file: File) -> None:
        """Remove all that was stored of a file, but not a dataset version that was announced; see `Dataset.delete`."""
        await self._objects.delete(file.object.key)
        await self._objects.delete_prefix(f"tenants/{file.tenant_id}/files/{file.id}/")
        await self._objects.delete_prefix(f"tenants/{file.tenant_id}/documents/{file.id}/")
        if file.dataset_id is None:
            unannounced = dataset_id_of(file)
            await self._datasets.collection.delete_one({"_id": unannounced, "tenant_id": file.tenant_id})
            await self._objects.delete_prefix(f"tenants/{file.tenant_id}/datasets/{unannounced}/")

    async def remove_rows(self, dataset: Dataset) -> None:
        """Remove all that was stored of a dataset version."""
        await self._objects.delete_prefix(f"tenants/{dataset.tenant_id}/datasets/{dataset.id}/")


async def _sum(collection: Collection, query: Query, fields: Sequence[str]) -> int:
    total = {"$add": [{"$ifNull": [f"${name}", 0]} for name in fields]}
    pipeline: list[Query] = [{"$match": query}, {"$group": {"_id": None, "bytes": {"$sum": total}}}]
    found = await collection.aggregate(pipeline).to_list(1)
    return int(found[0]["bytes"]) if found else 0


def dataset_id_of(file: File) -> str:
    """The dataset version that a file's rows make: the same however often they are read."""
    return derived_id("ds-", file.id, file.object.sha256)
