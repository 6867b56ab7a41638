"""A running evaluator for tests, and the model server it asks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import SecretStr

from chassis.ids import new_id
from evaluator.app import build
from evaluator.settings import Settings
from schemas import EvaluationCompleted, ModelRegistered, ObjectRef
from testkit import Addresses, Space, eventually, running
from testkit.base_models import base_spec

BASE = "tiny-base"
LABELS = ("refund", "delivery", "返品")
Messages = list[dict[str, str]]


@dataclass
class ModelServer:
    """The model server's HTTP API before answers that a test chooses; it counts what it is asked.

    Attributes:
        adapters: how each adapter it holds answers.
        base: how the base model answers.
        refuse: questions that are too long for it.
        delay: seconds one answer takes.
    """

    adapters: dict[str, Callable[[Messages], str]] = field(default_factory=dict)
    base: Callable[[Messages], str] = lambda _: "I do not know"
    refuse: str = ""
    delay: float = 0.0
    broken: bool = False
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/internal/base_models/{base_id}")
        async def base_model(base_id: str) -> dict[str, Any]:
            return base_spec(base_id, context_length=512).model_dump()

        @app.post("/tokenize")
        async def tokenize(request: Request) -> list[dict[str, Any]]:
            return [{"id": place, "text": text} for place, text in enumerate((await request.json())["inputs"].split())]

        @app.post("/v1/chat/completions", response_model=None)
        async def chat(request: Request) -> dict[str, Any] | JSONResponse:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                return await self._chat(await request.json())
            finally:
                self.at_once -= 1

        return app

    async def _chat(self, body: dict[str, Any]) -> dict[str, Any] | JSONResponse:
        self.requests.append(body)
        await asyncio.sleep(self.delay)
        model, messages = body["model"], body["messages"]
        question = messages[-1]["content"]
        if self.broken:
            return _refusal(500, "incomplete_generation", "out of memory")
        if model != BASE and model not in self.adapters:
            return _refusal(404, "adapter_not_found", model)
        if self.refuse and self.refuse in question:
            return _refusal(422, "validation", "inputs must have less than 512 tokens")
        if question == ".":  # whether the adapter is there, which is no question of the evaluation
            text = "."
        else:
            self.asked[model, question] += 1
            text = self.adapters.get(model, self.base)(messages)
        usage = {"prompt_tokens": sum(len(one["content"].split()) for one in messages), "completion_tokens": 2}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {"object": "chat.completion", "model": model, "choices": [choice], "usage": usage}


def _refusal(status: int, kind: str, message: str) -> JSONResponse:
    return JSONResponse({"error": message, "error_type": kind}, status_code=status)


def label_of(question: str) -> str:
    """The right answer to a question of `rows`."""
    return LABELS[int(question.rsplit(maxsplit=1)[-1]) % len(LABELS)]


def right(messages: Messages) -> str:
    return label_of(messages[-1]["content"])


def wrong(_: Messages) -> str:
    return "nonsense"


def copies_the_examples(messages: Messages) -> str:
    """Right when it was shown examples."""
    return right(messages) if len(messages) > 2 else "nonsense"


def rows(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "system", "content": "Name the intent."},
                {"role": "user", "content": f"question number {number}"},
                {"role": "assistant", "content": label_of(f"{number}")},
            ]
        }
        for number in range(first, first + count)
    ]


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


def settings(space: Space, engine_url: str, **overrides: Any) -> Settings:
    return space.settings(
        Settings,
        "evaluator",
        **{
            "model_server_url": engine_url,
            "registry_url": engine_url,
            "evaluator_lease_seconds": 2.0,
            "evaluator_poll_seconds": 0.1,
            "evaluator_retry_seconds": 0.3,
            "evaluator_adapter_seconds": 600.0,
            "evaluator_slots": 1,
            "evaluator_parallel": 4,
            **overrides,
        },
    )


@dataclass
class World:
    """A running evaluator and model server, and one test's tenants."""

    space: Space
    url: str
    engine: ModelServer
    publish: Any
    seen: Any
    documents: Any = None
    tenant: str = field(default_factory=lambda: new_id("tenant_"))

    def http(self, tenant: str = "", role: str | None = None) -> httpx2.AsyncClient:
        headers = self.space.headers("evaluator", tenant or self.tenant, role=role)
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    async def register(
        self,
        heldout: list[dict[str, Any]] | ObjectRef,
        train: list[dict[str, Any]] | None = None,
        task: Any = "classification",
        **facts: Any,
    ) -> ModelRegistered:
        objects = self.space.objects()
        await objects.prepare()
        place = f"tenants/{self.tenant}/datasets/{new_id('ds-')}"
        train_ref = await objects.put_bytes(f"{place}/train.jsonl", jsonl(rows(1000, 60) if train is None else train))
        if not isinstance(heldout, ObjectRef):
            heldout = await objects.put_bytes(f"{place}/heldout.jsonl", jsonl(heldout))
        objects.close()
        event = ModelRegistered(
            tenant_id=self.tenant,
            model_id=f"ft:{BASE}:acme::{new_id('')[:8]}",
            job_id=new_id("ftjob-"),
            base_model=BASE,
            adapter_id=new_id("ad-"),
            adapter_manifest=train_ref,
            heldout=heldout,
            train=train_ref,
            task=task,
            **facts,
        )
        await self.publish(event)
        return event

    async def completed(self, model: ModelRegistered, within: float = 30) -> EvaluationCompleted:
        [event] = await eventually(
            lambda: [one for one in self.seen.of(EvaluationCompleted) if one.model_id == model.model_id], within=within
        )
        return event

    async def shown(self, model: ModelRegistered) -> dict[str, Any]:
        async with self.http() as http:
            found = (await http.get("/v1/evals/evaluations", params={"model": model.model_id})).json()["data"]
            return dict(found[0]) if found else {}

    async def evidence(self, event: EvaluationCompleted) -> dict[str, Any]:
        async with self.http() as http:
            answer = await http.get(f"/v1/evals/evaluations/{event.evaluation_id}/evidence")
            assert answer.status_code == 200, answer.text
            return dict(answer.json())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    """One evaluator for the tests of this module; each brings its own tenant."""
    space = Space(addresses, tmp_path_factory.mktemp("keys"))
    engine = ModelServer()
    async with running(engine.app()) as engine_url:
        app = build(settings(space, engine_url, evaluator_slots=2, evaluator_attempts=3))
        async with running(app) as url, space.publisher("registry") as publish, space.probe("evaluations") as seen:
            documents = app.state.service.collection("evaluations")
            yield {
                "space": space,
                "url": url,
                "engine": engine,
                "publish": publish,
                "seen": seen,
                "documents": documents,
            }


@pytest.fixture
def world(shared: dict[str, Any]) -> World:
    """The shared evaluator with a model server that forgot what earlier tests taught it."""
    engine: ModelServer = shared["engine"]
    engine.__dict__.update(ModelServer().__dict__)
    return World(**shared)


@asynccontextmanager
async def process(configured: Settings, log: Path = Path(os.devnull)) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m evaluator` as it runs in production, killed at the end."""
    given = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in configured
        if value is not None
    }
    env = {**os.environ, **{f"SARTOR_{name.upper()}": value for name, value in given.items()}}
    with log.open("ab") as output:
        command = (sys.executable, "-m", "evaluator")
        running_process = await asyncio.create_subprocess_exec(*command, env=env, stdout=output)
    try:
        yield running_process
    finally:
        if running_process.returncode is None:
            running_process.kill()
        await running_process.wait()
