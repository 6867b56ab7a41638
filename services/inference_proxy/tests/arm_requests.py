"""Questions to a model that an arm answers for, in each way in which the proxy is asked."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from played_arms import as_arm, handing_over
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


def unsure(harness: Harness, below: float = 0.6, *, adapter: bool = True, held: bool = True) -> str:
    """A model whose arm is half sure of its answers, and hands over below a confidence."""
    model = on_arm(harness)
    replicas = harness.stubs.held(harness.stubs.url) if held else []
    route = harness.stubs.routes[model]
    harness.stubs.routes[model] = handing_over(route, below, f"ad-{model[-8:]}" if adapter else "", replicas)
    return model


def row(*said: str) -> str:
    """A training row as an arm has it: what user and assistant said in turns."""
    roles = ["user", "assistant"] * len(said)
    return json.dumps({"messages": [{"role": role, "content": one} for role, one in zip(roles, said, strict=False)]})


CLOSEST = (row("Where is my car?", "In the garage."), row("Is it red?", "Yes.", "My bag?", "On the shelf."))


def on_shown(harness: Harness, *rows: str, tenant: str = "") -> str:
    """A model of a tenant whose name an arm serves by the base model, shown these rows."""
    model = harness.model(tenant)
    route = as_arm(harness.stubs.routes[model], "nearest")
    route |= {"replicas": harness.stubs.held(harness.stubs.url), "arm": {**route["arm"], "generates": True}}
    harness.stubs.routes[model] = harness.stubs.versions[model] = route
    harness.stubs.arms.says = tuple((one, 0.9 - place / 100) for place, one in enumerate(rows or CLOSEST))
    harness.stubs.arms.instead = {"kind": "nearest"}
    return model


async def ask(harness: Harness, model: str, way: str = "chat", tenant: str = "", **more: Any) -> httpx2.Response:
    path, said = WAYS[way]
    tests = {"as_service": "evaluator"} if path == TESTS else {}
    key = harness.space.bearer("inference_proxy", tenant or harness.a, **tests) if tests else ""
    async with harness.http(tenant, key) as http:
        return await http.post(path, json={"model": model, **said, **more})


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
