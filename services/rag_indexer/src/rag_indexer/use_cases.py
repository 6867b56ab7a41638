"""What the indexer does: stores, files in stores, search, and following documents."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from chassis.auth import Peer, Principal
from chassis.crash import crash_point
from chassis.errors import Invalid, NotFound, RateLimited
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from rag_indexer.domain import Store, StoreFile
from rag_indexer.embedding import Embedding
from rag_indexer.filters import passes
from rag_indexer.milvus import Vectors
from rag_indexer.store import StoredChunk, Stores
from schemas import DocumentParsed, FileDeleted

OWN_DOCUMENTS = "My documents"
SWEEP_SECONDS = 15.0


class Collections:
    """Makes and removes stores, and puts files in and out.

    Args:
        stores: where they are kept.
        vectors: their chunks' vectors.
        ingest: asked whether a file is there.
        most: stores of a tenant.
    """

    def __init__(self, stores: Stores, vectors: Vectors, ingest: Peer, most: int) -> None:
        self._stores = stores
        self._vectors = vectors
        self._ingest = ingest
        self._most = most

    async def create(self, principal: Principal, name: str, metadata: dict[str, str], file_ids: list[str]) -> Store:
        """A new store, with files if some are named.

        Raises:
            RateLimited: the tenant has too many stores.
            NotFound: a file is not this tenant's.
            Invalid: a file is not a document.
        """
        tenant_id = principal.tenant_id
        if len(await self._stores.stores.find(tenant_id, {"deleted": False})) >= self._most:
            raise RateLimited(f"You have {self._most} vector stores. Delete some first.", retry_after=60)
        for file_id in file_ids:
            await self._check(principal, file_id)
        store = Store(
            id=request_id_for("vs_", new_id("vs_")),
            tenant_id=tenant_id,
            created_at=now(),
            last_active_at=now(),
            name=name,
            metadata=metadata,
        )
        store = await self._stores.stores.add_once(store)
        for file_id in file_ids:
            await self._add(tenant_id, store.id, file_id, {})
        return store

    async def add_file(
        self, principal: Principal, store_id: str, file_id: str, attributes: dict[str, Any]
    ) -> StoreFile:
        """Put a file into a store; it is searched once its state is completed.

        Raises:
            NotFound: the store or the file is not this tenant's.
            Invalid: the file is not a document.
        """
        await self._stores.get(principal.tenant_id, store_id)
        await self._check(principal, file_id)
        return await self._add(principal.tenant_id, store_id, file_id, attributes)

    async def _check(self, principal: Principal, file_id: str) -> None:
        try:
            file = await self._ingest.get("/v1/files/{}", file_id, tenant_id=principal.tenant_id, user=principal)
        except NotFound as error:
            raise NotFound(f"No such file: '{file_id}'.", param="file_id") from error
        if file["purpose"] not in ("assistants", "user_data"):
            raise Invalid(
                f"file_id: '{file_id}' has the purpose '{file['purpose']}'; upload it with 'assistants'.",
                param="file_id",
            )

    async def _add(self, tenant_id: str, store_id: str, file_id: str, attributes: dict[str, Any]) -> StoreFile:
        file = StoreFile(
            id=derived_id("vsf_", store_id, file_id),
            tenant_id=tenant_id,
            created_at=now(),
            store_id=store_id,
            file_id=file_id,
            attributes=attributes,
        )
        there = await self._stores.files.add_once(file)
        if there.state == "failed":
            there = await self._stores.files.update(tenant_id, there.id, lambda it: it.retry(attributes))
        return there

    async def ingested(self, file: StoreFile) -> bool:
        """Whether ingest is done with a file.

        Raises:
            Invalid: it could not read it.
            NotFound: it has it no more.
            Transient: it is away.
        """
        told = await self._ingest.get("/v1/files/{}", file.file_id, tenant_id=file.tenant_id)
        if told["status"] == "error":
            raise Invalid(told.get("status_details") or "The file could not be read.")
        return bool(told["status"] == "processed")

    async def remove_file(self, tenant_id: str, store_id: str, file_id: str) -> None:
        """Take a file out of a store.

        Raises:
            NotFound: it is not there.
        """
        await self._stores.get(tenant_id, store_id)
        await self._remove(await self._stores.file(tenant_id, store_id, file_id))

    async def _remove(self, file: StoreFile) -> None:
        """Unfindable first, then vectors by key, then texts."""
        file = await self._stores.files.update(file.tenant_id, file.id, StoreFile.delete)
        crash_point("indexer.marked_deleted")
        await self.finish_removal(file)

    async def finish_removal(self, file: StoreFile) -> None:
        """Drop everything of a file that nobody finds any more."""
        await self._vectors.delete(file.chunk_ids)
        crash_point("indexer.vectors_deleted")
        await self._stores.remove(file)
        crash_point("indexer.removed")

    async def drop_chunks(self, file: StoreFile) -> None:
        """Drop what was written of a file that will not be searched."""
        await self._vectors.delete(file.chunk_ids)
        await self._stores.remove_chunks(file)

    async def delete(self, tenant_id: str, store_id: str) -> None:
        """Delete a store with everything in it.

        Raises:
            NotFound: it is not this tenant's.
        """
        store = await self._stores.get(tenant_id, store_id)
        store = await self._stores.stores.update(tenant_id, store.id, Store.delete)
        crash_point("indexer.store_deleted")
        await self._empty(store)

    async def _empty(self, store: Store) -> None:
        for file in await self._stores.files.find(store.tenant_id, {"store_id": store.id}):
            with suppress(NotFound):
                await self._remove(file)
        await self._stores.stores.update(store.tenant_id, store.id, Store.empty)

    async def sweep(self) -> None:
        """Finish deletes that a crash broke off."""
        while True:
            async for store in self._stores.stores.for_service({"deleted": True, "emptied": {"$ne": True}}):
                await self._empty(store)
            await asyncio.sleep(SWEEP_SECONDS)

    async def on_parsed(self, event: DocumentParsed) -> None:
        """Remember a document; a `user_data` one goes into the tenant's own store by itself, once."""
        if await self._stores.heard_of(event.tenant_id, event.file_id):
            return
        if event.purpose == "user_data":
            await self._add_to_own(event)
            crash_point("indexer.added_to_own")
        await self._stores.learn(event)

    async def _add_to_own(self, event: DocumentParsed) -> None:
        store = Store(
            id=derived_id("vs_", event.tenant_id, OWN_DOCUMENTS, *filter(None, [event.owner])),
            tenant_id=event.tenant_id,
            created_at=now(),
            last_active_at=now(),
            owner=event.owner,
            name=OWN_DOCUMENTS,
        )
        store = await self._stores.stores.add_once(store)
        if not store.deleted:
            await self._add(event.tenant_id, store.id, event.file_id, {})

    async def on_deleted(self, event: FileDeleted) -> None:
        """A file is gone: so is everything made from it here."""
        await self._stores.forget_document(event.tenant_id, event.file_id)
        for file in await self._stores.files.find(event.tenant_id, {"file_id": event.file_id}):
            with suppress(NotFound):  # taken out meanwhile; the other stores still have it
                await self._remove(file)


