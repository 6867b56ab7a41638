"""Stores, their files, their chunks' texts, and the documents known, in MongoDB."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from chassis.auth import Principal
from chassis.errors import NotFound
from chassis.text import quoted
from eventbus import AggregateStore
from rag_indexer.domain import Attributes, Chunking, FileState, Store, StoreFile
from schemas import DocumentParsed
from stores.mongo import Collection, Document, Query, ensure_index
from stores.paging import NEWEST_FIRST, OLDEST_FIRST, following

T = TypeVar("T")

TO_DO: tuple[FileState, ...] = ("in_progress", "deleting")
"""States of a file that a worker does something about."""


def seen_by(principal: Principal) -> Query:
    """The condition that leaves the stores somebody may see: an end user those of all and their own."""
    return {"owner": {"$in": ["", None, principal.owner]}} if principal.only else {}


@dataclass(frozen=True)
class StoredChunk:
    """A chunk's text and where it is from."""

    id: str
    file_id: str
    filename: str
    text: str


@dataclass(frozen=True)
class ListedFile:
    """A file of a store without its chunks, of which it may have thousands."""

    id: str
    tenant_id: str
    store_id: str
    file_id: str
    created_at: int
    attributes: Attributes
    state: FileState
    error: str | None
    bytes: int
    chunking: Chunking | None


LISTED = {name: 1 for name in ListedFile.__dataclass_fields__ if name != "id"}


@dataclass
class Usage:
    """How many files of a store are in each state, and how many bytes they have."""

    files: dict[str, int] = field(default_factory=lambda: {"in_progress": 0, "completed": 0, "failed": 0})
    bytes: int = 0


@dataclass(frozen=True)
class PageAsked:
    """Which page of a list is asked for: what comes after one id and before another, by `created_at`."""

    limit: int
    newest_first: bool = True
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True)
class Listed(Generic[T]):
    """A page, and whether there is more in the direction it was asked for."""

    items: list[T]
    more: bool


