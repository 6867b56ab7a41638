"""An attempt at indexing a file of a store: chunk, embed, write; each step may be repeated without harm."""

from __future__ import annotations

import asyncio

import structlog

from chassis.crash import crash_point
from chassis.errors import Invalid, NotFound, TooLarge, Transient
from chassis.ids import derived_id, now
from rag_indexer.chunking import chunks
from rag_indexer.domain import StoreFile
from rag_indexer.embedding import Embedding
from rag_indexer.milvus import Vectors
from rag_indexer.settings import Settings
from rag_indexer.store import Stores
from rag_indexer.use_cases import Collections
from schemas import DocumentParsed
from stores.objects import Objects
from work import End, GiveUp, Held, Kind, OutOfAttempts, Policy, PutOff

log = structlog.get_logger()

IDLE_SECONDS = 1.0
RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 15.0
EMBEDDED_AT_ONCE = 16
BROKE_OFF = "Indexing this file broke off again and again. Split it into smaller files."


def policy(settings: Settings) -> Policy:
    """How long a file is held, and how often it is tried."""
    return Policy(
        lease_seconds=settings.rag_lease_seconds,
        most_failures=settings.rag_attempts,
        most_deaths=settings.rag_attempts,
        retry_seconds=RETRY_SECONDS,
        idle_seconds=IDLE_SECONDS,
    )


class Indexing(Kind[StoreFile]):
    """Makes a file that waits searchable, or takes one out."""

    name = "store_file"

    def __init__(
        self,
        stores: Stores,
        collections: Collections,
        vectors: Vectors,
        embedding: Embedding,
        objects: Objects,
        settings: Settings,
    ) -> None:
        self._stores = stores
        self._collections = collections
        self._vectors = vectors
        self._embedding = embedding
        self._objects = objects
        self._settings = settings

    async def prepare(self) -> None:
        """Load the model, and make the collection of its vectors."""
        await self._vectors.prepare(await self._embedding.dimensions())

    async def attempt(self, one: StoreFile, held: Held[StoreFile]) -> None:
        """Index the file, or remove it where it is not wanted any more.

        Raises:
            End: its text is not there yet, or it cannot be searched.
        """
        crash_point("indexer.claimed")
        if one.state == "deleting" or not await self._stores.is_used(one.tenant_id, one.store_id):
            if not await self._collections.finish_removal(one):
                raise PutOff(RETRY_SECONDS, "an event of it waits to be published")
            return
        document = await self._stores.document(one.tenant_id, one.file_id)
        if document is None:
            raise await self._without_text(one)
        try:
            await self._index(one, document, held)
        except TooLarge as error:
            raise GiveUp(error.message) from error

    async def ended(self, one: StoreFile, end: End) -> None:
        """Say why a file cannot be searched; of one that broke off again and again, nothing stays."""
        if isinstance(end, OutOfAttempts):
            await self._collections.drop_chunks(await self._stores.current(one))
            await self._stores.write(one, lambda it: it.fail(BROKE_OFF))
        elif isinstance(end, GiveUp):
            await self._stores.write(one, lambda it: it.fail(end.reason))

    async def _without_text(self, file: StoreFile) -> End:
        """The file has not been parsed yet, or never will be."""
        try:
            comes = not await self._collections.ingested(file) or await self._may_come(file)
        except (NotFound, Invalid) as error:
            return GiveUp(error.message)
        except Transient:
            comes = True
        if not comes:
            return GiveUp("The file is not a text document. Upload text or Markdown as 'assistants'.")
        pause = min(LONGEST_RETRY_SECONDS, max(RETRY_SECONDS, (now() - file.created_at) / 10))
        return PutOff(pause, "its text is not there yet")

    async def _may_come(self, file: StoreFile) -> bool:
        """Whether the event with the text of a file that ingest is done with may be under way."""
        if file.ingested_at is not None:
            return now() - file.ingested_at <= self._settings.rag_wait_seconds
        at = now()
        await self._stores.write(file, lambda it: it.ingested(at))
        return True

    async def _text(self, document: DocumentParsed) -> str:
        try:
            return (await self._objects.get_bytes(document.text)).decode()
        except NotFound as error:
            raise GiveUp("The file's text is gone.") from error

    async def _index(self, file: StoreFile, document: DocumentParsed, held: Held[StoreFile]) -> None:
        settings = self._settings
        if document.text.size > settings.rag_file_bytes:
            raise TooLarge(f"The document's text is over {settings.rag_file_bytes} bytes; split it into smaller files.")
        text = await self._text(document)
        await self._embedding.dimensions()  # the model is loaded where it is used: in its own thread
        size = file.chunking or self._collections.auto
        most, count = settings.rag_file_chunks, self._embedding.count
        cut = await asyncio.to_thread(chunks, text, limit=size.tokens, overlap=size.overlap, most=most, count=count)
        pieces = [chunk.text for chunk in cut]
        texts = {derived_id("chunk-", file.id, str(at), piece): piece for at, piece in enumerate(pieces)}
        collection = await self._vectors.identity()
        planned = await self._stores.write(file, lambda it: it.plan(list(texts)))
        crash_point("indexer.planned")
        if former := [one for one in planned.chunk_ids if one not in texts]:
            await self._collections.drop(file, former)
        await self._stores.write_chunks(file, document.filename, texts)
        crash_point("indexer.texts_written")
        ids = list(texts)
        for start in range(0, len(ids), EMBEDDED_AT_ONCE):
            batch = ids[start : start + EMBEDDED_AT_ONCE]
            said = [texts[chunk_id] for chunk_id in batch]
            embedded = await self._embedding.passages(said, f"{file.tenant_id} indexing", "background")
            rows = {chunk_id: vector.tolist() for chunk_id, vector in zip(batch, embedded, strict=True)}
            await self._vectors.upsert(file.tenant_id, file.store_id, file.file_id, rows)
            crash_point("indexer.vectors_written")
            if not await held.renew():
                break
        length = len(text.encode())
        try:
            written = await self._stores.write(file, lambda it: it.complete(length, ids, file.chunking, collection))
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
