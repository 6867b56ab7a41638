"""Every field that the SDK can send for our routes changes something, is advice, or is refused by its name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_type_hints

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from openai.types import (
    EmbeddingCreateParams,
    VectorStoreCreateParams,
    VectorStoreListParams,
    VectorStoreSearchParams,
    VectorStoreUpdateParams,
)
from openai.types.vector_stores import FileCreateParams, FileListParams, FileUpdateParams

from chassis.auth import Principal
from chassis.bodies import Body
from chassis.errors import Invalid
from chassis.http import create_app
from chassis.limits import Limiter
from rag_indexer.api import embedding_routes, search_routes, store_file_routes, store_routes
from rag_indexer.requests import EmbeddingsAsked, FileAsked, FileChange, SearchAsked, StoreAsked, StoreChange

BODIES: dict[type[Body], tuple[Any, dict[str, str]]] = {
    StoreAsked: (
        VectorStoreCreateParams,
        {
            "chunking_strategy": "honoured",
            "description": "given back",
            "expires_after": "honoured",
            "file_ids": "honoured",
            "metadata": "given back",
            "name": "given back",
        },
    ),
    StoreChange: (
        VectorStoreUpdateParams,
        {"expires_after": "honoured", "metadata": "given back", "name": "given back"},
    ),
    SearchAsked: (
        VectorStoreSearchParams,
        {
            "query": "honoured",
            "filters": "honoured",
            "max_num_results": "honoured",
            "ranking_options": "honoured",
            "rewrite_query": "refused unless false",
        },
    ),
    FileAsked: (
        FileCreateParams,
        {"file_id": "honoured", "attributes": "given back", "chunking_strategy": "honoured"},
    ),
    FileChange: (FileUpdateParams, {"vector_store_id": "in the path", "attributes": "given back"}),
    EmbeddingsAsked: (
        EmbeddingCreateParams,
        {
            "input": "honoured",
            "model": "honoured",
            "dimensions": "honoured",
            "encoding_format": "honoured",
            "user": "advice",
        },
    ),
}


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_each_field_of_the_sdk_has_an_outcome(body: type[Body]) -> None:
    params, outcomes = BODIES[body]
    assert set(get_type_hints(params)) == set(outcomes)
    for name, outcome in outcomes.items():
        known = name in body.model_fields
        assert known is (outcome in ("honoured", "given back")), name
        assert (name in body.ADVICE) is (outcome == "advice"), name
        assert (name in body.UNASKED) is (outcome == "refused unless false"), name


def test_each_query_parameter_of_the_sdk_is_read() -> None:
    nothing: Any = None
    routers = [store_routes(nothing, nothing), store_file_routes(nothing, nothing, nothing)]
    reads = {
        route.path: {parameter.alias for parameter in route.dependant.query_params}
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in route.methods
    }
    assert reads["/v1/vector_stores"] == set(get_type_hints(VectorStoreListParams))
    assert reads["/v1/vector_stores/{store_id}/files"] == set(get_type_hints(FileListParams))


STORES = "/v1/vector_stores"
SEARCH = "/v1/vector_stores/vs_1/search"
FILES = "/v1/vector_stores/vs_1/files"
FILE = "/v1/vector_stores/vs_1/files/file-1"
EMBED = "/v1/embeddings"
HALF = "cut \ud83d"


def static(size: Any, overlap: Any) -> dict[str, Any]:
    return {"type": "static", "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (STORES, {"name": HALF}, "name"),
    (STORES, {"name": "x" * 257}, "name"),
    (STORES, {"description": "x" * 1_001}, "description"),
    (STORES, {"metadata": {"note": HALF}}, "metadata.note"),
    (STORES, {"metadata": {HALF: "x"}}, "metadata"),
    (STORES, {"metadata": {"x" * 65: "x"}}, "metadata"),
    (STORES, {"metadata": {"a\0b": "x"}}, "metadata.a\\x00b"),
    (STORES, {"metadata": {"note": "x" * 513}}, "metadata.note"),
    (STORES, {"metadata": {"note": 7}}, "metadata.note"),
    (STORES, {"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    (STORES, {"file_ids": ["x" * 201]}, "file_ids"),
    (STORES, {"file_ids": ["file-1"] * 101}, "file_ids"),
    (STORES, {"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor"),
    (STORES, {"expires_after": {"anchor": "last_active_at", "days": 0}}, "expires_after.days"),
    (STORES, {"expires_after": {"anchor": "last_active_at", "days": 366}}, "expires_after.days"),
    (STORES, {"expires_after": {"anchor": "last_active_at"}}, "expires_after.days"),
    (STORES, {"expires_after": {"anchor": "last_active_at", "days": 1, "hours": 2}}, "expires_after.hours"),
    (STORES, {"chunking_strategy": {"type": "other"}}, "chunking_strategy.type"),
    (STORES, {"chunking_strategy": {"type": "static"}}, "chunking_strategy"),
    (STORES, {"chunking_strategy": {"type": "auto", "static": static(400, 0)["static"]}}, "chunking_strategy"),
    (
        FILES,
        {"file_id": "file-1", "chunking_strategy": static(99, 0)},
        "chunking_strategy.static.max_chunk_size_tokens",
    ),
    (FILES, {"file_id": "file-1", "chunking_strategy": static(4097, 0)}, "chunking_strategy.static.max_chunk_size"),
    (FILES, {"file_id": "file-1", "chunking_strategy": static(400, -1)}, "chunking_strategy.static.chunk_overlap"),
    (FILES, {"file_id": "file-1", "chunking_strategy": static(400, 201)}, "chunking_strategy.static"),
    (FILES, {"file_id": "file-1", "attributes": {"note": HALF}}, "attributes.note"),
    (FILES, {"file_id": "file-1", "attributes": {"a\0b": 1}}, "attributes.a\\x00b"),
    (FILES, {"file_id": "file-1", "attributes": {"note": [1]}}, "attributes.note"),
    (FILES, {"file_id": "file-1", "attributes": {"note": None}}, "attributes.note"),
    (FILES, {"file_id": "file-1", "attributes": {"note": 2**63}}, "attributes.note"),
    (FILES, {"file_id": "file-1", "attributes": {"note": 10**400}}, "attributes.note"),
    (FILES, {"file_id": "file-1", "attributes": {"note": float("nan")}}, "attributes.note"),
    (FILES, {"file_id": "file-1", "attributes": {"note": float("inf")}}, "attributes.note"),
    (FILES, {"file_id": "file-1", "attributes": {"note": "x" * 513}}, "attributes.note"),
    (FILES, {"file_id": "file-1", "attributes": {str(n): n for n in range(17)}}, "attributes"),
    (FILES, {"file_id": "file-1", "colour": "red"}, "colour"),
    (FILE, {}, "attributes"),
    (FILE, {"attributes": {"note": HALF}}, "attributes.note"),
    (SEARCH, {"query": HALF}, "query"),
    (SEARCH, {"query": "x" * 1_000_001}, "query"),
    (SEARCH, {"query": ["x"] * 9}, "query"),
    (SEARCH, {"query": " "}, "query"),
    (SEARCH, {"query": "x", "rewrite_query": True}, "rewrite_query"),
    (SEARCH, {"query": "x", "ranking_options": {"ranker": "default-2024-11-15"}}, "ranking_options.ranker"),
    (SEARCH, {"query": "x", "ranking_options": {"score_threshold": 1.1}}, "ranking_options.score_threshold"),
    (SEARCH, {"query": "x", "ranking_options": {"hybrid_search": {}}}, "ranking_options.hybrid_search"),
    (SEARCH, {"query": "x", "filters": {"type": "eq", "key": "a", "value": HALF}}, "filters.value"),
    (EMBED, {"model": "m", "input": HALF}, "input"),
    (EMBED, {"model": "m", "input": ["a", HALF]}, "input"),
    (EMBED, {"model": "m", "input": ["a"] * 2_049}, "input"),
    (EMBED, {"model": "x" * 201, "input": "a"}, "model"),
    (EMBED, {"model": "m", "input": "a", "encoding_format": "int8"}, "encoding_format"),
    (EMBED, {"model": "m", "input": "a", "truncate": True}, "truncate"),
]


class Anybody:
    """Takes everybody for an owner."""

    async def authenticate(self, _: str | None) -> Principal:
        return Principal(key_id="key_1", tenant_id="tenant_a", role="owner")


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """The routes over nothing: what is refused is refused before any part of the service is asked."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    nothing: Any = None
    routers = [
        store_routes(nothing, nothing),
        search_routes(nothing, nothing),
        store_file_routes(nothing, nothing, nothing),
        embedding_routes(nothing, nothing),
    ]
    made = create_app("rag_indexer", routers=routers, checks={}, lifespan=lifespan)
    made.state.authenticator = Anybody()
    made.state.limiters = [Limiter("requests")]
    return made