class Search:
    """Finds the chunks that answer a question."""

    def __init__(self, stores: Stores, vectors: Vectors, embedding: Embedding) -> None:
        self._stores = stores
        self._vectors = vectors
        self._embedding = embedding

    async def find(
        self, tenant_id: str, store_id: str, queries: list[str], *, limit: int, filter_: dict[str, Any] | None
    ) -> list[tuple[StoredChunk, float, dict[str, Any]]]:
        """Chunks with their score (cosine, 0 to 1) and their file's attributes, best first.

        Raises:
            NotFound: the store is not this tenant's.
        """
        await self._stores.get(tenant_id, store_id)
        files = {file.file_id: file for file in await self._stores.files_of(tenant_id, store_id, state="completed")}
        allowed = [one for one, file in files.items() if filter_ is None or passes(filter_, file.attributes)]
        if not allowed:
            return []
        best: dict[str, float] = {}
        for query in queries:
            vector = await self._embedding.query(query, tenant_id)
            only = allowed if filter_ is not None else None
            for chunk_id, score in await self._vectors.search(tenant_id, store_id, vector, limit=limit, file_ids=only):
                best[chunk_id] = max(score, best.get(chunk_id, 0.0))
        texts = await self._stores.chunks(tenant_id, store_id, list(best))
        ranked = sorted(best.items(), key=lambda hit: -hit[1])
        return [
            (texts[chunk_id], score, files[texts[chunk_id].file_id].attributes)
            for chunk_id, score in ranked
            if chunk_id in texts and texts[chunk_id].file_id in files
        ][:limit]
