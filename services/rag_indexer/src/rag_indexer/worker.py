"""Indexes files of stores in the background: chunk, embed, write; each step may be repeated without harm."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

from chassis.crash import crash_point
from chassis.errors import Conflict, Invalid, NotFound, TooLarge, Transient
from chassis.ids import derived_id, now
from rag_indexer.chunking import chunks
from rag_indexer.domain import StoreFile
from rag_indexer.embedding import Embedding
from rag_indexer.milvus import Vectors
from rag_indexer.settings import Settings
from rag_indexer.store import Stores
from rag_indexer.use_cases import Collections
from schemas import DocumentParsed
from stores.mongo import PyMongoError
from stores.objects import Objects

log = structlog.get_logger()

IDLE_SECONDS = 1.0
RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 15.0
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
            file = await self._stores.claim(self._owner, self._settings.rag_lease_seconds)
            if file is None:
                await asyncio.sleep(IDLE_SECONDS)
                continue
            try:
                await self._while_held(file, self._work(file))
            except (Conflict, NotFound) as error:
                log.info("indexing_superseded", file_id=file.file_id, error=error.message)
            except asyncio.CancelledError:  # this replica stops: another may go on at once
                await asyncio.shield(self._stores.files.leases.release(file.id, file.lease.fence))
                raise

    async def _work(self, file: StoreFile) -> None:
        crash_point("indexer.claimed")
        fence = file.lease.fence
        store = await self._stores.stores.find_one(file.tenant_id, {"_id": file.store_id, "deleted": False})
        gone = store is None or store.expired
        if file.state == "deleting" or gone:
            await self._collections.finish_removal(file)
            return
        document = await self._stores.document(file.tenant_id, file.file_id)
        if document is None:
            await self._wait(file)
            return
        if file.attempts >= self._settings.rag_attempts:
            await self._collections.drop_chunks(file)
            await self._fail(file, "Indexing this file broke off again and again. Split it into smaller files.")
            return
        await self._attempt(file, document)
        await self._stores.files.leases.release(file.id, fence)

    async def _while_held(self, file: StoreFile, work: Coroutine[Any, Any, None]) -> None:
        """Do the work with the lease renewed beside it; work that lost it finds out at its next write."""
        seconds = self._settings.rag_lease_seconds
        working = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait((working,), timeout=seconds / 4))[0]:
                with suppress(PyMongoError):
                    await self._stores.files.leases.renew(file.id, file.lease.fence, seconds)
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _attempt(self, file: StoreFile, document: DocumentParsed) -> None:
        """Index, with the attempt counted unless it ends for a reason that is not the file's."""
        fence = file.lease.fence
        update = self._stores.files.update
        await update(file.tenant_id, file.id, StoreFile.begin, fence=fence)
        try:
            await self._index(file, document)
        except NotFound:
            await self._fail(file, "The file's text is gone.")
        except TooLarge as error:
            await self._fail(file, error.message)
        except (Transient, PyMongoError, asyncio.CancelledError):
            with suppress(NotFound, Conflict, PyMongoError):
                await update(file.tenant_id, file.id, StoreFile.excuse, fence=fence)
                await self._stores.files.leases.delay(file.id, fence, RETRY_SECONDS)
            raise

    async def _wait(self, file: StoreFile) -> None:
        """The file has not been parsed yet, or never will be."""
        try:
            comes = not await self._collections.ingested(file) or await self._may_come(file)
        except (NotFound, Invalid) as error:
            await self._fail(file, error.message)
            return
        except Transient:
            comes = True
        if not comes:
            await self._fail(file, "The file is not a text document. Upload text or Markdown as 'assistants'.")
            return
        pause = min(LONGEST_RETRY_SECONDS, max(RETRY_SECONDS, (now() - file.created_at) / 10))
        await self._stores.files.leases.delay(file.id, file.lease.fence, pause)

    async def _may_come(self, file: StoreFile) -> bool:
        """Whether the event with the text of a file that ingest is done with may be under way."""
        if file.ingested_at is not None:
            return now() - file.ingested_at <= self._settings.rag_wait_seconds
        at, fence = now(), file.lease.fence
        await self._stores.files.update(file.tenant_id, file.id, lambda it: it.ingested(at), fence=fence)
        return True

    async def _fail(self, file: StoreFile, reason: str) -> None:
        fence = file.lease.fence
        await self._stores.files.update(file.tenant_id, file.id, lambda it: it.fail(reason), fence=fence)
        await self._stores.files.leases.release(file.id, fence)

    async def _index(self, file: StoreFile, document: DocumentParsed) -> None:
        settings = self._settings
        if document.text.size > settings.rag_file_bytes:
            raise TooLarge(f"The document's text is over {settings.rag_file_bytes} bytes; split it into smaller files.")
        text = (await self._objects.get_bytes(document.text)).decode()
        await self._embedding.dimensions()  # the model is loaded where it is used: in its own thread
        size = file.chunking or self._collections.auto
        most, count = settings.rag_file_chunks, self._embedding.count
        cut = await asyncio.to_thread(chunks, text, limit=size.tokens, overlap=size.overlap, most=most, count=count)
        pieces = [chunk.text for chunk in cut]
        texts = {derived_id("chunk-", file.id, str(at), piece): piece for at, piece in enumerate(pieces)}
        fence = file.lease.fence
        update = self._stores.files.update
        collection = await self._vectors.identity()
        planned = await update(file.tenant_id, file.id, lambda it: it.plan(list(texts)), fence=fence)
        crash_point("indexer.planned")
        if former := [one for one in planned.chunk_ids if one not in texts]:
            await self._collections.drop(file, former)
        await self._stores.write_chunks(file, document.filename, texts)
        crash_point("indexer.texts_written")
        ids = list(texts)
        for start in range(0, len(ids), EMBEDDED_AT_ONCE):
            batch = ids[start : start + EMBEDDED_AT_ONCE]
            turn = f"{file.tenant_id} indexing"
            embedded = await self._embedding.passages([texts[chunk_id] for chunk_id in batch], turn)
            rows = {chunk_id: vector.tolist() for chunk_id, vector in zip(batch, embedded, strict=True)}
            await self._vectors.upsert(file.tenant_id, file.store_id, file.file_id, rows)
            crash_point("indexer.vectors_written")
            if not await self._stores.files.leases.renew(file.id, fence, self._settings.rag_lease_seconds):
                break
        length = len(text.encode())
        try:
            written = await update(
                file.tenant_id, file.id, lambda it: it.complete(length, ids, file.chunking, collection), fence=fence
            )
        except NotFound:
            written = None
        crash_point("indexer.completed")
        if written is None or written.state == "deleting":
            await self._take_back(file, ids)
            return
        log.info("document_indexed", state=written.state, file_id=file.file_id, store_id=file.store_id, chunks=len(ids))

    async def _take_back(self, file: StoreFile, chunk_ids: list[str]) -> None:
        """The file was taken out while it was indexed: what was written after that goes as well."""
        await self._collections.finish_removal(file.model_copy(update={"chunk_ids": chunk_ids}))
        log.info("indexing_taken_back", file_id=file.file_id, store_id=file.store_id)
