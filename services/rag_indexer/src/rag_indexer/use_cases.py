"""What the indexer does: stores, files in stores, search, and following documents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError

from chassis.auth import Principal
from chassis.crash import crash_point
from chassis.errors import Conflict, Invalid, NotFound, RateLimited, Transient
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from chassis.peers import Peer
from chassis.text import quoted
from rag_indexer.domain import Attributes, Chunking, Store, StoreFile
from rag_indexer.embedding import Embedding
from rag_indexer.filters import Filter, passes
from rag_indexer.milvus import Vectors
from rag_indexer.store import StoredChunk, Stores, seen_by
from schemas import DocumentParsed, FileDeleted
from stores.mongo import PyMongoError

log = structlog.get_logger()

OWN_DOCUMENTS = "My documents"
SWEEP_SECONDS = 15.0
TOUCHED_SECONDS = 60


@dataclass(frozen=True)
class NewStore:
    """A store as asked for."""

    name: str = ""
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    file_ids: list[str] = field(default_factory=list)
    chunking: Chunking | None = None
    expires_days: int | None = None


@dataclass(frozen=True)
class Limits:
    """What a tenant may have: so many stores, and in each one so many files."""

    stores: int
    files: int


class Collections:
    """Makes and removes stores, and puts files in and out.

    Args:
        stores: where they are kept.
        vectors: their chunks' vectors.
        ingest: asked whether a file is there.
        limits: of a tenant.
        auto: how a file is cut that asks for nothing.
    """

    def __init__(self, stores: Stores, vectors: Vectors, ingest: Peer, limits: Limits, auto: Chunking) -> None:
        self._stores = stores
        self._vectors = vectors
        self._ingest = ingest
        self._limits = limits
        self.auto = auto

    async def create(self, principal: Principal, asked: NewStore) -> Store:
        """A new store, with files if some are named.

        Raises:
            RateLimited: the tenant has too many stores.
            NotFound: a file is not this tenant's.
            Invalid: a file is not a document.
        """
        tenant_id = principal.tenant_id
        if await self._stores.count(tenant_id) >= self._limits.stores:
            raise RateLimited(f"You have {self._limits.stores} vector stores. Delete some first.", retry_after=60)
        for file_id in asked.file_ids:
            await self._check(principal, file_id)
        store = Store(
            id=request_id_for("vs_", new_id("vs_")),
            tenant_id=tenant_id,
            created_at=now(),
            last_active_at=now(),
            name=asked.name,
            description=asked.description,
            metadata=asked.metadata,
            chunking=asked.chunking,
        )
        store.expire_after(asked.expires_days)
        store = await self._stores.add(store)
        for file_id in asked.file_ids:
            await self._add(store, file_id, None, None)
        return store

    async def change(self, principal: Principal, store_id: str, change: Callable[[Store], None]) -> Store:
        """Change what is said of a store.

        Raises:
            NotFound: it is not this tenant's.
            Conflict: it has expired, and was to expire at another time.
        """
        await self._stores.get(principal.tenant_id, store_id, seen_by(principal))
        return await self._stores.update(principal.tenant_id, store_id, change)

    async def add_file(
        self,
        principal: Principal,
        store_id: str,
        file_id: str,
        attributes: Attributes | None,
        chunking: Chunking | None,
    ) -> StoreFile:
        """Put a file into a store; it is searched once its state is completed.

        Raises:
            NotFound: the store or the file is not this tenant's.
            Invalid: the file is not a document, the store has expired, or is full.
            Conflict: the file is being taken out of the store.
        """
        store = await self._stores.get(principal.tenant_id, store_id, seen_by(principal))
        expect_alive(store)
        await self._check(principal, file_id)
        if await self._stores.count_files(principal.tenant_id, store_id) >= self._limits.files:
            raise Invalid(
                f"A vector store has at most {self._limits.files} files; make another one.", code="vector_store_full"
            )
        file = await self._add(store, file_id, attributes, chunking)
        await self.touch(store)
        return file

    async def touch(self, store: Store) -> None:
        """Note that a store is used, once a minute; nothing waits for this note or fails for it."""
        at = now()
        if at - store.last_active_at >= TOUCHED_SECONDS:
            with suppress(NotFound, Conflict, PyMongoError):
                await self._stores.update(store.tenant_id, store.id, lambda it: it.touch(at))

    async def _check(self, principal: Principal, file_id: str) -> None:
        try:
            file = await self._ingest.get("/v1/files/{}", file_id, tenant_id=principal.tenant_id, user=principal)
        except NotFound as error:
            raise NotFound(f"No such file: {quoted(file_id)}.", param="file_id") from error
        if file["purpose"] not in ("assistants", "user_data"):
            raise Invalid(
                f"file_id: {quoted(file_id)} has the purpose '{file['purpose']}'; upload it with 'assistants'.",
                param="file_id",
            )

    async def _add(
        self, store: Store, file_id: str, attributes: Attributes | None, chunking: Chunking | None
    ) -> StoreFile:
        file = StoreFile(
            id=derived_id("vsf_", store.id, file_id),
            tenant_id=store.tenant_id,
            created_at=now(),
            store_id=store.id,
            file_id=file_id,
            attributes=attributes or {},
            chunking=chunking or store.chunking or self.auto,
        )
        there = await self._stores.add_file(file)
        if there is file:
            return file
        if there.state == "deleting":
            raise Conflict("The file is being taken out of this vector store; try again shortly.", code="being_removed")
        said_anew = attributes not in (None, there.attributes) or chunking not in (None, there.chunking)
        if there.state == "failed" or said_anew:
            return await self._stores.update_file(there, lambda it: it.ask_again(attributes, chunking))
        return there

    async def describe_file(
        self, principal: Principal, store_id: str, file_id: str, attributes: Attributes
    ) -> StoreFile:
        """Change a file's attributes in a store.

        Raises:
            NotFound: it is not there.
        """
        await self._stores.get(principal.tenant_id, store_id, seen_by(principal))
        file = await self._stores.file(principal.tenant_id, store_id, file_id)
        return await self._stores.update_file(file, lambda it: it.describe(attributes))

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

    async def remove_file(self, principal: Principal, store_id: str, file_id: str) -> None:
        """Take a file out of a store.

        Raises:
            NotFound: it is not there.
        """
        await self._stores.get(principal.tenant_id, store_id, seen_by(principal))
        await self._remove(await self._stores.file(principal.tenant_id, store_id, file_id))

    async def _remove(self, file: StoreFile) -> None:
        """Unfindable first, then vectors by key, then texts."""
        file = await self._stores.update_file(file, StoreFile.delete)
        crash_point("indexer.marked_deleted")
        await self.finish_removal(file)

    async def finish_removal(self, file: StoreFile) -> bool:
        """Drop everything of a file that nobody finds any more; False while an event of it waits to be published."""
        await self._vectors.delete(file.chunk_ids)
        crash_point("indexer.vectors_deleted")
        removed = await self._stores.remove(file)
        crash_point("indexer.removed")
        return removed

    async def drop_chunks(self, file: StoreFile) -> None:
        """Drop what was written of a file that will not be searched."""
        await self.drop(file, file.chunk_ids)

    async def drop(self, file: StoreFile, chunk_ids: list[str]) -> None:
        """Drop some chunks of a file."""
        await self._vectors.delete(chunk_ids)
        await self._stores.remove_chunks(file, chunk_ids)

    async def delete(self, principal: Principal, store_id: str) -> None:
        """Delete a store with everything in it.

        Raises:
            NotFound: it is not this tenant's.
        """
        store = await self._stores.get(principal.tenant_id, store_id, seen_by(principal))
        store = await self._stores.update(principal.tenant_id, store.id, Store.delete)
        crash_point("indexer.store_deleted")
        await self._empty(store)

    async def _empty(self, store: Store) -> None:
        for file in await self._stores.files_of(store):
            with suppress(NotFound):
                await self._remove(file)
        await self._stores.update(store.tenant_id, store.id, Store.empty)

    async def sweep(self) -> None:
        """End stores whose time is over, finish deletes that a crash broke off, and index again what has no vectors."""
        while True:
            await self.expire(now())
            async for store in self._stores.to_empty():
                try:
                    await self._empty(store)
                except ValidationError as error:  # one of its files: it stays to be emptied, the others go on
                    log.error("store_not_emptied", store_id=store.id, fields=error.error_count())
            with suppress(Transient):  # Milvus is away, or not asked yet
                await self.index_again()
            await asyncio.sleep(SWEEP_SECONDS)

    async def expire(self, at: int) -> None:
        """End the stores whose time is over; their files go after."""
        async for store in self._stores.to_expire(at):
            with suppress(NotFound, Conflict):
                await self._stores.update(store.tenant_id, store.id, lambda it: it.expire(at))

    async def index_again(self) -> None:
        """Put files to be indexed whose vectors are in another collection: the model was changed, or Milvus lost."""
        here = await self._vectors.identity()
        async for file in self._stores.indexed_elsewhere(here):
            with suppress(NotFound, Conflict):
                await self._stores.update_file(file, lambda it: it.index_elsewhere(here))
                log.info("indexed_again", file_id=file.file_id, store_id=file.store_id, collection=here)

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
        store = await self._stores.add(store)
        if not (store.deleted or store.expired):
            with suppress(Conflict):  # it is being taken out
                await self._add(store, event.file_id, None, None)

    async def on_deleted(self, event: FileDeleted) -> None:
        """A file is gone: so is everything made from it here."""
        await self._stores.forget_document(event.tenant_id, event.file_id)
        for file in await self._stores.places_of(event.tenant_id, event.file_id):
            with suppress(NotFound):  # taken out meanwhile; the other stores still have it
                await self._remove(file)


class Search:
    """Finds the chunks that answer a question."""

    def __init__(self, stores: Stores, collections: Collections, vectors: Vectors, embedding: Embedding) -> None:
        self._stores = stores
        self._collections = collections
        self._vectors = vectors
        self._embedding = embedding

    async def find(
        self,
        principal: Principal,
        store_id: str,
        queries: list[str],
        *,
        limit: int,
        filter_: Filter | None = None,
        threshold: float = 0.0,
    ) -> list[tuple[StoredChunk, float, Attributes]]:
        """Chunks with their score (cosine, 0 to 1) and their file's attributes, best first.

        Args:
            principal: who asks.
            store_id: in which store.
            queries: the questions; a chunk's score is that of the best.
            limit: at most this many.
            filter_: which files may be found.
            threshold: least score.

        Raises:
            NotFound: the store is not one that they may see.
            Invalid: it has expired.
        """
        tenant_id = principal.tenant_id
        store = await self._stores.get(tenant_id, store_id, seen_by(principal))
        expect_alive(store)
        await self._collections.touch(store)
        only: list[str] | None = None
        if filter_ is not None:
            files = await self._stores.attributes(tenant_id, store_id)
            only = [one for one, attributes in files.items() if passes(filter_, attributes)]
        if only == [] or not await self._stores.has_searchable(tenant_id, store_id):
            return []
        best: dict[str, float] = {}
        for query in queries:
            vector = await self._embedding.query(query, tenant_id)
            for chunk_id, cosine in await self._vectors.search(tenant_id, store_id, vector, limit=limit, file_ids=only):
                score = max(0.0, min(1.0, cosine))
                if score >= threshold:
                    best[chunk_id] = max(score, best.get(chunk_id, 0.0))
        texts = await self._stores.chunks(tenant_id, store_id, list(best))
        found_in = list({chunk.file_id for chunk in texts.values()})
        found = await self._stores.attributes(tenant_id, store_id, found_in)
        ranked = sorted(best.items(), key=lambda hit: -hit[1])
        return [
            (texts[chunk_id], score, found[texts[chunk_id].file_id])
            for chunk_id, score in ranked
            if chunk_id in texts and texts[chunk_id].file_id in found
        ][:limit]


def expect_alive(store: Store) -> None:
    """Let a store be used.

    Raises:
        Invalid: it has expired.
    """
    if store.has_ended(now()):
        raise Invalid(
            "This vector store has expired; make a new one.", code="vector_store_expired", param="vector_store_id"
        )
