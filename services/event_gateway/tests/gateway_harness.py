"""A running event gateway for tests, keys of services outside, and an endpoint that webhooks are sent to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request, Response

from chassis.auth import hash_key
from chassis.ids import new_id
from event_gateway.app import build
from event_gateway.settings import Settings
from schemas import Envelope, Event
from testkit import Space, running

E = TypeVar("E", bound=Event)

FEEDBACK = "feedback.recorded.v1"
DRIFT = "drift.detected.v1"

KEYS: dict[str, dict[str, Any]] = {
    "sk-rater": {"scopes": ["events:publish", "events:read"], "event_types": [FEEDBACK]},
    "sk-monitor": {"scopes": ["events:publish"], "event_types": [FEEDBACK, DRIFT]},
    "sk-mute": {"scopes": ["events:publish"]},
    "sk-engineer": {},
    "sk-admin": {"role": "admin"},
    "sk-labeler": {"role": "labeler"},
    "sk-approver": {"role": "approver"},
    "sk-other": {"event_types": [FEEDBACK]},
}
"""What each key of a test may; that of the other tenant is `sk-other`."""

PLACES = 3
REFUSED = 20
SMALL = {
    "event_streams_per_tenant": PLACES,
    "events_refused_per_tenant": REFUSED,
    "webhooks_per_tenant": 1,
    "webhook_attempts": 3,
    "webhook_first_pause": 0.2,
    "webhook_longest_pause": 0.3,
    "webhook_seconds": 3,
}
"""Limits that a test reaches soon."""


class Accounts:
    """Knows the keys of the tests, and no others."""

    def __init__(self) -> None:
        self.by_hash: dict[str, dict[str, Any]] = {}

    async def ask(self, _path: str, **asked: Any) -> dict[str, Any]:
        return self.by_hash[asked["json"]["key_hash"]]


@dataclass
class Harness:
    """A running gateway, and one test's two tenants and their keys."""

    space: Space
    http: httpx2.AsyncClient
    app: FastAPI
    accounts: Accounts
    seen: Any = None
    tenant: str = field(default_factory=lambda: new_id("tenant_a"))
    other: str = field(default_factory=lambda: new_id("tenant_b"))

    def __post_init__(self) -> None:
        self.keys = {
            hash_key(self.key(name)): {
                "tenant_id": self.other if name == "sk-other" else self.tenant,
                "role": "engineer",
                "scopes": ["*"],
                **about,
                "key_id": self.key_id(name),
            }
            for name, about in KEYS.items()
        }
        self.accounts.by_hash |= self.keys

    @property
    def database(self) -> Any:
        return self.app.state.service.database

    @property
    def events(self) -> list[tuple[Envelope, Event]]:
        """What was published of this test's tenants."""
        return [found for found in self.seen.events if found[1].tenant_id in (self.tenant, self.other)]

    def of(self, kind: type[E]) -> list[E]:
        """Events of one kind about this test's tenants."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def key(self, name: str) -> str:
        return f"{name}-{self.tenant}"

    def key_id(self, name: str) -> str:
        return f"key_{name[3:]}_{self.tenant}"

    def bearer(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key(name)}"}

    async def send(self, event: Any, key: str = "sk-rater", **headers: str) -> httpx2.Response:
        return await self.http.post(
            "/events",
            content=json.dumps(event),
            headers={**self.bearer(key), "content-type": "application/cloudevents+json", **headers},
        )

    async def get(self, path: str, key: str = "sk-engineer", **params: Any) -> httpx2.Response:
        return await self.http.get(path, params=params, headers=self.bearer(key))

    async def post(self, path: str, body: Any = None, key: str = "sk-engineer") -> httpx2.Response:
        return await self.http.post(path, json=body, headers=self.bearer(key))


@asynccontextmanager
async def gateway(space: Space, *, of: Harness | None = None, **overrides: Any) -> AsyncIterator[Harness]:
    """A gateway of a test's own, for new tenants or those of another."""
    app = build(space.settings(Settings, "event_gateway", **{"webhooks_to_inside": True, **overrides}))
    accounts = Accounts()
    app.state.service.authenticator.ask(accounts)
    async with running(app) as url, httpx2.AsyncClient(base_url=f"{url}/v1", timeout=60) as http:
        harness = Harness(space, http, app, accounts)
        yield replace(harness, tenant=of.tenant, other=of.other) if of else harness


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(shared_space: Space) -> AsyncIterator[Harness]:
    """One gateway for the tests of this module; each brings its own tenants."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("event_gateway.worker.LOOK_SECONDS", 0.5)
        async with (
            gateway(shared_space, **SMALL) as harness,
            shared_space.probe("feedback", "models", "drift") as harness.seen,
        ):
            yield harness


@pytest.fixture
def harness(shared: Harness) -> Harness:
    """The shared gateway, and tenants that it has not heard of."""
    return Harness(shared.space, shared.http, shared.app, shared.accounts, shared.seen)


def feedback(event_id: str = "1", **data: Any) -> dict[str, Any]:
    """A rating, as a service outside sends it."""
    given = {"feedback_id": f"rating-{event_id}", "chat_id": "chatcmpl-1", "model": "ft:tiny:acme:x", "rating": "down"}
    attributes = {"specversion": "1.0", "id": event_id, "source": "/survey", "type": FEEDBACK}
    return {**attributes, "data": {**given, **data}}


def drift(event_id: str = "1") -> dict[str, Any]:
    data = {"drift_id": "d", "model": "ft:tiny:acme:x", "metric": "psi", "value": 0.3, "threshold": 0.2}
    return {"specversion": "1.0", "id": event_id, "source": "/monitor", "type": DRIFT, "data": data}


@dataclass
class Receiver:
    """What webhooks are sent to: answers what the test says, and keeps what came."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    strayed: list[str] = field(default_factory=list)

    @property
    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/hook")
        async def hook(request: Request) -> Response:
            self.came.append((dict(request.headers), await request.body()))
            status = self.answers.pop(0) if self.answers else 200
            return Response(status_code=status, headers={"location": "/elsewhere"} if status == 302 else {})

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def elsewhere(path: str) -> None:
            self.strayed.append(path)

        return app


@asynccontextmanager
async def receiver(*answers: int) -> AsyncIterator[Receiver]:
    found = Receiver(answers=list(answers))
    async with running(found.app) as url:
        found.url = f"{url}/hook"
        yield found
