"""The HTTP routes of the indexer: OpenAI's `/v1/vector_stores` and `/v1/embeddings`, and what services ask."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from chassis.auth import Principal, internal, require
from chassis.errors import Invalid, NotFound
from chassis.hang_ups import unless_gone
from chassis.http import Page, page
from chassis.ids import now
from chassis.in_flight import InFlight
from chassis.text import quoted
from rag_indexer import filters
from rag_indexer.arms.answering import AskArm
from rag_indexer.cl100k import texts_of
from rag_indexer.documents import Documents
from rag_indexer.domain import Chunking, Store, StoreFile
from rag_indexer.embedding import Embedding, Vectors
from rag_indexer.requests import (
    ArmQuestions,
    EmbeddingsAsked,
    FileAsked,
    FileChange,
    QuestionsAsked,
    RankingOptions,
    SearchAsked,
    StoreAsked,
    StoreChange,
    checked_texts,
    chunking,
)
from rag_indexer.store import ListedFile, PageAsked, Stores, seen_by
from rag_indexer.use_cases import Collections, NewStore, Search
from schemas.http.rag_indexer import ArmAnswers, QuestionVectors

Reads = Annotated[Principal, require("retrieval:read")]
Writes = Annotated[Principal, require("retrieval:write")]
Internal = Annotated[Principal, internal()]
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]
Cursor = Annotated[str | None, Query(max_length=200)]
Status = Literal["in_progress", "completed", "failed", "cancelled"]

SHOWN = {"in_progress": "in_progress", "completed": "completed", "failed": "failed", "deleting": "cancelled"}


def store_routes(stores: Stores, collections: Collections) -> APIRouter:
    """Stores."""
    router = APIRouter(prefix="/v1/vector_stores", tags=["vector stores"])

    async def views(tenant_id: str, found: list[Store]) -> list[dict[str, Any]]:
        usage = await stores.usage(tenant_id, [store.id for store in found])
        return [store_view(store, *usage[store.id]) for store in found]

    async def view(store: Store) -> dict[str, Any]:
        [shown] = await views(store.tenant_id, [store])
        return shown

    @router.post("")
    async def create_store(asked: StoreAsked, principal: Writes) -> dict[str, Any]:
        wanted = NewStore(
            name=asked.name or "",
            description=asked.description,
            metadata=asked.metadata or {},
            file_ids=asked.file_ids or [],
            chunking=chunking(asked.chunking_strategy, collections.auto),
            expires_days=asked.expires_after.days if asked.expires_after else None,
        )
        return await view(await collections.create(principal, wanted))

    @router.get("")
    async def list_stores(
        principal: Reads, limit: Limit = 20, after: Cursor = None, before: Cursor = None, order: Order = "desc"
    ) -> Page:
        asked = PageAsked(limit, order == "desc", after, before)
        found = await stores.page_of_stores(principal.tenant_id, asked, seen_by(principal))
        return _page(await views(principal.tenant_id, found.items), found.more)

    @router.get("/{store_id}")
    async def retrieve_store(store_id: str, principal: Reads) -> dict[str, Any]:
        return await view(await stores.get(principal.tenant_id, store_id, seen_by(principal)))

    @router.post("/{store_id}")
    async def change_store(store_id: str, asked: StoreChange, principal: Writes) -> dict[str, Any]:
        def change(store: Store) -> None:
            store.rename(asked.name, asked.metadata)
            if "expires_after" in asked.model_fields_set:
                store.expire_after(asked.expires_after.days if asked.expires_after else None)

        return await view(await collections.change(principal, store_id, change))

    @router.delete("/{store_id}")
    async def delete_store(store_id: str, principal: Writes) -> dict[str, Any]:
        await collections.delete(principal, store_id)
        return {"id": store_id, "object": "vector_store.deleted", "deleted": True}

    return router


def store_view(store: Store, counts: dict[str, int], size: int) -> dict[str, Any]:
    """OpenAI's vector store."""
    days = store.expires_days
    status = "in_progress" if counts["in_progress"] else "completed"
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "name": store.name,
        "description": store.description,
        "usage_bytes": size,
        "file_counts": {**counts, "cancelled": 0, "total": sum(counts.values())},
        "status": "expired" if store.has_ended(now()) else status,
        "last_active_at": store.last_active_at,
        "metadata": store.metadata,
        "chunking_strategy": chunking_view(store.chunking) if store.chunking else None,
        "expires_after": {"anchor": "last_active_at", "days": days} if days else None,
        "expires_at": store.expires_at,
    }


def search_routes(search: Search, in_flight: InFlight) -> APIRouter:
    """Search in stores."""
    router = APIRouter(prefix="/v1/vector_stores/{store_id}/search", tags=["vector stores"])

    @router.post("")
    async def search_store(request: Request, store_id: str, asked: SearchAsked, principal: Reads) -> dict[str, Any]:
        ranking = asked.ranking_options or RankingOptions()
        with in_flight.entered(principal.tenant_id):
            finding = search.find(
                principal,
                store_id,
                asked.query,
                limit=asked.max_num_results,
                filter_=filters.read(asked.filters) if asked.filters is not None else None,
                threshold=ranking.score_threshold,
            )
            found = await unless_gone(request, finding)
        rows = [
            {
                "file_id": chunk.file_id,
                "filename": chunk.filename,
                "score": score,
                "attributes": attributes,
                "content": [{"type": "text", "text": chunk.text}],
            }
            for chunk, score, attributes in found
        ]
        results = "vector_store.search_results.page"
        return {"object": results, "search_query": asked.query, "data": rows, "has_more": False, "next_page": None}

    return router


