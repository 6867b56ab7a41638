"""Every question names base and adapter, and no answer is given that another one, or nobody, puts its name to."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY
from proxy_harness import BASE, DIGEST, QUESTION, Harness, as_route

from schemas.http.model_server import identity
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "e" * 64
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TESTS = "/internal/evaluation"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": QUESTION}),
    "completion": (TEXT, {"prompt": "Where?"}),
    "echo": (TEXT, {"prompt": "Where?", "echo": True, "logprobs": 0, "max_tokens": 0}),
    "test": (f"{TESTS}/answers", {"messages": QUESTION, "max_tokens": 7}),
    "token count": (f"{TESTS}/token_counts", {"text": "Where?"}),
}
WAYS |= {f"{way} streamed": (path, {**said, "stream": True}) for way, (path, said) in WAYS.items() if path[:3] == "/v1"}

asked_in = pytest.mark.parametrize("way", WAYS)
"""Every way to an engine's answer: each is asked of a model, and checked before a word of it is given."""


async def ask(harness: Harness, model: str, way: str = "chat") -> tuple[int, Any]:
    """Status, and the code of the refusal or the text of the answer."""
    path, said = WAYS[way]
    if model in harness.stubs.routes:
        harness.stubs.versions[model] = harness.stubs.routes[model]
    key = harness.space.bearer("inference_proxy", harness.a, as_service="evaluator") if path.startswith(TESTS) else ""
    async with harness.http(key=key) as http:
        answer = await http.post(path, json={"model": model, **said})
    if answer.status_code != 200:
        assert "shed" not in answer.text
        return answer.status_code, answer.json()["error"]["code"]
    return 200, answer.text


def wrong_models(why: str) -> float:
    return REGISTRY.get_sample_value("inference_wrong_models_total", {"why": why}) or 0.0


async def test_every_question_names_base_and_adapter(harness: Harness) -> None:
    model = harness.model()
    for asked in (model, BASE):
        assert (await ask(harness, asked))[0] == 200
    assert harness.stubs.identities == [identity(DIGEST, harness.adapter(model)), identity(DIGEST, None)]


@asked_in
@pytest.mark.parametrize("on_top", [False, True], ids=["base", "adapter"])
async def test_another_base_never_answers(harness: Harness, way: str, on_top: bool) -> None:
    model = harness.model() if on_top else BASE
    harness.stubs.base_digest = OTHER
    before = wrong_models("another")
    assert await ask(harness, model, way) == (503, "wrong_model")
    assert wrong_models("another") == before + 1
    harness.stubs.base_digest = DIGEST
    assert (await ask(harness, model, way))[0] == 200


@asked_in
@pytest.mark.parametrize("instead", ["ad-other", ""], ids=["another adapter", "the base"])
async def test_another_adapter_never_answers(harness: Harness, way: str, instead: str) -> None:
    """Tokens are the base's, whatever is on top: there nobody but the base itself may answer."""
    model = harness.model()
    of_base = way == "token count"
    harness.stubs.swapped["" if of_base else harness.adapter(model)] = instead or ("ad-own" if of_base else "")
    assert await ask(harness, model, way) == (503, "wrong_model")
    harness.stubs.swapped.clear()
    assert (await ask(harness, model, way))[0] == 200


@asked_in
async def test_an_engine_that_declares_an_echo_never_answers_without_it(harness: Harness, way: str) -> None:
    model, before = harness.model(), wrong_models("unnamed")
    harness.stubs.silent_echo = True
    assert await ask(harness, model, way) == (503, "wrong_model")
    assert wrong_models("unnamed") == before + 1


async def test_an_engine_that_cannot_echo_answers_and_one_that_names_another_model_does_not(harness: Harness) -> None:
    harness.stubs.capabilities, harness.stubs.silent_echo = (), True
    model = harness.model()
    assert (await ask(harness, model))[0] == 200
    harness.stubs.base_digest, harness.stubs.silent_echo = OTHER, False
    assert await ask(harness, model) == (503, "wrong_model")


@asked_in
async def test_an_engine_that_refuses_as_it_has_another_base_is_no_fault_of_the_callers(
    harness: Harness, way: str
) -> None:
    harness.stubs.refusal = (404, {"error": "not loaded here", "error_type": "base_not_found"})
    before = wrong_models("refused")
    assert await ask(harness, BASE, way) == (503, "wrong_model")
    assert wrong_models("refused") == before + 1


async def test_a_base_without_a_living_replica_is_503_and_nothing_else_is(harness: Harness) -> None:
    model = harness.model()
    harness.stubs.routes[BASE] = as_route(BASE, "", "", [])
    assert await ask(harness, BASE) == (503, "model_loading")
    assert (await ask(harness, model))[0] == 200
    del harness.stubs.routes[BASE]

    async def answers_again() -> bool:
        return (await ask(harness, BASE))[0] == 200

    await eventually(answers_again, within=5)
