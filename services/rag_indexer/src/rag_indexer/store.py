"""Stores, their files, their chunks' texts, and the documents known, in MongoDB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.auth import Principal
from chassis.errors import NotFound
from eventbus.outbox import AggregateStore
from rag_indexer.domain import Store, StoreFile
from schemas import DocumentParsed
from stores.mongo import Collection, ensure_index

TO_DO: dict[str, Any] = {"state": {"$in": ["in_progress", "deleting"]}}


def seen_by(principal: Principal) -> dict[str, Any]:
    """The condition that leaves the stores somebody may see: an end user those of all and their own."""
    return {"owner": {"$in": ["", None, principal.owner]}} if principal.only else {}


@dataclass(frozen=True)
class StoredChunk:
    """A chunk's text and where it is from."""

    id: str
    file_id: str
    filename: str
    text: str


class Stores:
    """The service's documents, in its own words.

    Args:
        stores: the vector stores.
        files: files in them.
        chunks: their texts.
        documents: by file, the document parsed from it.
        turns: by tenant, when it last had a file indexed.
    """

    def __init__(
        self,
        stores: AggregateStore[Store],
        files: AggregateStore[StoreFile],
        chunks: Collection,
        documents: Collection,
        turns: Collection,
    ) -> None:
        self.stores = stores
        self.files = files
        self._chunks = chunks
        self._documents = documents
        self._turns = turns

    async def prepare(self) -> None:
        """Create the indexes."""
        await ensure_index(self.files.collection, [("state", 1), ("created_at", 1)])
        await ensure_index(self.files.collection, [("tenant_id", 1), ("store_id", 1)])
        await ensure_index(self.files.collection, [("tenant_id", 1), ("file_id", 1)])

    async def claim(self, owner: str, seconds: float) -> StoreFile | None:
        """The next file to be indexed or taken out."""
        return await self.files.claim_in_turn(TO_DO, self._turns, owner, seconds)

    async def get(self, tenant_id: str, store_id: str, where: Mapping[str, Any] | None = None) -> Store:
        """A store that is not deleted and meets the further conditions of `where`.

        Raises:
            NotFound: there is none for this tenant.
        """
        store = await self.stores.find_one(tenant_id, {**(where or {}), "_id": store_id, "deleted": False})
        if store is None:
            raise NotFound(f"No vector store found with id '{store_id}'.", param="vector_store_id")
        return store

    async def file(self, tenant_id: str, store_id: str, file_id: str) -> StoreFile:
        """A file of a store.

        Raises:
            NotFound: there is none for this tenant.
        """
        query = {"store_id": store_id, "file_id": file_id, "state": {"$ne": "deleting"}}
        found = await self.files.find_one(tenant_id, query)
        if found is None:
            raise NotFound(f"No file '{file_id}' in vector store '{store_id}'.", param="file_id")
        return found

    async def files_of(self, tenant_id: str, store_id: str, **query: Any) -> list[StoreFile]:
        """All files of a store."""
        return await self.files.find(tenant_id, {"store_id": store_id, "state": {"$ne": "deleting"}, **query})

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

    async def remove(self, file: StoreFile) -> None:
        """Drop a file's chunks and the file itself."""
        await self.remove_chunks(file)
        await self.files.collection.delete_one({"_id": file.id, "tenant_id": file.tenant_id})

    async def remove_chunks(self, file: StoreFile) -> None:
        """Drop a file's chunks."""
        await self._chunks.delete_many({"_id": {"$in": file.chunk_ids}, "tenant_id": file.tenant_id})
