"""What clients are shown: OpenAI's vector stores, their files, searches in them, and embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from chassis.ids import now
from rag_indexer.domain import Attributes, Chunking, FileState, Store, StoreFile
from rag_indexer.store import ListedFile, StoredChunk, Usage
from schemas.http.rag_indexer import SearchResult, Text

Status = Literal["in_progress", "completed", "failed", "cancelled"]

SHOWN: dict[FileState, Status] = {
    "in_progress": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "deleting": "cancelled",
}


class ShownSize(BaseModel):
    """The size of chunks."""

    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class StaticChunking(BaseModel):
    """A file is cut to a size."""

    type: Literal["static"] = "static"
    static: ShownSize


class OtherChunking(BaseModel):
    """How a file is cut is not known."""

    type: Literal["other"] = "other"


def chunking_of(size: Chunking | None) -> StaticChunking | OtherChunking:
    """OpenAI's chunking strategy."""
    if size is None:
        return OtherChunking()
    return StaticChunking(static=ShownSize(max_chunk_size_tokens=size.tokens, chunk_overlap_tokens=size.overlap))


class FileCounts(BaseModel):
    """How many files of a store are in each state."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int = 0
    total: int


class Expiry(BaseModel):
    """When a store that nobody uses ends."""

    anchor: Literal["last_active_at"] = "last_active_at"
    days: int


class StoreObject(BaseModel):
    """OpenAI's vector store."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["in_progress", "completed", "expired"]
    last_active_at: int
    metadata: dict[str, str]
    chunking_strategy: StaticChunking | OtherChunking | None
    expires_after: Expiry | None
    expires_at: int | None

    @classmethod
    def of(cls, store: Store, usage: Usage) -> StoreObject:
        """The store as shown."""
        files = usage.files
        status: Literal["in_progress", "completed"] = "in_progress" if files["in_progress"] else "completed"
        return cls(
            id=store.id,
            created_at=store.created_at,
            name=store.name,
            description=store.description,
            usage_bytes=usage.bytes,
            file_counts=FileCounts(**files, total=sum(files.values())),
            status="expired" if store.has_ended(now()) else status,
            last_active_at=store.last_active_at,
            metadata=store.metadata,
            chunking_strategy=chunking_of(store.chunking) if store.chunking else None,
            expires_after=Expiry(days=store.expires_days) if store.expires_days else None,
            expires_at=store.expires_at,
        )


class StoreDeleted(BaseModel):
    """A store is gone."""

    id: str
    object: Literal["vector_store.deleted"] = "vector_store.deleted"
    deleted: Literal[True] = True


class FileError(BaseModel):
    """Why a file cannot be searched."""

    code: Literal["unsupported_file"] = "unsupported_file"
    message: str


class FileObject(BaseModel):
    """OpenAI's vector-store file."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    vector_store_id: str
    status: Status
    last_error: FileError | None
    usage_bytes: int
    attributes: Attributes
    chunking_strategy: StaticChunking | OtherChunking

    @classmethod
    def of(cls, file: StoreFile | ListedFile) -> FileObject:
        """The file as shown."""
        return cls(
            id=file.file_id,
            created_at=file.created_at,
            vector_store_id=file.store_id,
            status=SHOWN[file.state],
            last_error=FileError(message=file.error) if file.error else None,
            usage_bytes=file.bytes,
            attributes=file.attributes,
            chunking_strategy=chunking_of(file.chunking),
        )


class FileRemoved(BaseModel):
    """A file is in the store no more."""

    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: Literal[True] = True


class FileContent(BaseModel):
    """The text of a file, as its only page."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    file_id: str
    filename: str
    attributes: Attributes
    data: list[Text]
    has_more: Literal[False] = False
    next_page: None = None


def result_of(chunk: StoredChunk, score: float, attributes: Attributes) -> SearchResult:
    """A chunk that was found, as shown."""
    return SearchResult(
        file_id=chunk.file_id,
        filename=chunk.filename,
        score=score,
        attributes=attributes,
        content=[Text(text=chunk.text)],
    )


class EmbeddingObject(BaseModel):
    """The vector of a text: its numbers, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class TokensUsed(BaseModel):
    """What a request costs."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """OpenAI's embeddings."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: TokensUsed
