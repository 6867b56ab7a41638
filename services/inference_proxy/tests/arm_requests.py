"""Questions to a model that an arm answers for, in each way in which the proxy is asked."""

from __future__ import annotations

from typing import Any

import httpx2
from played_arms import as_arm
from proxy_harness import QUESTION, Harness

CHAT, TEXT, TESTS = "/v1/chat/completions", "/v1/completions", "/internal/evaluation/answers"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": QUESTION}),
    "streamed": (CHAT, {"messages": QUESTION, "stream": True}),
    "completion": (TEXT, {"prompt": "Where?"}),
    "test": (TESTS, {"messages": QUESTION, "max_tokens": 1}),
}


def on_arm(harness: Harness, kind: str = "head", tenant: str = "") -> str:
    """A model of a tenant whose name an arm serves."""
    model = harness.model(tenant)
    harness.stubs.routes[model] = as_arm(harness.stubs.routes[model], kind)
    return model


async def ask(harness: Harness, model: str, way: str = "chat", tenant: str = "", **more: Any) -> httpx2.Response:
    path, said = WAYS[way]
    tests = {"as_service": "evaluator"} if path == TESTS else {}
    key = harness.space.bearer("inference_proxy", tenant or harness.a, **tests) if tests else ""
    async with harness.http(tenant, key) as http:
        return await http.post(path, json={"model": model, **said, **more})


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
