"""Indexes files of stores in the background: chunk, embed, write; each step may be repeated without harm."""

from __future__ import annotations

import asyncio
import time

import structlog

from chassis.errors import Conflict, NotFound
from chassis.ids import derived_id
from rag_indexer.chunking import chunks
from rag_indexer.domain import StoreFile
from rag_indexer.embedding import Embedding
from rag_indexer.milvus import Vectors
from rag_indexer.settings import Settings
from rag_indexer.store import Stores
from rag_indexer.use_cases import Collections
from schemas import DocumentParsed
from stores.objects import Objects

log = structlog.get_logger()

IDLE_SECONDS = 1.0
RETRY_SECONDS = 2.0
EMBEDDED_AT_ONCE = 16


class Worker:
    """Claims files that wait and makes them searchable."""

    def __init__(
        self,
        stores: Stores,
        collections: Collections,
        vectors: Vectors,
        embedding: Embedding,
        objects: Objects,
        settings: Settings,
        owner: str,
    ) -> None:
        self._stores = stores
        self._collections = collections
        self._vectors = vectors
        self._embedding = embedding
        self._objects = objects
        self._settings = settings
        self._owner = owner

    async def run(self) -> None:
        """Work until cancelled."""
        await self._vectors.prepare(await self._embedding.dimensions())
        while True:
            query = {"state": {"$in": ["in_progress", "deleting"]}}
            file = await self._stores.files.claim(query, self._owner, self._settings.rag_lease_seconds)
            if file is None:
                await asyncio.sleep(IDLE_SECONDS)
                continue
            try:
                await self._work(file)
            except (Conflict, NotFound) as error:
                log.info("indexing_superseded", file_id=file.file_id, error=error.message)
            except asyncio.CancelledError:  # this replica stops: another may go on at once
                await asyncio.shield(self._stores.files.leases.release(file.id, file.lease.fence))
                raise

    async def _work(self, file: StoreFile) -> None:
        fence = file.lease.fence
        store = await self._stores.stores.find_one(file.tenant_id, {"_id": file.store_id, "deleted": False})
        if file.state == "deleting" or store is None:
            await self._collections.finish_removal(file)
            return
        document = await self._stores.document(file.tenant_id, file.file_id)
        if document is None:
            await self._wait(file)
            return
        try:
            await self._index(file, document)
        except NotFound:
            await self._fail(file, "The file's text is gone.")
        await self._stores.files.leases.release(file.id, fence)

    async def _wait(self, file: StoreFile) -> None:
        """The file has not been parsed yet, or never will be."""
        if time.time() - file.created_at > self._settings.rag_wait_seconds:
            await self._fail(file, "The file is not a text document. Upload text or Markdown as 'assistants'.")
            return
        await self._stores.files.leases.delay(file.id, file.lease.fence, RETRY_SECONDS)

    async def _fail(self, file: StoreFile, reason: str) -> None:
        fence = file.lease.fence
        await self._stores.files.update(file.tenant_id, file.id, lambda it: it.fail(reason), fence=fence)

    async def _index(self, file: StoreFile, document: DocumentParsed) -> None:
        text = (await self._objects.get_bytes(document.text)).decode()
        pieces = [chunk.text for chunk in chunks(text, limit=self._settings.rag_chunk_characters)]
        texts = {derived_id("chunk-", file.id, str(at), piece): piece for at, piece in enumerate(pieces)}
        fence = file.lease.fence
        update = self._stores.files.update
        await update(file.tenant_id, file.id, lambda it: it.plan(list(texts)), fence=fence)
        await self._stores.write_chunks(file, document.filename, texts)
        ids = list(texts)
        for start in range(0, len(ids), EMBEDDED_AT_ONCE):
            batch = ids[start : start + EMBEDDED_AT_ONCE]
            embedded = await self._embedding.passages([texts[chunk_id] for chunk_id in batch])
            rows = {chunk_id: vector.tolist() for chunk_id, vector in zip(batch, embedded, strict=True)}
            await self._vectors.upsert(file.tenant_id, file.store_id, file.file_id, rows)
            if not await self._stores.files.leases.renew(file.id, fence, self._settings.rag_lease_seconds):
                break
        size = len(text.encode())
        try:
            written = await update(file.tenant_id, file.id, lambda it: it.complete(size), fence=fence)
        except NotFound:
            written = None
        if written is None or written.state == "deleting":
            await self._take_back(file, ids)
            return
        log.info("document_indexed", file_id=file.file_id, store_id=file.store_id, chunks=len(ids))

    async def _take_back(self, file: StoreFile, chunk_ids: list[str]) -> None:
        """The file was taken out while it was indexed: what was written after that goes as well."""
        await self._collections.finish_removal(file.model_copy(update={"chunk_ids": chunk_ids}))
        log.info("indexing_taken_back", file_id=file.file_id, store_id=file.store_id)
