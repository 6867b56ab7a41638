"""The indexer's settings."""

from __future__ import annotations

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the indexer reads from the environment besides the settings every service has."""

    milvus_url: str = Field("http://127.0.0.1:19530", description="Address of Milvus.")
    embedding_model: str = Field(
        "multilingual-e5-small", description="`multilingual-e5-small` (built in), or a sentence-transformers id."
    )
    embedding_threads: int = Field(1, description="Threads of the embedder.")
    rag_chunk_characters: int = Field(600, description="Longest chunk; Japanese text counts double.")
    rag_lease_seconds: float = Field(20, description="Lease on a file being indexed.")
    rag_wait_seconds: float = Field(60, description="How long a file may take to become a document before it fails.")
    rag_stores: int = Field(100, description="Most vector stores of a tenant.")
