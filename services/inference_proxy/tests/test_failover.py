"""A replica that is away, or is not the model asked: another one is asked, once, where nobody was told a word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from proxy_harness import BASE, QUESTION, Harness, StubPeers, as_route

from chassis.ids import new_id
from inference_proxy.app import build
from inference_proxy.settings import Settings
from testkit import Space, running
from testkit.running import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, TEXT, TESTS = "/v1/chat/completions", "/v1/completions", "/internal/evaluation"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": QUESTION}),
    "streamed": (CHAT, {"messages": QUESTION, "stream": True}),
    "echo": (TEXT, {"prompt": "Where?", "echo": True, "logprobs": 0, "max_tokens": 5}),
    "test": (f"{TESTS}/answers", {"messages": QUESTION, "max_tokens": 7}),
    "token count": (f"{TESTS}/token_counts", {"text": "Where?"}),
}


@dataclass
class Second:
    """Another replica of the engine, which a test may break.

    Attributes:
        engine: the replica.
        url: where it is.
    """

    engine: StubPeers
    url: str
    gone: str = field(default_factory=lambda: f"http://127.0.0.1:{free_port()}")

    @property
    def asked(self) -> int:
        return len(self.engine.prompts) + len(self.engine.scored) + len(self.engine.counted)


@pytest_asyncio.fixture(loop_scope="module")
async def second(harness: Harness) -> AsyncIterator[Second]:
    engine = StubPeers(harness.space)
    async with running(engine.app()) as url:
        yield Second(engine, url)


def on(harness: Harness, *urls: str) -> str:
    """A model of the tenant on replicas that no other test knows."""
    model = harness.model()
    held = [{**one, "replica_id": new_id("r")} for one in harness.stubs.held(*urls)]
    harness.stubs.routes[model] = as_route(model, harness.a, f"ad-{model[-8:]}", held)
    harness.stubs.versions[model] = harness.stubs.routes[model]
    return model


async def ask(harness: Harness, model: str, way: str) -> tuple[int, str]:
    path, said = WAYS[way]
    key = harness.space.bearer("inference_proxy", harness.a, as_service="evaluator") if path.startswith(TESTS) else ""
    async with harness.http(key=key) as http:
        answer = await http.post(path, json={"model": model, **said})
    return answer.status_code, answer.text


@pytest.mark.parametrize("way", WAYS)
async def test_where_one_replica_is_gone_the_other_answers(harness: Harness, second: Second, way: str) -> None:
    model = on(harness, second.gone, harness.stubs.url)
    for _ in range(4):
        status, text = await ask(harness, model, way)
        assert status == 200, text
        assert "error" not in text


@pytest.mark.parametrize("way", WAYS)
async def test_where_one_replica_has_another_base_the_other_answers_and_it_is_left_alone(
    harness: Harness, second: Second, way: str
) -> None:
    second.engine.base_digest = "e" * 64
    model = on(harness, second.url, harness.stubs.url)
    for _ in range(4):
        status, text = await ask(harness, model, way)
        assert status == 200, text
        assert "error" not in text
    assert second.asked == 1


@pytest.mark.parametrize("way", WAYS)
async def test_where_neither_can_answer_each_is_asked_once(harness: Harness, second: Second, way: str) -> None:
    second.engine.base_digest = harness.stubs.base_digest = "e" * 64
    model = on(harness, second.url, harness.stubs.url)
    status, text = await ask(harness, model, way)
    assert status == 503, text
    first = harness.stubs
    assert (second.asked, len(first.prompts) + len(first.scored) + len(first.counted)) == (1, 1)


async def test_a_replica_that_dies_in_the_middle_of_a_word_is_not_covered_up(harness: Harness, second: Second) -> None:
    path, said = WAYS["streamed"]
    harness.stubs.breaks = second.engine.breaks = "cut"
    model, told = on(harness, second.url, harness.stubs.url), ""
    async with harness.http() as http, http.stream("POST", path, json={"model": model, **said}) as answer:
        assert answer.status_code == 200
        async for text in answer.aiter_text():
            told += text
            harness.stubs.dies = second.engine.dies = "shed" in told
    assert told.count("shed") == 1, "the answer began again"
    assert '"error"' in told
    assert "[DONE]" not in told
    assert len(harness.stubs.prompts) + len(second.engine.prompts) == 1


async def test_what_took_all_its_time_is_not_asked_again(space: Space) -> None:
    stubs = StubPeers(space, queued=True)
    async with AsyncExitStack() as open_:
        there = stubs.url = await open_.enter_async_context(running(stubs.app()))
        also_there = await open_.enter_async_context(running(stubs.app()))
        peers = dict.fromkeys(("accounts_url", "registry_url", "rag_indexer_url"), there)
        settings = space.settings(Settings, "inference_proxy", inference_seconds=0.5, **peers)
        url = await open_.enter_async_context(running(build(settings)))
        harness = Harness(space, url, stubs, None, None)
        stubs.routes[BASE] = as_route(BASE, "", "", stubs.held(there, also_there))
        assert (await ask(harness, BASE, "chat"))[0] == 503
    assert len(stubs.prompts) == 1
