"""The HTTP routes of the indexer: OpenAI's `/v1/vector_stores` and `/v1/embeddings`, and what services ask."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from fastapi import Query, Request

from chassis.auth import Principal, internal, require
from chassis.errors import Invalid, NotFound
from chassis.hang_ups import unless_gone
from chassis.http import Page, page
from chassis.in_flight import InFlight
from chassis.routes import Router
from chassis.text import quoted
from rag_indexer import filters
from rag_indexer.arms.answering import AskArm
from rag_indexer.cl100k import texts_of
from rag_indexer.documents import Documents
from rag_indexer.domain import Store
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
from rag_indexer.responses import (
    EmbeddingObject,
    Embeddings,
    FileContent,
    FileObject,
    FileRemoved,
    Status,
    StoreDeleted,
    StoreObject,
    TokensUsed,
    result_of,
)
from rag_indexer.store import PageAsked, Stores, seen_by
from rag_indexer.use_cases import Collections, NewStore, Search
from schemas.http.rag_indexer import ArmAnswers, QuestionVectors, SearchResults, Text

Reads = Annotated[Principal, require("retrieval:read")]
Writes = Annotated[Principal, require("retrieval:write")]
Internal = Annotated[Principal, internal()]
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]
Cursor = Annotated[str | None, Query(max_length=200)]


def store_routes(stores: Stores, collections: Collections) -> Router:
    """Stores."""
    router = Router(prefix="/v1/vector_stores", tags=["vector stores"])

    async def shown(tenant_id: str, found: list[Store]) -> list[StoreObject]:
        usage = await stores.usage(tenant_id, [store.id for store in found])
        return [StoreObject.of(store, usage[store.id]) for store in found]

    async def show(store: Store) -> StoreObject:
        [one] = await shown(store.tenant_id, [store])
        return one

    @router.post("")
    async def create_store(asked: StoreAsked, principal: Writes) -> StoreObject:
        wanted = NewStore(
            name=asked.name or "",
            description=asked.description,
            metadata=asked.metadata or {},
            file_ids=asked.file_ids or [],
            chunking=chunking(asked.chunking_strategy, collections.auto),
            expires_days=asked.expires_after.days if asked.expires_after else None,
        )
        return await show(await collections.create(principal, wanted))

    @router.get("")
    async def list_stores(
        principal: Reads, limit: Limit = 20, after: Cursor = None, before: Cursor = None, order: Order = "desc"
    ) -> Page:
        asked = PageAsked(limit, order == "desc", after, before)
        found = await stores.page_of_stores(principal.tenant_id, asked, seen_by(principal))
        return _page(await shown(principal.tenant_id, found.items), found.more)

    @router.get("/{store_id}")
    async def retrieve_store(store_id: str, principal: Reads) -> StoreObject:
        return await show(await stores.get(principal.tenant_id, store_id, seen_by(principal)))

    @router.post("/{store_id}")
    async def change_store(store_id: str, asked: StoreChange, principal: Writes) -> StoreObject:
        def change(store: Store) -> None:
            store.rename(asked.name, asked.metadata)
            if "expires_after" in asked.model_fields_set:
                store.expire_after(asked.expires_after.days if asked.expires_after else None)

        return await show(await collections.change(principal, store_id, change))

    @router.delete("/{store_id}")
    async def delete_store(store_id: str, principal: Writes) -> StoreDeleted:
        await collections.delete(principal, store_id)
        return StoreDeleted(id=store_id)

    return router


def search_routes(search: Search, in_flight: InFlight) -> Router:
    """Search in stores."""
    router = Router(prefix="/v1/vector_stores/{store_id}/search", tags=["vector stores"])

    @router.post("")
    async def search_store(request: Request, store_id: str, asked: SearchAsked, principal: Reads) -> SearchResults:
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
        return SearchResults(search_query=asked.query, data=[result_of(*one) for one in found])

    return router


def store_file_routes(stores: Stores, collections: Collections, documents: Documents) -> Router:
    """Files of a store."""
    router = Router(prefix="/v1/vector_stores/{store_id}/files", tags=["vector stores"])

    @router.post("")
    async def add_file(store_id: str, asked: FileAsked, principal: Writes) -> FileObject:
        size = chunking(asked.chunking_strategy, collections.auto)
        added = await collections.add_file(principal, store_id, asked.file_id, asked.attributes, size)
        return FileObject.of(added)

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
        return _page([FileObject.of(file) for file in found.items], found.more)

    @router.get("/{file_id}")
    async def retrieve_file(store_id: str, file_id: str, principal: Reads) -> FileObject:
        await stores.get(principal.tenant_id, store_id, seen_by(principal))
        return FileObject.of(await stores.file(principal.tenant_id, store_id, file_id))

    @router.post("/{file_id}")
    async def change_file(store_id: str, file_id: str, asked: FileChange, principal: Writes) -> FileObject:
        attributes = asked.attributes or {}
        return FileObject.of(await collections.describe_file(principal, store_id, file_id, attributes))

    @router.get("/{file_id}/content")
    async def read_file(store_id: str, file_id: str, principal: Reads) -> FileContent:
        file, filename, text = await documents.content(principal, store_id, file_id)
        return FileContent(file_id=file_id, filename=filename, attributes=file.attributes, data=[Text(text=text)])

    @router.delete("/{file_id}")
    async def remove_file(store_id: str, file_id: str, principal: Writes) -> FileRemoved:
        await collections.remove_file(principal, store_id, file_id)
        return FileRemoved(id=file_id)

    return router


def _page(items: list[StoreObject] | list[FileObject], more: bool) -> Page:
    shown = page(items, limit=len(items))
    shown.has_more = more
    return shown


def embedding_routes(embedding: Embedding, in_flight: InFlight) -> Router:
    """OpenAI's embeddings."""
    router = Router(prefix="/v1/embeddings", tags=["embeddings"])

    async def embedded(texts: list[str], who: str) -> tuple[Vectors, int]:
        tokens = await embedding.tokens(texts, who)
        return await embedding.passages(texts, who), tokens

    @router.post("")
    async def create_embeddings(request: Request, asked: EmbeddingsAsked, principal: Reads) -> Embeddings:
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
            EmbeddingObject(index=index, embedding=in_base64(vector) if encoded else vector.tolist())
            for index, vector in enumerate(vectors)
        ]
        usage = TokensUsed(prompt_tokens=tokens, total_tokens=tokens)
        return Embeddings(data=data, model=embedding.model, usage=usage)

    return router


def arm_routes(ask_arm: AskArm, embedding: Embedding, in_flight: InFlight) -> Router:
    """What other services ask: vectors that an arm is fitted on, and what an arm says."""
    router = Router(prefix="/internal", tags=["arms"])

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
