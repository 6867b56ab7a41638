"""The HTTP routes of the indexer: OpenAI's `/v1/vector_stores` and `/v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from chassis.auth import Principal, require
from chassis.errors import Invalid, NotFound, Transient
from chassis.http import Page, page
from rag_indexer.domain import Store, StoreFile
from rag_indexer.embedding import Embedding, Vectors
from rag_indexer.store import Stores, seen_by
from rag_indexer.turns import Turns
from rag_indexer.use_cases import Collections, Search

Reads = Annotated[Principal, require("retrieval:read")]
Writes = Annotated[Principal, require("retrieval:write")]
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]
Attributes = dict[str, str | float | bool]

T = TypeVar("T")

MOST_INPUTS = 256
LONGEST_INPUT = 32_000
MOST_QUERIES = 8
SHOWN = {"in_progress": "in_progress", "completed": "completed", "failed": "failed", "deleting": "cancelled"}


class StoreAsked(BaseModel):
    """A store to be made."""

    name: str = Field("", max_length=256)
    metadata: dict[str, str] | None = None
    file_ids: list[str] = Field(default_factory=list, max_length=100)


class StoreChange(BaseModel):
    """What to change about a store."""

    name: str | None = Field(None, max_length=256)
    metadata: dict[str, str] | None = None


class FileAsked(BaseModel):
    """A file to be put into a store."""

    file_id: str
    attributes: Attributes | None = None


class SearchAsked(BaseModel):
    """A search."""

    query: str | list[str]
    max_num_results: int = Field(10, ge=1, le=50)
    filters: dict[str, Any] | None = None

    @property
    def queries(self) -> list[str]:
        """The questions.

        Raises:
            Invalid: an empty one, or too many.
        """
        queries = [self.query] if isinstance(self.query, str) else self.query
        if not queries or len(queries) > MOST_QUERIES:
            raise Invalid(f"query: from 1 to {MOST_QUERIES} texts.", param="query")
        for query in queries:
            if not query.strip() or not _is_unicode(query):
                raise Invalid("query: is empty, or holds half of a surrogate pair.", param="query")
        return queries


class EmbeddingsAsked(BaseModel):
    """Texts to be embedded."""

    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @property
    def texts(self) -> list[str]:
        """The texts.

        Raises:
            Invalid: token arrays, empty or too long texts, or too many.
        """
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not all(isinstance(text, str) for text in texts):
            raise Invalid("input: send texts; token arrays are not understood.", param="input")
        if not texts or len(texts) > MOST_INPUTS:
            raise Invalid(f"input: from 1 to {MOST_INPUTS} texts.", param="input")
        for index, text in enumerate(texts):
            if not text.strip() or len(text) > LONGEST_INPUT:
                raise Invalid(f"input[{index}]: must have 1 to {LONGEST_INPUT} characters.", param="input")
            if not _is_unicode(text):
                raise Invalid(f"input[{index}]: holds half of a surrogate pair.", param="input")
        return texts


def _is_unicode(text: str) -> bool:
    """Whether a text can be written; JSON can escape half of a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The outcome of the work, which ends where the client hangs up."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body was read: what comes next is the disconnect
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Transient("The client hung up.")
        return await working
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


def store_routes(stores: Stores, collections: Collections, search: Search, turns: Turns) -> APIRouter:
    """Stores, their files, search."""
    router = APIRouter(prefix="/v1/vector_stores", tags=["vector stores"])

    async def view(store: Store) -> dict[str, Any]:
        files = await stores.files_of(store.tenant_id, store.id)
        counts = {state: sum(file.state == state for file in files) for state in ("in_progress", "completed", "failed")}
        return {
            "id": store.id,
            "object": "vector_store",
            "created_at": store.created_at,
            "name": store.name,
            "usage_bytes": sum(file.bytes for file in files),
            "file_counts": {**counts, "cancelled": 0, "total": len(files)},
            "status": "in_progress" if counts["in_progress"] else "completed",
            "last_active_at": store.last_active_at,
            "metadata": store.metadata,
            "expires_after": None,
            "expires_at": None,
        }

    @router.post("")
    async def create_store(asked: StoreAsked, principal: Writes) -> dict[str, Any]:
        store = await collections.create(principal, asked.name, asked.metadata or {}, asked.file_ids)
        return await view(store)

    @router.get("")
    async def list_stores(principal: Reads, limit: Limit = 20, after: str | None = None, order: Order = "desc") -> Page:
        found = await stores.stores.find(
            principal.tenant_id,
            {"deleted": False, **seen_by(principal)},
            limit=limit + 1,
            after=after,
            newest_first=order == "desc",
        )
        return page([await view(store) for store in found], limit=limit)

    @router.get("/{store_id}")
    async def retrieve_store(store_id: str, principal: Reads) -> dict[str, Any]:
        return await view(await stores.get(principal.tenant_id, store_id, seen_by(principal)))

    @router.post("/{store_id}")
    async def change_store(store_id: str, change: StoreChange, principal: Writes) -> dict[str, Any]:
        await stores.get(principal.tenant_id, store_id, seen_by(principal))
        changed = await stores.stores.update(
            principal.tenant_id, store_id, lambda it: it.rename(change.name, change.metadata)
        )
        return await view(changed)

    @router.delete("/{store_id}")
    async def delete_store(store_id: str, principal: Writes) -> dict[str, Any]:
        await collections.delete(principal.tenant_id, store_id)
        return {"id": store_id, "object": "vector_store.deleted", "deleted": True}

    @router.post("/{store_id}/search")
    async def search_store(request: Request, store_id: str, asked: SearchAsked, principal: Reads) -> dict[str, Any]:
        queries = asked.queries
        await stores.get(principal.tenant_id, store_id, seen_by(principal))
        with turns.entered(principal.tenant_id):
            finding = search.find(
                principal.tenant_id, store_id, queries, limit=asked.max_num_results, filter_=asked.filters
            )
            found = await _unless_gone(request, finding)
        rows = [
            {
                "file_id": chunk.file_id,
                "filename": chunk.filename,
                "score": max(0.0, min(1.0, score)),
                "attributes": attributes,
                "content": [{"type": "text", "text": chunk.text}],
            }
            for chunk, score, attributes in found
        ]
        results = "vector_store.search_results.page"
        return {"object": results, "search_query": queries, "data": rows, "has_more": False, "next_page": None}

    return router