class Stores:
    """The service's documents, in its own words.

    Args:
        stores: the vector stores.
        files: files in them.
        chunks: their texts.
        documents: by file, the document parsed from it.
    """

    def __init__(
        self,
        stores: AggregateStore[Store],
        files: AggregateStore[StoreFile],
        chunks: Collection,
        documents: Collection,
    ) -> None:
        self._stores = stores
        self._files = files
        self._chunks = chunks
        self._documents = documents

    async def prepare(self) -> None:
        """Create the indexes."""
        files, stores = self._files.collection, self._stores.collection
        await ensure_index(files, [("state", 1), ("created_at", 1)])
        await ensure_index(files, [("tenant_id", 1), ("store_id", 1), ("state", 1)])
        await ensure_index(files, [("tenant_id", 1), ("store_id", 1), ("created_at", 1), ("_id", 1)])
        await ensure_index(files, [("tenant_id", 1), ("file_id", 1)])
        await ensure_index(files, [("state", 1), ("indexed_by", 1)])
        await ensure_index(stores, [("expires_at", 1)], sparse=True)

    async def add(self, store: Store) -> Store:
        """Add a store, or return the one of its id."""
        return await self._stores.add_once(store)

    async def update(self, tenant_id: str, store_id: str, change: Callable[[Store], None]) -> Store:
        """Change a store."""
        return await self._stores.update(tenant_id, store_id, change)

    async def is_used(self, tenant_id: str, store_id: str) -> bool:
        """Whether a store is there, and has not expired."""
        store = await self._stores.find_one(tenant_id, {"_id": store_id, "deleted": False})
        return store is not None and not store.expired

    async def to_expire(self, at: int) -> AsyncIterator[Store]:
        """Stores of all tenants whose time is over: for background work only."""
        over = {"expires_at": {"$lte": at}, "deleted": False, "expired": {"$ne": True}}
        async for store in self._stores.readable(over):
            yield store

    async def to_empty(self) -> AsyncIterator[Store]:
        """Stores of all tenants that are deleted or over and still have files: for background work only."""
        gone = {"$or": [{"deleted": True}, {"expired": True}], "emptied": {"$ne": True}}
        async for store in self._stores.readable(gone):
            yield store

    async def get(self, tenant_id: str, store_id: str, where: Query | None = None) -> Store:
        """A store that is not deleted and meets the further conditions of `where`.

        Raises:
            NotFound: there is none for this tenant.
        """
        store = await self._stores.find_one(tenant_id, {**(where or {}), "_id": store_id, "deleted": False})
        if store is None:
            raise NotFound(f"No vector store found with id {quoted(store_id)}.", param="vector_store_id")
        return store

    async def file(self, tenant_id: str, store_id: str, file_id: str) -> StoreFile:
        """A file of a store.

        Raises:
            NotFound: there is none for this tenant.
        """
        query = {"store_id": store_id, "file_id": file_id, "state": {"$ne": "deleting"}}
        found = await self._files.find_one(tenant_id, query)
        if found is None:
            raise NotFound(f"No file {quoted(file_id)} in vector store {quoted(store_id)}.", param="file_id")
        return found

    async def add_file(self, file: StoreFile) -> StoreFile:
        """Add a file to a store, or return the one that is in it."""
        return await self._files.add_once(file)

    async def current(self, file: StoreFile) -> StoreFile:
        """A file as it is by now.

        Raises:
            NotFound: it is gone.
        """
        return await self._files.get(file.tenant_id, file.id)

    async def write(self, file: StoreFile, change: Callable[[StoreFile], None]) -> StoreFile:
        """Apply a worker's change, refused once another worker has claimed the file."""
        return await self._files.update(file.tenant_id, file.id, change, fence=file.lease.fence)

    async def update_file(self, file: StoreFile, change: Callable[[StoreFile], None]) -> StoreFile:
        """Apply anybody else's change."""
        return await self._files.update(file.tenant_id, file.id, change)

    async def files_of(self, store: Store) -> list[StoreFile]:
        """All files of a store."""
        return await self._files.find(store.tenant_id, {"store_id": store.id})

    async def places_of(self, tenant_id: str, file_id: str) -> list[StoreFile]:
        """A file, as often as there are stores that it is in."""
        return await self._files.find(tenant_id, {"file_id": file_id})

    async def indexed_elsewhere(self, collection: str) -> AsyncIterator[StoreFile]:
        """Files of all tenants whose vectors are in another collection than this: for background work only."""
        async for file in self._files.readable({"state": "completed", "indexed_by": {"$ne": collection}}):
            yield file

    async def count(self, tenant_id: str) -> int:
        """How many stores a tenant has."""
        return int(await self._stores.collection.count_documents({"tenant_id": tenant_id, "deleted": False}))

    async def count_files(self, tenant_id: str, store_id: str) -> int:
        """How many files a store has."""
        return int(await self._files.collection.count_documents(_files(tenant_id, store_id)))

    async def usage(self, tenant_id: str, store_ids: list[str]) -> dict[str, Usage]:
        """By store, what it holds."""
        query = {"tenant_id": tenant_id, "store_id": {"$in": store_ids}, "state": {"$ne": "deleting"}}
        group = {"_id": {"store": "$store_id", "state": "$state"}, "files": {"$sum": 1}, "bytes": {"$sum": "$bytes"}}
        found = {one: Usage() for one in store_ids}
        async for row in self._files.collection.aggregate([{"$match": query}, {"$group": group}]):
            usage = found[row["_id"]["store"]]
            usage.files[row["_id"]["state"]] += row["files"]
            usage.bytes += row["bytes"]
        return found

    async def attributes(
        self, tenant_id: str, store_id: str, file_ids: list[str] | None = None
    ) -> dict[str, Attributes]:
        """By file that can be searched, its attributes: of some, or of all of a store."""
        query = {**_files(tenant_id, store_id), "state": "completed"}
        if file_ids is not None:
            query["file_id"] = {"$in": file_ids}
        cursor = self._files.collection.find(query, {"file_id": 1, "attributes": 1})
        return {found["file_id"]: found["attributes"] async for found in cursor}

    async def has_searchable(self, tenant_id: str, store_id: str) -> bool:
        """Whether a file of a store can be searched."""
        query = {**_files(tenant_id, store_id), "state": "completed"}
        return await self._files.collection.find_one(query, {"_id": 1}) is not None

    async def page_of_stores(self, tenant_id: str, asked: PageAsked, where: Query) -> Listed[Store]:
        """A page of a tenant's stores that meet the conditions of `where`.

        Raises:
            NotFound: there is no store of the id that the page comes after, or before.
        """
        query = {**where, "tenant_id": tenant_id, "deleted": False}
        places = {}
        for name, store_id in (("after", asked.after), ("before", asked.before)):
            there = {**where, "tenant_id": tenant_id, "_id": store_id}
            places[name] = await _place(self._stores.collection, there, name) if store_id is not None else None
        found = await _page(self._stores.collection, query, asked, places)
        return Listed([Store.model_validate({**one, "id": one["_id"]}) for one in found.items], found.more)

    async def page_of_files(
        self, tenant_id: str, store_id: str, asked: PageAsked, state: str | None
    ) -> Listed[ListedFile]:
        """A page of a store's files, of those in one state if it is given.

        Raises:
            NotFound: the store has no file of the id that the page comes after, or before.
        """
        places = {}
        for name, file_id in (("after", asked.after), ("before", asked.before)):
            there = {**_files(tenant_id, store_id), "file_id": file_id}
            places[name] = await _place(self._files.collection, there, name) if file_id is not None else None
        query = _files(tenant_id, store_id)
        if state is not None:
            query["state"] = state if state != "cancelled" else {"$in": []}
        found = await _page(self._files.collection, query, asked, places, LISTED)
        return Listed([_listed(one) for one in found.items], found.more)

    async def learn(self, event: DocumentParsed) -> None:
        """Keep where a document's text lies, unless it was deleted meanwhile."""
        first = {"$setOnInsert": event.model_dump(mode="json")}
        await self._documents.update_one({"_id": event.file_id}, first, upsert=True)

    async def document(self, tenant_id: str, file_id: str) -> DocumentParsed | None:
        """A document, if it has been parsed."""
        found = await self._documents.find_one({"_id": file_id, "tenant_id": tenant_id, "gone": {"$ne": True}})
        return DocumentParsed.model_validate(found) if found else None

    async def heard_of(self, tenant_id: str, file_id: str) -> bool:
        """Whether a document was parsed or deleted before."""
        return await self._documents.find_one({"_id": file_id, "tenant_id": tenant_id}) is not None

    async def forget_document(self, tenant_id: str, file_id: str) -> None:
        """The file is gone; only that it was is kept, for an event that comes late."""
        gone = {"tenant_id": tenant_id, "gone": True}
        await self._documents.replace_one({"_id": file_id, "tenant_id": tenant_id}, gone, upsert=True)

    async def write_chunks(self, file: StoreFile, filename: str, texts: dict[str, str]) -> None:
        """Keep the chunks' texts by id."""
        for chunk_id, text in texts.items():
            document = {
                "tenant_id": file.tenant_id,
                "store_id": file.store_id,
                "file_id": file.file_id,
                "filename": filename,
                "text": text,
            }
            await self._chunks.replace_one({"_id": chunk_id}, document, upsert=True)

    async def chunks(self, tenant_id: str, store_id: str, ids: list[str]) -> dict[str, StoredChunk]:
        """Chunks by id, this tenant's and this store's only, whatever ids are asked for."""
        query = {"_id": {"$in": ids}, "tenant_id": tenant_id, "store_id": store_id}
        return {
            found["_id"]: StoredChunk(found["_id"], found["file_id"], found["filename"], found["text"])
            async for found in self._chunks.find(query)
        }

    async def remove(self, file: StoreFile) -> bool:
        """Drop a file's chunks and the file itself.

        Returns:
            False while an event of it waits to be published: it stays `deleting`.
        """
        await self.remove_chunks(file, file.chunk_ids)
        published = {"outbox.0.id": {"$exists": False}}
        gone = await self._files.collection.delete_one({"_id": file.id, "tenant_id": file.tenant_id, **published})
        return bool(gone.deleted_count)

    async def remove_chunks(self, file: StoreFile, chunk_ids: list[str]) -> None:
        """Drop some of a file's chunks."""
        await self._chunks.delete_many({"_id": {"$in": chunk_ids}, "tenant_id": file.tenant_id})


