"""The API reference names every public route of the services as they are wired, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from console.openapi import merged, operations
from localstack.home import PORTS
from localstack.ingress import REFERENCE, UNKNOWN, caddyfile
from schemas.services import PUBLIC

Built = Callable[[str], FastAPI]


@pytest.fixture
def apps(built: Built) -> dict[str, FastAPI]:
    """Every service that the ingress leads to."""
    return {name: built(name) for name in PUBLIC}


def public(apps: dict[str, FastAPI]) -> Iterator[tuple[str, str]]:
    """Method and path of each route that the ingress leads to."""
    for name, app in apps.items():
        for path, item in app.openapi()["paths"].items():
            if any(path == start or path.startswith(f"{start}/") for start in PUBLIC[name]):
                yield from ((method, path) for method in item)


def test_it_lists_what_the_ingress_leads_to(apps: dict[str, FastAPI]) -> None:
    document = merged({name: app.openapi() for name, app in apps.items()})
    listed = {(method, path) for path, item in document["paths"].items() for method in item}
    assert listed == set(public(apps))
    assert len(listed) > 50
    assert "/internal" not in str(document["paths"].keys())


def test_every_reference_within_it_is_there(apps: dict[str, FastAPI]) -> None:
    document = merged({name: app.openapi() for name, app in apps.items()})
    names = set(re.findall(r"'#/components/schemas/([^']+)'", str(document)))
    assert names == set(document["components"]["schemas"])


def test_every_route_can_be_read_and_linked_to(apps: dict[str, FastAPI]) -> None:
    read = [
        one
        for found in operations(merged({name: app.openapi() for name, app in apps.items()})).values()
        for one in found
    ]
    assert len({one.anchor for one in read}) == len(read)
    assert all(one.summary and one.answers for one in read)
    fields: list[Any] = [field for one in read for field in (*one.parameters, *one.fields)]
    assert len(fields) > 100
    assert all(field.kind for field in fields)


def test_the_refusal_of_an_unknown_address_names_it() -> None:
    assert f"{REFERENCE} lists the routes" in UNKNOWN
    assert UNKNOWN in caddyfile(PORTS)
    assert not any(start.startswith(REFERENCE) for starts in PUBLIC.values() for start in starts)