def file_view(file: StoreFile | ListedFile) -> dict[str, Any]:
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
        "chunking_strategy": chunking_view(file.chunking),
    }


def chunking_view(size: Chunking | None) -> dict[str, Any]:
    """OpenAI's chunking strategy."""
    if size is None:
        return {"type": "other"}
    static = {"max_chunk_size_tokens": size.tokens, "chunk_overlap_tokens": size.overlap}
    return {"type": "static", "static": static}


def store_file_routes(stores: Stores, collections: Collections, documents: Documents) -> APIRouter:
    """Files of a store."""
    router = APIRouter(prefix="/v1/vector_stores/{store_id}/files", tags=["vector stores"])

    @router.post("")
    async def add_file(store_id: str, asked: FileAsked, principal: Writes) -> dict[str, Any]:
        size = chunking(asked.chunking_strategy, collections.auto)
        added = await collections.add_file(principal, store_id, asked.file_id, asked.attributes, size)
        return file_view(added)

    @router.get("")
    async def list_files(
        store_id: str,
        principal: Reads,
        limit: Limit = 20,
        after: Cursor = None,
        before: Cursor = None,
        order: Order = "desc",
        state: Annotated[Status | None, Query(alias="filter")] = None,
    ) -> Page:
        await stores.get(principal.tenant_id, store_id, seen_by(principal))
        asked = PageAsked(limit, order == "desc", after, before)
        found = await stores.page_of_files(principal.tenant_id, store_id, asked, state)
        return _page([file_view(file) for file in found.items], found.more)

    @router.get("/{file_id}")
    async def retrieve_file(store_id: str, file_id: str, principal: Reads) -> dict[str, Any]:
        await stores.get(principal.tenant_id, store_id, seen_by(principal))
        return file_view(await stores.file(principal.tenant_id, store_id, file_id))

    @router.post("/{file_id}")
    async def change_file(store_id: str, file_id: str, asked: FileChange, principal: Writes) -> dict[str, Any]:
        attributes = asked.attributes or {}
        return file_view(await collections.describe_file(principal, store_id, file_id, attributes))

    @router.get("/{file_id}/content")
    async def read_file(store_id: str, file_id: str, principal: Reads) -> dict[str, Any]:
        file, filename, text = await documents.content(principal, store_id, file_id)
        return {
            "object": "vector_store.file_content.page",
            "file_id": file_id,
            "filename": filename,
            "attributes": file.attributes,
            "data": [{"type": "text", "text": text}],
            "has_more": False,
            "next_page": None,
        }

    @router.delete("/{file_id}")
    async def remove_file(store_id: str, file_id: str, principal: Writes) -> dict[str, Any]:
        await collections.remove_file(principal, store_id, file_id)
        return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}

    return router


def _page(items: list[dict[str, Any]], more: bool) -> Page:
    shown = page(items, limit=len(items))
    shown.has_more = more
    return shown


def embedding_routes(embedding: Embedding, in_flight: InFlight) -> APIRouter:
    """OpenAI's embeddings."""
    router = APIRouter(prefix="/v1/embeddings", tags=["embeddings"])

    async def embedded(texts: list[str], who: str) -> tuple[Vectors, int]:
        tokens = await embedding.tokens(texts, who)
        return await embedding.passages(texts, who), tokens

    @router.post("")
    async def create_embeddings(request: Request, asked: EmbeddingsAsked, principal: Reads) -> dict[str, Any]:
        if asked.model != embedding.model:
            raise NotFound(
                f"The model {quoted(asked.model)} does not exist; use `{embedding.model}`.",
                code="model_not_found",
                param="model",
            )
        if asked.dimensions not in (None, await embedding.dimensions()):
            raise Invalid(
                f"dimensions: this model has {await embedding.dimensions()}; leave it out.", param="dimensions"
            )
        texts = checked_texts(await texts_of(asked.inputs))
        with in_flight.entered(principal.tenant_id):
            vectors, tokens = await unless_gone(request, embedded(texts, principal.tenant_id))
        encoded = asked.encoding_format == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": in_base64(vector) if encoded else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": embedding.model, "usage": usage}

    return router


def arm_routes(ask_arm: AskArm, embedding: Embedding, in_flight: InFlight) -> APIRouter:
    """What other services ask: vectors that an arm is fitted on, and what an arm says."""
    router = APIRouter(prefix="/internal", tags=["arms"])

    @router.post("/embeddings")
    async def embed_questions(request: Request, asked: QuestionsAsked, principal: Internal) -> QuestionVectors:
        who = f"{principal.tenant_id} fits"
        with in_flight.entered(principal.tenant_id):
            vectors = await unless_gone(request, embedding.queries(asked.texts, who, "background"))
        return QuestionVectors(embedder=await embedding.facts(), vectors=in_base64(vectors))

    @router.post("/arms/answers")
    async def answer_by_arm(request: Request, asked: ArmQuestions, principal: Internal) -> ArmAnswers:
        return await unless_gone(request, ask_arm.ask(principal.tenant_id, asked))

    return router


def in_base64(vectors: Vectors) -> str:
    """Vectors as little-endian float32, one after the other."""
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()