def _files(tenant_id: str, store_id: str) -> Query:
    return {"tenant_id": tenant_id, "store_id": store_id, "state": {"$ne": "deleting"}}


def _listed(found: Document) -> ListedFile:
    chunking = found.get("chunking")
    fields = {name: found.get(name) for name in LISTED}
    return ListedFile(**{**fields, "id": found["_id"], "chunking": Chunking(**chunking) if chunking else None})


async def _place(collection: Collection, there: Query, name: str) -> Document:
    found = await collection.find_one(there, {"created_at": 1})
    if found is None:
        raise NotFound(f"{name}: nothing in this list has that id.", param=name)
    return found


async def _page(
    collection: Collection,
    query: Query,
    asked: PageAsked,
    places: dict[str, Document | None],
    fields: dict[str, int] | None = None,
) -> Listed[Document]:
    """What lies beyond one place and before another; without the first, the nearest to the second."""
    forth, back = (NEWEST_FIRST, OLDEST_FIRST) if asked.newest_first else (OLDEST_FIRST, NEWEST_FIRST)
    conditions = [query]
    for name, order in (("after", forth), ("before", back)):
        if (place := places[name]) is not None:
            conditions.append(following(order, place))
    backwards = places["before"] is not None and places["after"] is None
    cursor = collection.find({"$and": conditions}, fields).sort(list(back if backwards else forth))
    found = await cursor.limit(asked.limit + 1).to_list(None)
    items = found[: asked.limit]
    return Listed(items[::-1] if backwards else items, len(found) > asked.limit)
