"""A running event gateway for tests, keys of services outside, and an endpoint that webhooks are sent to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI, Request, Response

from chassis.auth import hash_key
from event_gateway.app import build
from event_gateway.settings import Settings
from testkit import Space, running

TENANT = "tenant_a"
OTHER = "tenant_b"
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
    "sk-other": {"tenant_id": OTHER, "event_types": [FEEDBACK]},
}


class Accounts:
    """Knows these keys, and no others."""

    def __init__(self) -> None:
        self.by_hash = {
            hash_key(key): {
                "tenant_id": TENANT,
                "role": "engineer",
                "scopes": ["*"],
                **about,
                "key_id": f"key_{key[3:]}",
            }
            for key, about in KEYS.items()
        }

    async def ask(self, _path: str, **asked: Any) -> dict[str, Any]:
        return self.by_hash[asked["json"]["key_hash"]]


@dataclass
class World:
    """A running gateway."""

    space: Space
    http: httpx2.AsyncClient
    app: FastAPI

    @property
    def database(self) -> Any:
        return self.app.state.service.database

    async def send(self, event: Any, key: str = "sk-rater", **headers: str) -> httpx2.Response:
        return await self.http.post(
            "/events",
            content=json.dumps(event),
            headers={"authorization": f"Bearer {key}", "content-type": "application/cloudevents+json", **headers},
        )

    async def get(self, path: str, key: str = "sk-engineer", **params: Any) -> httpx2.Response:
        return await self.http.get(path, params=params, headers={"authorization": f"Bearer {key}"})

    async def post(self, path: str, body: Any = None, key: str = "sk-engineer") -> httpx2.Response:
        return await self.http.post(path, json=body, headers={"authorization": f"Bearer {key}"})


@asynccontextmanager
async def gateway(space: Space, **overrides: Any) -> AsyncIterator[World]:
    app = build(space.settings(Settings, "event_gateway", **{"webhooks_to_inside": True, **overrides}))
    app.state.service.authenticator.ask(Accounts())
    async with running(app) as url, httpx2.AsyncClient(base_url=f"{url}/v1", timeout=60) as http:
        yield World(space, http, app)


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
