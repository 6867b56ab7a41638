"""The events the indexer consumes."""

from __future__ import annotations

from eventbus import Handlers
from rag_indexer.use_cases import Collections
from schemas import DocumentParsed, FileDeleted


def subscriptions(collections: Collections) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_document_parsed(event: DocumentParsed) -> None:
        await collections.on_parsed(event)

    async def on_file_deleted(event: FileDeleted) -> None:
        await collections.on_deleted(event)

    return {DocumentParsed: on_document_parsed, FileDeleted: on_file_deleted}
