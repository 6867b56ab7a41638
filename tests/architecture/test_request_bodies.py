"""What a client may send is bounded: each text, list and object of each request body has a maximum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from tests.contract.permissions import routes_of

from chassis.bodies import Body, known_query
from schemas.services import SERVICES

BODILESS = ("evaluator", "serving_agent")
"""Services whose routes only show, or that have none."""

BOUNDS = {
    "string": ("maxLength", "enum", "const", "pattern", "format"),
    "array": ("maxItems",),
    "object": ("maxProperties", "properties"),
}
"""What bounds a value of each type; a pattern is read by people, and has an end."""


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def bodies(app: FastAPI) -> set[type[BaseModel]]:
    """The models that the routes of a service read bodies with."""
    return {
        model
        for route in routes_of(app)
        for parameter in route.dependant.body_params
        for model in models_in(parameter.field_info.annotation)
    }


def subclasses(model: type[Body]) -> Iterator[type[Body]]:
    for one in model.__subclasses__():
        yield one
        yield from subclasses(one)


def unbounded(schema: Any, where: str) -> Iterator[str]:
    """The places in a JSON Schema where nothing bounds what may stand there."""
    if isinstance(schema, list):
        for one in schema:
            yield from unbounded(one, where)
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind in BOUNDS and not any(bound in schema for bound in BOUNDS[kind]):
        yield where
    for name, inner in schema.get("properties", {}).items():
        yield from unbounded(inner, f"{where}.{name}")
    for name in ("items", "prefixItems", "additionalProperties", "propertyNames", "anyOf", "oneOf", "allOf"):
        yield from unbounded(schema.get(name), where)
    for name, inner in schema.get("$defs", {}).items():
        yield from unbounded(inner, name)


def test_the_check_sees_what_has_no_maximum() -> None:
    class Inner(Body):
        note: str

    class Outer(Body):
        inner: list[Inner]
        labels: dict[str, str]
        name: str | None = None
        kind: int = 0

    found = set(unbounded(Outer.model_json_schema(), "Outer"))
    assert found == {"Inner.note", "Outer.inner", "Outer.labels", "Outer.name"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_request_body_is_bounded(service: str, built: Callable[[str], FastAPI]) -> None:
    models = bodies(built(service))
    models |= {one for one in subclasses(Body) if one.__module__.partition(".")[0] == service}
    assert models or service in BODILESS
    assert [model.__name__ for model in models if not issubclass(model, Body)] == []
    assert sorted({place for model in models for place in unbounded(model.model_json_schema(), model.__name__)}) == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_route_refuses_what_its_query_is_not_read_for(service: str, built: Callable[[str], FastAPI]) -> None:
    routes = [route for route in routes_of(built(service)) if route.path.startswith("/v1/")]
    assert routes or service in ("console", "model_server", "serving_agent")
    asked = {route.path: {one.call for one in route.dependant.dependencies} for route in routes}
    assert [path for path, calls in asked.items() if known_query not in calls] == []


@pytest.mark.parametrize("name", SERVICES)
def test_the_reference_shows_every_body_that_a_route_reads_itself(built: Callable[[str], FastAPI], name: str) -> None:
    app = built(name)
    shown = app.openapi()["paths"]
    reading = [
        (route.path, method.lower())
        for route in routes_of(app)
        for method in route.methods - {"GET", "HEAD", "DELETE"}
        if route.include_in_schema and route.dependant.request_param_name and not route.dependant.body_params
    ]
    assert [place for place in reading if "requestBody" not in shown[place[0]][place[1]]] == []
