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
    embedding_request_tokens: int = Field(32_768, description="Most tokens of one embeddings request.")
    embedding_waiting: int = Field(64, description="Searches and embeddings requests at the same time; more get 429.")
    embedding_tenant_waiting: int = Field(8, description="Of those, at most this many of one tenant.")
    arms_bytes: int = Field(
        256 * 1024 * 1024, ge=0, description="Memory for the files of arms; those asked longest ago leave."
    )
    arms_waiting: int = Field(
        128, description="People's questions to arms at the same time; more get 429. At least what all proxies let in."
    )
    arms_tenant_waiting: int = Field(32, description="Of those, at most this many of one tenant.")
    arms_testing: int = Field(
        64, ge=1, description="Questions of tests to arms at the same time, apart from those of people."
    )
    arms_fitting: int = Field(
        16, ge=1, description="Requests for vectors that arms are fitted on, at the same time; more get 429."
    )
    rag_chunk_tokens: int = Field(
        200, ge=100, le=4096, description="Longest chunk, in tokens of the embedder, of a file that asks for no other."
    )
    rag_file_chunks: int = Field(10_000, description="Most chunks of a file.")
    rag_file_bytes: int = Field(16 * 1024 * 1024, description="Longest text of a file.")
    rag_attempts: int = Field(
        5, description="A file whose indexing failed this often, or killed this many workers in a row, fails."
    )
    rag_lease_seconds: float = Field(20, description="Lease on a file being indexed.")
    rag_wait_seconds: float = Field(
        60, description="How long the text of a file that ingest is done with may take to come."
    )
    rag_stores: int = Field(100, description="Most vector stores of a tenant.")
    rag_store_files: int = Field(10_000, description="Most files of a vector store.")
