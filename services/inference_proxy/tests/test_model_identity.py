"""Every question names base and adapter, and no answer is given that another one, or nobody, puts its name to."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY
from proxy_world import BASE, DIGEST, QUESTION, World, as_route

from schemas.http.model_server import identity

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "e" * 64
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
asked_by = pytest.mark.parametrize("path", [CHAT, TEXT], ids=["chat", "completions"])


async def ask(world: World, model: str, path: str = CHAT, **more: Any) -> tuple[int, Any]:
    """Status, and the code of the refusal or the text of the answer."""
    said = {"messages": QUESTION} if path == CHAT else {"prompt": "Where?"}
    async with world.http() as http:
        answer = await http.post(path, json={"model": model, **said, **more})
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


@streamed
@asked_by
@pytest.mark.parametrize("on_top", [False, True], ids=["base", "adapter"])
async def test_another_base_never_answers(world: World, path: str, stream: bool, on_top: bool) -> None:
    model = world.model() if on_top else BASE
    world.elsewhere.base_digest = OTHER
    before = wrong_models("another")
    assert await ask(world, model, path, stream=stream) == (503, "wrong_model")
    assert wrong_models("another") == before + 1
    world.elsewhere.base_digest = DIGEST
    assert (await ask(world, model, path, stream=stream))[0] == 200


@streamed
@asked_by
@pytest.mark.parametrize("instead", ["ad-other", ""], ids=["another adapter", "the base"])
async def test_another_adapter_never_answers(world: World, path: str, stream: bool, instead: str) -> None:
    model = world.model()
    world.elsewhere.swapped[world.adapter(model)] = instead
    assert await ask(world, model, path, stream=stream) == (503, "wrong_model")
    world.elsewhere.swapped.clear()
    assert (await ask(world, model, path, stream=stream))[0] == 200


@streamed
@asked_by
async def test_an_engine_that_declares_an_echo_never_answers_without_it(world: World, path: str, stream: bool) -> None:
    model, before = world.model(), wrong_models("unnamed")
    world.elsewhere.silent_echo = True
    assert await ask(world, model, path, stream=stream) == (503, "wrong_model")
    assert wrong_models("unnamed") == before + 1


async def test_an_engine_that_cannot_echo_answers_and_one_that_names_another_model_does_not(world: World) -> None:
    world.elsewhere.capabilities, world.elsewhere.silent_echo = (), True
    model = world.model()
    assert (await ask(world, model))[0] == 200
    world.elsewhere.base_digest, world.elsewhere.silent_echo = OTHER, False
    assert await ask(world, model) == (503, "wrong_model")


async def test_an_engine_that_refuses_as_it_has_another_base_is_no_fault_of_the_callers(world: World) -> None:
    world.elsewhere.refusal = (404, {"error": "not loaded here", "error_type": "base_not_found"})
    before = wrong_models("refused")
    assert await ask(world, BASE) == (503, "wrong_model")
    assert wrong_models("refused") == before + 1


async def test_a_base_without_a_living_replica_is_503_and_nothing_else_is(world: World) -> None:
    model = world.model()
    world.elsewhere.routes[BASE] = as_route(BASE, "", "", [])
    assert await ask(world, BASE) == (503, "model_loading")
    assert (await ask(world, model))[0] == 200
    del world.elsewhere.routes[BASE]
    assert (await ask(world, BASE))[0] == 200