def file_view(file: StoreFile) -> dict[str, Any]:
    """OpenAI's vector-store file."""
    error = {"code": "unsupported_file", "message": file.error} if file.error else None
    return {
        "id": file.file_id,
        "object": "vector_store.file",
        "created_at": file.created_at,
        "vector_store_id": file.store_id,
        "status": SHOWN[file.state],
        "last_error": error,
        "usage_bytes": file.bytes,
        "attributes": file.attributes,
        "chunking_strategy": {"type": "other"},
    }


def store_file_routes(stores: Stores, collections: Collections) -> APIRouter:
    """Files of a store."""
    router = APIRouter(prefix="/v1/vector_stores/{store_id}/files", tags=["vector stores"])

    @router.post("")
    async def add_file(store_id: str, asked: FileAsked, principal: Writes) -> dict[str, Any]:
        attributes: dict[str, Any] = dict(asked.attributes or {})
        return file_view(await collections.add_file(principal, store_id, asked.file_id, attributes))

    @router.get("")
    async def list_files(
        store_id: str, principal: Reads, limit: Limit = 20, after: str | None = None, order: Order = "desc"
    ) -> Page:
        await stores.get(principal.tenant_id, store_id, seen_by(principal))
        last = (await stores.file(principal.tenant_id, store_id, after)).id if after else None
        query = {"store_id": store_id, "state": {"$ne": "deleting"}}
        found = await stores.files.find(
            principal.tenant_id, query, limit=limit + 1, after=last, newest_first=order == "desc"
        )
        return page([file_view(file) for file in found], limit=limit)

    @router.get("/{file_id}")
    async def retrieve_file(store_id: str, file_id: str, principal: Reads) -> dict[str, Any]:
        await stores.get(principal.tenant_id, store_id, seen_by(principal))
        return file_view(await stores.file(principal.tenant_id, store_id, file_id))

    @router.delete("/{file_id}")
    async def remove_file(store_id: str, file_id: str, principal: Writes) -> dict[str, Any]:
        await collections.remove_file(principal.tenant_id, store_id, file_id)
        return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}

    return router


def embedding_routes(embedding: Embedding, turns: Turns) -> APIRouter:
    """OpenAI's embeddings."""
    router = APIRouter(prefix="/v1/embeddings", tags=["embeddings"])

    async def embedded(texts: list[str], who: str) -> tuple[Vectors, int]:
        tokens = await embedding.tokens(texts, who)
        return await embedding.passages(texts, who), tokens

    @router.post("")
    async def create_embeddings(request: Request, asked: EmbeddingsAsked, principal: Reads) -> dict[str, Any]:
        if asked.model != embedding.model:
            raise NotFound(
                f"The model `{asked.model}` does not exist; use `{embedding.model}`.",
                code="model_not_found",
                param="model",
            )
        if asked.dimensions not in (None, await embedding.dimensions()):
            raise Invalid(
                f"dimensions: this model has {await embedding.dimensions()}; leave it out.", param="dimensions"
            )
        texts = asked.texts
        with turns.entered(principal.tenant_id):
            vectors, tokens = await _unless_gone(request, embedded(texts, principal.tenant_id))
        encoded = asked.encoding_format == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if encoded else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": embedding.model, "usage": usage}

    return router
