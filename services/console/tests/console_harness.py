"""A running console for tests, and the other services' HTTP APIs it asks, with answers that a test chooses."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from chassis.auth import Principal
from chassis.errors import NotFound, SartorError
from chassis.http import error_response
from console.app import build
from console.settings import Settings
from schemas.services import PUBLIC
from stores.mongo import Database, connect
from testkit import Addresses, Space, running

MODEL = "ft:gemma-3-270m:kumo::1a2b"
JOB = {"id": "ftjob-1", "status": "running", "training_file": "file-1", "fine_tuned_model": None, "error": None}
FILE = {"id": "file-1", "filename": "rows.jsonl", "bytes": 12, "status": "processed", "status_details": None}
CARD = {
    "id": MODEL,
    "state": "production",
    "waiting_for": None,
    "dataset_id": "ds-1",
    "base_model": "gemma-3-270m",
    "job_id": "ftjob-1",
    "created_at": 1_700_000_000,
}
BASE = {"id": "gemma-3-270m", "owned_by": "base", "fine_tuning": True, "price": None}
FAR_BASE = {"id": "far-base", "owned_by": "base", "fine_tuning": False, "price": {"input": 0.4, "output": 1.6}}
OWN = {"id": MODEL, "owned_by": "kumo"}
KEY = {
    "id": "key_1",
    "name": "laptop",
    "hint": "sk-…abcd",
    "role": "engineer",
    "revoked_at": None,
    "replaced": [{"hint": "sk-…wxyz", "ends_at": 1_700_000_000}],
}
PROJECT = {
    "id": "lp-1",
    "name": "Intents",
    "answered": 1,
    "total": 3,
    "labels": ["refund"],
    "instructions": "Choose.",
    "publications": 0,
    "file_id": None,
}

PERSON = {"id": "user_1", "email": "mika@example.org", "role": "labeler", "disabled": False, "status": "active"}
GUEST = {"id": "user_2", "email": "gast@example.org", "role": "viewer", "disabled": False, "status": "invited"}
INVITED = {**GUEST, "invitation": {"code": "c0de", "path": "/join#c0de", "expires_at": 1_700_000_000}}
LIMITS = {"requests_per_minute": 6000, "tokens_per_minute": 1_000_000, "keys": 10, "people": 20}
ORGANIZATION = {
    "id": "tenant_a",
    "name": "Kumo Cycles",
    "created_at": 1_700_000_000,
    "policy": {"tune_on_upload": True, "gate": "approval", "base_model": ""},
    "limits": LIMITS,
}
LINE = {
    "id": "d1",
    "at": 1_700_000_000,
    "actor": "user_1",
    "action": "user.invite",
    "target": "user_2",
    "details": {"role": "viewer"},
}
LETTER = {
    "id": "files-0-1",
    "type": "file.uploaded.v1",
    "consumer": "ingest",
    "code": "invalid",
    "reason": "no such dataset",
    "died_at": 1_700_000_000,
}
HAPPENED = {
    "id": "evt_1",
    "cursor": "7",
    "type": "model.promoted.v1",
    "time": "2026-01-02T03:04:05+00:00",
    "subject": MODEL,
    "data": {},
}
REFUSED = {
    "id": "refused_1",
    "type": "feedback.recorded.v1",
    "event_id": "rating 7",
    "key_id": "key_1",
    "code": "foreign_tenant",
    "reason": "tenantid: is not the tenant of this key.",
    "refused_at": 1_700_000_000,
}
WEBHOOK = {
    "id": "we_1",
    "name": "Chat room",
    "url": "https://hooks.example/in",
    "event_types": ["model.promoted.v1"],
    "deliveries": {"waiting": 0, "parked": 1},
    "skipped": 0,
    "off": None,
}
DELIVERY = {
    "id": "whd_1",
    "event_id": "evt_1",
    "event_type": "model.promoted.v1",
    "state": "parked",
    "attempts": 8,
    "tried_at": 1_700_000_000,
    "problem": "answered 503",
}
OPERATOR = {"tenant_id": "", "key_id": "key_op", "role": "operator", "scopes": ["*"], "allowances": []}


@dataclass(frozen=True)
class RecordedRequest:
    """One request the console made."""

    service: str
    method: str
    path: str
    query: dict[str, str]
    caller: Principal
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Services:
    """Every other service on one port; which one is meant follows from the address, as at the ingress.

    Attributes:
        answers: (method, path) -> body, error, or response, or a function of the query that gives one; an address
            without an answer is a 404.
        pages: path -> the pages of a list, given out by the `after` of the last item before.
        routes: service -> its OpenAPI document, or an error.
        asked: what the console asked, in its order.
    """

    space: Space
    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    pages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    routes: dict[str, Any] = field(default_factory=dict)
    asked: list[RecordedRequest] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH", "DELETE"])
        async def any_address(request: Request) -> Any:
            path = request.url.path
            token = request.headers["authorization"].removeprefix("Bearer ")
            service = next((name for name, starts in PUBLIC.items() if path.startswith(starts)), "accounts")
            if path in ("/openapi.json", "/readyz"):
                service = _audience(token)
            caller = self.space.tokens(service).verify(token)
            self.asked.append(
                RecordedRequest(
                    service,
                    request.method,
                    path,
                    dict(request.query_params),
                    caller,
                    dict(request.headers),
                    await request.body(),
                )
            )
            if path == "/openapi.json":
                answer = self.routes.get(service, NotFound("No such thing."))
                return error_response(answer) if isinstance(answer, SartorError) else answer
            if path in self.pages:
                pages, after = self.pages[path], request.query_params.get("after")
                ends = [None, *(one["data"][-1]["id"] for one in pages)]
                place = ends.index(after)
                return {**pages[place], "has_more": place + 1 < len(pages)}
            answer = self.answers.get((request.method, path), NotFound("No such thing."))
            answer = (
                answer(dict(request.query_params)) if callable(answer) and not isinstance(answer, Response) else answer
            )
            return error_response(answer) if isinstance(answer, SartorError) else answer

        return app

    def of(self, method: str, path: str) -> list[RecordedRequest]:
        return [one for one in self.asked if (one.method, one.path) == (method, path)]


def _audience(token: str) -> str:
    """Which service a token is for, as it says itself."""
    body = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["aud"])


def page(*data: Any, more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": list(data), "has_more": more}


def event(message: str, kind: str = "message", **data: Any) -> dict[str, Any]:
    return {"id": f"ftevent-{message}", "message": message, "type": kind, "data": data}


def at(stage: str, **more: Any) -> dict[str, Any]:
    return {**JOB, "stage": stage, "waiting_for": None, **more}


def chunks(*parts: bytes) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return StreamingResponse(body(), media_type="text/event-stream")


STEP = event("Step 3/6", "metrics", step=3, total_steps=6, train_loss=0.5)
RUN = {"id": "eval-1", "job_id": "ftjob-1", "status": "running", "model": MODEL, "progress": {"done": 3, "total": 12}}
WAITS = {"what": "A decision about the model", "who": "an owner or approver", "since": 1_700_000_000}


@dataclass
class Harness:
    """A console, a browser without scripts, and who is signed in there."""

    space: Space
    url: str
    secure_url: str
    services: Services
    database: Database
    http: httpx2.AsyncClient
    tenant: str = "tenant_a"

    async def sign_in(self, tenant: str = "tenant_a", role: str = "owner") -> httpx2.AsyncClient:
        """A browser in which a person of `tenant` is signed in."""
        self.services.answers["POST", "/internal/users/sign_in"] = {
            "tenant_id": tenant,
            "user_id": f"user_of_{tenant}",
            "role": role,
            "email": "rider@example.org",
            "organization": "kumo",
            "name": "Kumo Cycles",
        }
        browser = httpx2.AsyncClient(base_url=self.url, headers={"accept": "text/html"}, timeout=20)
        answer = await browser.post("/sign-in", data={"email": "rider@example.org", "password": "correct horse"})
        assert answer.status_code == 303, answer.text
        return browser

    async def operate(self) -> httpx2.AsyncClient:
        """A browser in which the operator is signed in."""
        self.services.answers["POST", "/internal/keys/operator"] = OPERATOR
        self.services.answers["POST", "/internal/keys/verify"] = OPERATOR
        browser = httpx2.AsyncClient(base_url=self.url, headers={"accept": "text/html"}, timeout=20)
        answer = await browser.post("/operator/sign-in", data={"key": "sk-sartor-operator"})
        assert answer.status_code == 303, answer.text
        return browser

    def answer(self) -> None:
        """Answers with which every page can be shown."""
        self.services.asked.clear()
        self.services.pages.clear()
        self.services.routes.clear()
        self.services.answers = {
            ("GET", "/v1/files"): page(FILE),
            ("GET", "/v1/files/file-1"): FILE,
            ("GET", "/v1/fine_tuning/jobs"): page(JOB),
            ("GET", "/v1/fine_tuning/jobs/ftjob-1/events"): page(),
            ("GET", "/v1/models"): page(BASE, OWN),
            ("GET", f"/v1/registry/models/{MODEL}"): CARD,
            ("GET", "/v1/datasets/ds-1"): {"system": "Name the intent."},
            ("GET", "/v1/evals/evaluations"): page(),
            ("GET", "/v1/registry/models"): page(),
            ("GET", "/v1/labeling/projects"): page(PROJECT),
            ("GET", "/v1/labeling/feedback"): page(),
            ("GET", "/v1/labeling/projects/lp-1"): PROJECT,
            ("POST", "/v1/labeling/projects/lp-1/next"): {"id": "lt-1", "text": "the lock stays shut"},
            ("GET", "/v1/organization/keys"): page(KEY),
            ("GET", "/v1/organization/users"): page(PERSON, GUEST),
            ("GET", "/v1/organization"): ORGANIZATION,
            ("GET", "/v1/organization/audit_logs"): {**page(LINE), "intact": True},
            ("GET", "/v1/registry/base_models"): page(BASE, FAR_BASE),
            ("GET", "/v1/organization/tenants"): page(ORGANIZATION),
            ("GET", "/v1/organization/dead_letters"): page(LETTER),
            ("GET", "/readyz"): {"mongo": "ok"},
            ("GET", "/v1/events"): page(HAPPENED),
            ("GET", "/v1/events/refused"): page(REFUSED),
            ("GET", "/v1/webhook_endpoints"): page(),
            ("GET", "/v1/webhook_event_types"): page("fine_tuning.job.succeeded"),
            ("GET", "/v1/webhook_endpoints/we_1"): WEBHOOK,
            ("GET", "/v1/webhook_endpoints/we_1/deliveries"): page(DELIVERY),
        }


def token_of(html: str) -> str:
    """The form token a page carries."""
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', html)
    assert found
    return found[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Harness]:
    space = Space(addresses, tmp_path_factory.mktemp("keys"))
    services = Services(space)
    async with running(services.app()) as peers:
        urls = {f"{name}_url": peers for name in (*PUBLIC, "model_server")}
        settings = space.settings(Settings, "console", **urls)
        secure = settings.model_copy(update={"public_url": "https://sartor.example"})
        async with (
            running(build(settings)) as url,
            running(build(secure)) as secure_url,
            httpx2.AsyncClient(base_url=url, headers={"accept": "text/html"}, timeout=20) as http,
        ):
            yield Harness(space, url, secure_url, services, connect(settings, "console"), http)


@pytest.fixture
def harness(shared: Harness) -> Harness:
    shared.answer()
    return shared
