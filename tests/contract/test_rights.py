"""Every route asks who calls: walked over the services as they are wired, so that a new route cannot be forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from chassis.auth import Principal
from chassis.ids import new_id
from chassis.limits import Allowance
from localstack.ingress import caddyfile
from schemas.services import SERVICES
from tests.conftest import builder

Built = Callable[[str], FastAPI]

PEOPLE = {"console"}
"""Its pages ask for a session; its own tests walk them."""

NETWORK = {"model_server"}
"""It speaks TGI's API, which knows no callers: the network admits services only, and no ingress leads there."""

HEALTH_ONLY = {"serving_agent"}
"""It is asked for nothing else."""


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Built:
    """As `built`, each service once for all tests that leave it as it is."""
    return cache(builder(tmp_path_factory.mktemp("wired"), tiny_models))


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and a concrete path of each route; health, readiness and metrics are not among them."""
    for path, methods in app.openapi()["paths"].items():
        yield from ((method.upper(), re.sub(r"\{[^}]+\}", new_id("none"), path)) for method in methods)


@pytest.mark.parametrize("service", sorted(set(SERVICES) - PEOPLE - NETWORK - HEALTH_ONLY))
@pytest.mark.parametrize("key", [None, "", "Bearer x", f"Bearer {'ey' * 30}.e30.e30", "Basic Og=="])
async def test_no_route_answers_a_stranger(service: str, key: str | None, wired: Built) -> None:
    app = wired(service)
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://service")
    headers = {} if key is None else {"authorization": key}
    async with client:
        answers = {
            (method, path): (await client.request(method, path, headers=headers)).status_code
            for method, path in routes(app)
        }
    assert len(answers) > 2
    assert {route: status for route, status in answers.items() if status != 401} == {}


@pytest.mark.parametrize("service", sorted(set(SERVICES) - PEOPLE - NETWORK - HEALTH_ONLY))
async def test_every_route_counts_against_the_keys_limit(service: str, built: Built) -> None:
    app = built(service)
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://service")
    async with client:
        for method, path in routes(app):
            app.state.authenticator = OneRequest(f"key of {method} {path}")
            headers = {"authorization": "Bearer sk-x", "idempotency-key": "i"}
            answers = [
                await client.request(method, path, headers=h) for h in ({"authorization": "Bearer sk-x"}, headers)
            ]
            assert answers[0].status_code == 403, (method, path)
            assert answers[1].status_code == 429, (method, path)
            told = answers[1].headers
            assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("1", "0")
            assert int(told["retry-after"]) > 1


@pytest.mark.parametrize("service", sorted(HEALTH_ONLY))
def test_what_answers_health_only_has_no_route(service: str, wired: Built) -> None:
    assert list(routes(wired(service))) == []


class OneRequest:
    """Knows everybody for a key that may do nothing, once a minute."""

    def __init__(self, key: str) -> None:
        self.key = key

    async def authenticate(self, _: str | None) -> Principal:
        allowances = (Allowance(self.key, 1, 1),)
        return Principal(tenant_id="t", key_id=self.key, scopes=frozenset(), allowances=allowances)


def test_no_ingress_leads_to_what_trusts_the_network() -> None:
    ports = {name: 7000 + place for place, name in enumerate([*SERVICES, "ingress"])}
    written = caddyfile(ports)
    assert all(f":{ports[name]}" not in written for name in NETWORK | HEALTH_ONLY)
    assert f":{ports['ingest']}" in written
