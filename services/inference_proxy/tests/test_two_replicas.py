"""Two replicas of the proxy: a limit holds over both, and both hear what ends a key or a route."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import openai
import pytest
import pytest_asyncio
from proxy_harness import BASE, QUESTION, Harness, StubPeers

from chassis.auth import hash_key
from inference_proxy.app import build
from inference_proxy.settings import Settings
from schemas import KeyRevoked, ModelRetired
from testkit import Space, eventually, running

LIMIT = 12


@pytest_asyncio.fixture
async def replicas(space: Space) -> AsyncIterator[list[Harness]]:
    stubs = StubPeers(space)
    async with AsyncExitStack() as open_:
        there = await open_.enter_async_context(running(stubs.app()))
        peers = dict.fromkeys(("accounts_url", "registry_url", "rag_indexer_url"), there)
        stubs.url = there
        urls = []
        for number in (1, 2):
            more = {"key_cache_seconds": 3600, "replica_id": f"proxy {number}", **peers}
            settings = space.settings(Settings, "inference_proxy", **more)
            urls.append(await open_.enter_async_context(running(build(settings))))
        publish = await open_.enter_async_context(space.publisher("registry"))
        first = Harness(space, urls[0], stubs, publish, None)
        yield [first, Harness(space, urls[1], stubs, publish, None, a=first.a, b=first.b)]


async def _answered(harness: Harness, key: str, model: str) -> bool:
    try:
        await harness.sdk(key=key).chat.completions.create(model=model, messages=QUESTION)
    except (openai.RateLimitError, openai.AuthenticationError, openai.NotFoundError):
        return False
    return True


@pytest.mark.parametrize("counted", ["requests_per_minute", "tokens_per_minute"])
async def test_what_one_replica_let_through_is_not_granted_again_by_the_other(
    replicas: list[Harness], counted: str
) -> None:
    first, second = replicas
    key, each = first.key(**{counted: LIMIT if counted == "requests_per_minute" else LIMIT * 20}), 0
    while await _answered(first, key, BASE):
        each += 1
    assert each >= LIMIT // 2
    more = 0

    async def refused() -> bool:
        nonlocal more
        if not await _answered(second, key, BASE):
            return True
        more += 1
        return False

    await eventually(refused, within=20, every=0.5)
    assert more <= 2, f"{more} after {each}"


async def test_both_replicas_hear_that_a_key_and_a_route_are_over(replicas: list[Harness]) -> None:
    first, second = replicas
    key, other, model = first.key(), first.key(), first.model()
    for harness in (first, second):
        assert await _answered(harness, key, model)
        assert await _answered(harness, other, model)
    del first.stubs.keys[hash_key(key)]
    async with first.space.publisher("accounts") as publish:
        await publish(KeyRevoked(tenant_id=first.a, key_id="key_1", key_hash=hash_key(key)))
    for harness in (first, second):

        async def shut_out(harness: Harness = harness) -> bool:
            return not await _answered(harness, key, BASE)

        await eventually(shut_out, within=10)
        assert await _answered(harness, other, model)
    told = first.stubs.routes.pop(model)
    await first.publish(ModelRetired(tenant_id=first.a, model_id=model, adapter_id=told["adapter_id"]))
    for harness in (first, second):

        async def gone(harness: Harness = harness) -> bool:
            return not await _answered(harness, other, model)

        await eventually(gone, within=5)