@pytest.mark.parametrize(("path", "body", "param"), REFUSED, ids=lambda value: ascii(value)[:60])
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    app: FastAPI, path: str, body: dict[str, Any], param: str
) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rag") as client:
        answer = await client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert str(error["param"]).startswith(param), error
    assert len(error["message"]) < 700


@pytest.mark.parametrize("path", [f"{STORES}?metadata=x", f"{STORES}?limit=0", f"{FILES}?filter=done", f"{FILES}?q=x"])
async def test_a_query_that_is_not_read_is_refused(app: FastAPI, path: str) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rag") as client:
        answer = await client.get(path)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == path.split("?")[1].split("=", maxsplit=1)[0]


def test_what_says_nothing_is_taken() -> None:
    search = SearchAsked.model_validate(
        {"query": "x", "rewrite_query": False, "filters": None, "ranking_options": {"ranker": "none"}, "other": None}
    )
    assert search.query == ["x"]
    assert EmbeddingsAsked.model_validate({"model": "m", "input": "a", "user": "somebody"}).inputs == ["a"]
    assert StoreAsked.model_validate({"name": None, "chunking_strategy": {"type": "auto"}}).file_ids is None


@pytest.mark.parametrize(
    "wrong", [[], [None], [{}], [[]], [[True]], ["a", [1]], [[1], "a"], [1, "a"], [1.5], [[1] * 9_000]], ids=ascii
)
def test_inputs_are_texts_or_token_ids(wrong: Any) -> None:
    with pytest.raises(Invalid, match="input"):
        _ = EmbeddingsAsked(model="m", input=wrong).inputs


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_inputs_of_every_shape_are_read(given: Any, inputs: Any) -> None:
    assert EmbeddingsAsked(model="m", input=given).inputs == inputs


@pytest.mark.parametrize("value", [True, False, 1, 0, 1.0, 1.5, 1e300, -7, 2**53 + 1, "1", ""])
def test_attributes_keep_their_type(value: Any) -> None:
    attributes = FileChange.model_validate({"attributes": {"v": value}}).attributes
    assert attributes is not None
    assert (attributes["v"], type(attributes["v"])) == (value, type(value))
