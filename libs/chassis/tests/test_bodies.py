"""What a request may say: nothing that is sent is dropped without a word."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

import httpx2
import pytest
from fastapi import FastAPI, Query, Request
from pydantic import Field

from chassis.bodies import AnyJson, Body, Metadata, metadata_filter
from chassis.http import create_app
from chassis.routes import Router

HALF = "cut \ud83d"


class Shelf(Body):
    height: int = 1


class Order(Body):
    """A request body."""

    ADVICE: ClassVar = frozenset({"user"})
    UNASKED: ClassVar = {"parallel": (True,), "gifts": ([],), "copies": (1,)}

    count: int = 1
    note: str | None = None
    shelves: list[Shelf] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    metadata: Metadata | None = None


@pytest.fixture
def client() -> httpx2.AsyncClient:
    router = Router()

    @router.post("/v1/orders")
    async def make(body: Order) -> dict[str, Any]:
        return body.model_dump()

    @router.get("/v1/orders", openapi_extra={"x-query-prefixes": ["labels["]})
    async def find(limit: Annotated[int, Query()] = 20) -> dict[str, int]:
        return {"limit": limit}

    @router.get("/v1/labelled", openapi_extra={"x-query-prefixes": ["metadata["]})
    async def labelled(request: Request) -> dict[str, str]:
        return metadata_filter(request)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app("orders", routers=[router], checks={}, lifespan=lifespan)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://orders")


async def post(client: httpx2.AsyncClient, body: Any) -> httpx2.Response:
    return await client.post("/v1/orders", content=json.dumps(body), headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"colour": "red"}, "colour"),
        ({"parallel": False}, "parallel"),
        ({"gifts": [1]}, "gifts"),
        ({"copies": True}, "copies"),
        ({"shelves": [{"height": 2}, {"depth": 2}]}, "shelves.1.depth"),
    ],
)
async def test_a_field_that_is_not_read_is_refused_by_its_name(
    client: httpx2.AsyncClient, body: Any, param: str
) -> None:
    answer = await post(client, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, "unknown_parameter")
    assert error["message"] == f"{param}: is not understood here. Leave it out."


@pytest.mark.parametrize(
    "body", [{"colour": None}, {"user": "u-1"}, {"parallel": True}, {"gifts": []}, {"copies": 1}, {"count": 1}]
)
async def test_a_field_that_asks_for_nothing_is_taken(client: httpx2.AsyncClient, body: Any) -> None:
    assert (await post(client, body)).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"note": HALF}, "note"),
        ({"labels": {"a": HALF}}, "labels.a"),
        ({"labels": {HALF: "a"}}, "labels.cut \\ud83d"),
        ({"shelves": [{"height": HALF}]}, "shelves[0].height"),
        ({HALF: 1}, "cut \\ud83d"),
    ],
)
async def test_text_that_is_not_unicode_is_refused_wherever_it_stands(
    client: httpx2.AsyncClient, body: Any, param: str
) -> None:
    answer = await post(client, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert "surrogate" in error["message"]


async def test_a_query_parameter_that_is_not_read_is_refused_by_its_name(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/orders?limit=3&labels[a]=b")).status_code == 200
    answer = await client.get("/v1/orders?limit=3&colour=red")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "colour"


MOST = {f"{number:064}": "v" * 512 for number in range(16)}


@pytest.mark.parametrize("metadata", [None, {}, {"a.b $c": ""}, MOST], ids=["null", "empty", "any name", "the most"])
async def test_metadata_is_taken_up_to_openais_bounds(client: httpx2.AsyncClient, metadata: Any) -> None:
    answer = await post(client, {"metadata": metadata})
    assert answer.status_code == 200, answer.text
    assert answer.json()["metadata"] == metadata


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({"ok": "", "a\0b": "c"}, "metadata.a\\x00b"),
        ({"ok": "", "a": "c\0"}, "metadata.a"),
        ({"": "c"}, "metadata..[key]"),
        ({"k" * 65: "c"}, f"metadata.{'k' * 65}.[key]"),
        ({"a": "v" * 513}, "metadata.a"),
        ({"a": 1}, "metadata.a"),
        ({**MOST, "one more": ""}, "metadata"),
    ],
)
async def test_metadata_that_cannot_be_kept_is_refused_by_its_key(
    client: httpx2.AsyncClient, metadata: Any, param: str
) -> None:
    answer = await post(client, {"metadata": metadata})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


async def test_metadata_is_searched_by_plain_names(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/labelled?metadata[a_b-C]=1&metadata[d]=")
    assert answer.json() == {"a_b-C": "1", "d": ""}
    for name in ("metadata[$where]", "metadata[a.b]", "metadata[]", "metadata[a", "metadata[a]b"):
        answer = await client.get("/v1/labelled", params={name: "1"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_what_may_be_any_json_is_not_looked_at_part_by_part() -> None:
    """Who reads it says what is wrong with it, in words of its own; a check of each part ends at 255 levels."""

    class Asked(Body):
        shape: AnyJson = None

    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    assert Asked(shape=deep).shape == deep
