"""A running evaluator for tests, and the proxy it asks."""

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
import pytest_asyncio
from fastapi import FastAPI, Request, Response
from pydantic import SecretStr

from chassis.errors import Invalid, SartorError, Transient
from chassis.http import error_response
from chassis.ids import new_id
from evaluator.app import build
from evaluator.domain import OPEN
from evaluator.settings import Settings
from schemas import DatasetRef, EvaluationCompleted, ModelRegistered, ObjectRef
from schemas.http.inference_proxy import EvaluationAnswer, TokenCount
from testkit import Space, eventually, running
from testkit.base_models import base_spec

BASE = "tiny-base"
LABELS = ("refund", "delivery", "返品")
Messages = list[dict[str, str]]


@dataclass
class Asked:
    """inference_proxy and registry before answers that a test chooses; it counts what it is asked.

    Attributes:
        held: by model id, how each candidate that a replica holds answers.
        adapters: by model id, the adapter that it says has answered.
        base: how the base model answers.
        refuse: questions that are too long for it.
        delay: seconds one answer takes.
        broken: the engine breaks off every answer.
        failing: by words of a question, the error that it is always answered with.
        prices: whether answers have a price.
        unpriced: words at the end of questions whose answers have none though others have.
        callers: of every call, who signed it and for which tenant.
    """

    space: Space
    held: dict[str, Callable[[Messages], str]] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    base: Callable[[Messages], str] = lambda _: "I do not know"
    refuse: str = ""
    delay: float = 0.0
    broken: bool = False
    failing: dict[str, SartorError] = field(default_factory=dict)
    prices: bool = False
    unpriced: str | None = None
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    callers: set[tuple[str | None, str, str]] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.exception_handler(SartorError)
        async def refuse(_: Request, error: SartorError) -> Response:
            return error_response(error)

        @app.get("/internal/base_models/{base_id}")
        async def base_model(base_id: str) -> dict[str, Any]:
            return base_spec(base_id, context_length=512).model_dump()

        @app.post("/internal/evaluation/token_counts")
        async def token_counts(request: Request) -> TokenCount:
            self._signed(request)
            return TokenCount(tokens=len((await request.json())["text"].split()))

        @app.post("/internal/evaluation/answers")
        async def answers(request: Request) -> EvaluationAnswer:
            self._signed(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                return await self._answer(await request.json())
            finally:
                self.at_once -= 1

        return app

    def _signed(self, request: Request) -> None:
        caller = self.space.tokens("inference_proxy").verify(request.headers["authorization"].removeprefix("Bearer "))
        self.callers.add((caller.caller, caller.key_id, caller.tenant_id))

    async def _answer(self, body: dict[str, Any]) -> EvaluationAnswer:
        self.requests.append(body)
        await asyncio.sleep(self.delay)
        model, messages = body["model"], body["messages"]
        question = messages[-1]["content"]
        for words, error in self.failing.items():
            if question.endswith(words):
                raise error
        if self.broken:
            raise Transient("out of memory", code="generation_failed")
        if model != BASE and model not in self.held:
            raise Transient("The model is being loaded.", code="model_loading")
        if self.refuse and self.refuse in question:
            raise Invalid("inputs must have less than 512 tokens", code="context_length_exceeded")
        if question == ".":  # whether it can be asked, which is no question of the evaluation
            text = "."
        else:
            self.asked[model, question] += 1
            text = self.held.get(model, self.base)(messages)
        return EvaluationAnswer(
            text=text,
            finish_reason="stop",
            prompt_tokens=sum(len(one["content"].split()) for one in messages),
            completion_tokens=2,
            adapter_id=self.adapters.get(model),
            cost=0.25 if self.prices and not (self.unpriced and question.endswith(self.unpriced)) else None,
        )


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


def settings(space: Space, asked_url: str, **overrides: Any) -> Settings:
    return space.settings(
        Settings,
        "evaluator",
        **{
            "inference_proxy_url": asked_url,
            "registry_url": asked_url,
            "evaluator_lease_seconds": 2.0,
            "evaluator_poll_seconds": 1.0,
            "evaluator_retry_seconds": 0.3,
            "evaluator_adapter_seconds": 600.0,
            "evaluator_slots": 1,
            "evaluator_parallel": 4,
            **overrides,
        },
    )


@dataclass
class Harness:
    """A running evaluator and the proxy it asks, and one test's tenants."""

    space: Space
    url: str
    proxy: Asked
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
            dataset=DatasetRef(task=task, train=train_ref, heldout=heldout),
            **facts,
        )
        self.proxy.adapters[event.model_id] = event.adapter_id
        await self.publish(event)
        return event

    def hold(self, model: ModelRegistered, answers: Callable[[Messages], str]) -> None:
        """A replica has proved that it holds the candidate, which answers so."""
        self.proxy.held[model.model_id] = answers

    async def completed(self, model: ModelRegistered, within: float = 60) -> EvaluationCompleted:
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
async def shared(shared_space: Space) -> AsyncIterator[dict[str, Any]]:
    """One evaluator for the tests of this module; each brings its own tenant."""
    proxy = Asked(shared_space)
    async with running(proxy.app()) as asked_url:
        app = build(settings(shared_space, asked_url, evaluator_slots=2, evaluator_attempts=3))
        async with (
            running(app) as url,
            shared_space.publisher("registry") as publish,
            shared_space.probe("evaluations") as seen,
        ):
            documents = app.state.service.collection("evaluations")
            yield {
                "space": shared_space,
                "url": url,
                "proxy": proxy,
                "publish": publish,
                "seen": seen,
                "documents": documents,
            }


@pytest_asyncio.fixture(loop_scope="module")
async def harness(shared: dict[str, Any]) -> AsyncIterator[Harness]:
    """The shared evaluator with a proxy that forgot what earlier tests taught it; it goes on with nothing of theirs."""
    proxy: Asked = shared["proxy"]
    proxy.__dict__.update(Asked(shared["space"]).__dict__)
    harness = Harness(**shared)
    yield harness
    await harness.documents.delete_many({"tenant_id": harness.tenant, "state": {"$in": [*OPEN]}})


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
