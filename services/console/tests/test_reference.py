"""The API reference: what is merged, how limits read, and that it holds while services come and go."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from console_harness import Harness
from fastapi import FastAPI, Query
from pydantic import BaseModel, Field, create_model

from chassis.errors import Transient
from chassis.routes import Router
from console.openapi import merged, operations
from console.reference import Reference
from schemas.services import PUBLIC

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Wheel(BaseModel):
    """A wheel."""

    size: int = Field(28, ge=1, le=29)
    kind: Literal["front", "back"]


class Asked(BaseModel):
    """A bicycle to be made."""

    name: str = Field(min_length=1, max_length=64, description="What it is called.")
    wheels: list[Wheel] = Field(max_length=3)
    weight: Annotated[float | None, Field(gt=0, le=99.5)] = None
    tags: dict[str, str] = Field(default_factory=dict)
    note: str = Field(min_length=1)
    code: str | None = Field(None, max_length=8, pattern="^[a-z]+$")
    fast: bool = False


class Bicycle(BaseModel):
    """A bicycle."""

    id: str
    wheels: list[Wheel]


class Tree(BaseModel):
    """A tree."""

    name: str
    branches: list[Tree] = []


Fish = create_model("Asked", fish=(int, ...))


def shop() -> dict[str, Any]:
    router = Router()

    @router.post("/v1/files/bicycles")
    async def create_bicycle(asked: Asked) -> Bicycle:
        """Made while one waits."""

    @router.get("/v1/files/bicycles/{bicycle_id}", openapi_extra={"x-query-prefixes": ["tags["]})
    async def list_bicycles(bicycle_id: str, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[Bicycle]:
        """Described, and never called."""

    @router.post("/internal/bicycles")
    async def secret(asked: Asked) -> Bicycle:
        """Described, and never called."""

    app = FastAPI()
    app.include_router(router)
    return app.openapi()


def other() -> dict[str, Any]:
    """A service whose schema has the same name."""

    app = FastAPI()

    @app.post("/v1/models")
    async def create_fish(asked: Fish) -> None:
        """Described, and never called."""

    return app.openapi()


async def test_public_routes_are_merged_and_internal_ones_left_out() -> None:
    document = merged({"ingest": shop(), "registry": other()})
    assert set(document["paths"]) == {"/v1/files/bicycles", "/v1/files/bicycles/{bicycle_id}", "/v1/models"}
    assert "internal" not in str(document)
    schemas = document["components"]["schemas"]
    assert set(schemas) == {"Error", "ingest.Asked", "ingest.Bicycle", "ingest.Wheel", "registry.Asked"}
    assert set(schemas["ingest.Asked"]["properties"]) != set(schemas["registry.Asked"]["properties"])
    for item in document["paths"].values():
        for operation in item.values():
            assert "422" not in operation["responses"]
            assert operation["responses"]["default"]["content"]["application/json"]["schema"]


async def test_fields_are_told_with_their_types_and_limits() -> None:
    [create, listing] = operations(merged({"ingest": shop()}))["files"]
    assert (create.method, create.path, create.summary) == ("POST", "/v1/files/bicycles", "Create bicycle")
    assert create.about == "Made while one waits."
    told = {one.name: (one.kind, one.limits, one.required) for one in create.fields}
    assert told == {
        "name": ("text", "1 to 64 characters", True),
        "wheels": ("list of object", "at most 3 items", True),
        "wheels[].size": ("whole number", "1 to 29; default 28", False),
        "wheels[].kind": ('"front" or "back"', "", True),
        "weight": ("number or null", "at most 99.5; above 0", False),
        "tags": ("map of text", "", False),
        "note": ("text", "at least 1 character", True),
        "code": ("text or null", "at most 8 characters; as ^[a-z]+$", False),
        "fast": ("true or false", "default false", False),
    }
    assert {one.name: (one.place, one.limits) for one in listing.parameters} == {
        "bicycle_id": ("path", ""),
        "limit": ("query", "1 to 100; default 20"),
        "tags[…]": ("query", ""),
    }
    assert [one.name for one in listing.answers[0].fields] == [
        "[].id",
        "[].wheels",
        "[].wheels[].size",
        "[].wheels[].kind",
    ]


async def test_a_schema_that_holds_itself_comes_to_an_end() -> None:
    app = FastAPI()

    @app.post("/v1/trees")
    async def plant(tree: Tree) -> None:
        """Described, and never called."""

    [plant_tree] = operations(merged({"registry": app.openapi()}))["trees"]
    assert 2 < len(plant_tree.fields) < 20


async def test_everybody_may_read_it(harness: Harness) -> None:
    harness.services.routes = {name: {"paths": {}} for name in PUBLIC} | {"ingest": shop()}
    shown = await harness.http.get("/reference")
    assert shown.status_code == 200
    assert shown.headers["content-security-policy"].startswith("default-src 'none'")
    assert "POST /v1/files/bicycles" in shown.text
    assert "Not shown" not in shown.text
    assert 'href="/reference/files#post-files-bicycles"' in shown.text
    part = (await harness.http.get("/reference/files")).text
    assert 'id="post-files-bicycles"' in part
    assert "1 to 64 characters" in part
    browser = await harness.sign_in()
    for path in ("/reference", "/reference/files"):
        assert "Kumo Cycles" in (await browser.get(path)).text
    unknown = await harness.http.get("/reference/boats")
    assert (unknown.status_code, "no such part" in unknown.text) == (404, True)
    document = (await harness.http.get("/reference/openapi.json")).json()
    assert set(document["paths"]) == {"/v1/files/bicycles", "/v1/files/bicycles/{bicycle_id}"}
    assert len(harness.services.of("GET", "/openapi.json")) == len(PUBLIC)  # once, for all readers


async def test_a_service_that_is_away_is_named_and_what_was_known_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.reference.BELIEVED_SECONDS", 0.0)
    monkeypatch.setattr("console.reference.ASKED_AGAIN_SECONDS", 0.0)
    away = {"registry", "trainer"}

    class Service:
        def __init__(self, name: str) -> None:
            self.name = name

        async def get(self, path: str, *, tenant_id: str) -> dict[str, Any]:
            if self.name in away:
                raise Transient(f"{self.name} is away.")
            return {"registry": other(), "ingest": shop()}.get(self.name, {})

    reference = Reference(Service)  # type: ignore[arg-type]
    document, missing = await reference.document()
    assert (sorted(missing), "/v1/models" in document["paths"]) == (["registry", "trainer"], False)
    away.clear()
    document, missing = await reference.document()
    assert (missing, "/v1/models" in document["paths"]) == ([], True)
    away.add("registry")
    document, missing = await reference.document()
    assert (missing, "/v1/models" in document["paths"]) == ([], True)
