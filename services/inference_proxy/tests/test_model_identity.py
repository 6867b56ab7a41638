"""Every question names base and adapter, and no answer is given that another one, or nobody, puts its name to."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY
from proxy_world import BASE, DIGEST, QUESTION, World, as_route

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


async def ask(world: World, model: str, way: str = "chat") -> tuple[int, Any]:
    """Status, and the code of the refusal or the text of the answer."""
    path, said = WAYS[way]
    if model in world.elsewhere.routes:
        world.elsewhere.versions[model] = world.elsewhere.routes[model]
    key = world.space.bearer("inference_proxy", world.a, as_service="evaluator") if path.startswith(TESTS) else ""
    async with world.http(key=key) as http:
        answer = await http.post(path, json={"model": model, **said})
    if answer.status_code != 200:
        assert "shed" not in answer.text
        return answer.status_code, answer.json()["error"]["code"]
    return 200, answer.text


def wrong_models(why: str) -> float:
    return REGISTRY.get_sample_value("inference_wrong_models_total", {"why": why}) or 0.0


async def test_every_question_names_base_and_adapter(world: World) -> None:
    model = world.model()
    for asked in (model, BASE):
        assert (await ask(world, asked))[0] == 200
    assert world.elsewhere.identities == [identity(DIGEST, world.adapter(model)), identity(DIGEST, None)]


@asked_in
@pytest.mark.parametrize("on_top", [False, True], ids=["base", "adapter"])
async def test_another_base_never_answers(world: World, way: str, on_top: bool) -> None:
    model = world.model() if on_top else BASE
    world.elsewhere.base_digest = OTHER
    before = wrong_models("another")
    assert await ask(world, model, way) == (503, "wrong_model")
    assert wrong_models("another") == before + 1
    world.elsewhere.base_digest = DIGEST
    assert (await ask(world, model, way))[0] == 200


@asked_in
@pytest.mark.parametrize("instead", ["ad-other", ""], ids=["another adapter", "the base"])
async def test_another_adapter_never_answers(world: World, way: str, instead: str) -> None:
    """Tokens are the base's, whatever is on top: there nobody but the base itself may answer."""
    model = world.model()
    of_base = way == "token count"
    world.elsewhere.swapped["" if of_base else world.adapter(model)] = instead or ("ad-own" if of_base else "")
    assert await ask(world, model, way) == (503, "wrong_model")
    world.elsewhere.swapped.clear()
    assert (await ask(world, model, way))[0] == 200


@asked_in
async def test_an_engine_that_declares_an_echo_never_answers_without_it(world: World, way: str) -> None:
    model, before = world.model(), wrong_models("unnamed")
    world.elsewhere.silent_echo = True
    assert await ask(world, model, way) == (503, "wrong_model")
    assert wrong_models("unnamed") == before + 1


async def test_an_engine_that_cannot_echo_answers_and_one_that_names_another_model_does_not(world: World) -> None:
    world.elsewhere.capabilities, world.elsewhere.silent_echo = (), True
    model = world.model()
    assert (await ask(world, model))[0] == 200
    world.elsewhere.base_digest, world.elsewhere.silent_echo = OTHER, False
    assert await ask(world, model) == (503, "wrong_model")


@asked_in
async def test_an_engine_that_refuses_as_it_has_another_base_is_no_fault_of_the_callers(world: World, way: str) -> None:
    world.elsewhere.refusal = (404, {"error": "not loaded here", "error_type": "base_not_found"})
    before = wrong_models("refused")
    assert await ask(world, BASE, way) == (503, "wrong_model")
    assert wrong_models("refused") == before + 1


async def test_a_base_without_a_living_replica_is_503_and_nothing_else_is(world: World) -> None:
    model = world.model()
    world.elsewhere.routes[BASE] = as_route(BASE, "", "", [])
    assert await ask(world, BASE) == (503, "model_loading")
    assert (await ask(world, model))[0] == 200
    del world.elsewhere.routes[BASE]

    async def answers_again() -> bool:
        return (await ask(world, BASE))[0] == 200

    await eventually(answers_again, within=5)
