"""What an arm takes has a price of the installation's, beside what the base model reads and writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from arm_requests import ask, on_arm, on_shown, unsure
from played_arms import CPU_SECONDS
from proxy_harness import PROMPT_TOKENS, Harness

from inference_proxy.app import build
from inference_proxy.settings import Settings
from testkit import running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECOND = 0.008
"""What a second of processor time costs."""

LOOK = pytest.approx(CPU_SECONDS * SECOND)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def priced_url(shared: dict[str, Any]) -> AsyncIterator[str]:
    """A proxy that knows the price, beside the one that knows none."""
    peers = dict.fromkeys(("accounts_url", "registry_url", "rag_indexer_url"), shared["there"])
    more = {"key_cache_seconds": 3600, "inference_cpu_second_price": SECOND, **peers}
    async with running(build(shared["space"].settings(Settings, "inference_proxy", **more))) as url:
        yield url


@pytest.fixture
def priced(harness: Harness, priced_url: str) -> Harness:
    return replace(harness, url=priced_url)


def on_priced_base(harness: Harness, model: str) -> float:
    """Has the model stand on a base model with a price; what an answer of that one costs."""
    base = f"priced-{model[-8:]}"
    harness.stubs.prices[base] = {"input": 2.0, "output": 10.0}
    harness.stubs.routes[model]["base_model"] = base
    return (PROMPT_TOKENS * 2 + 3 * 10) / 1_000_000


@pytest.mark.parametrize("base", ["with a price", "without one", "taken away"])
async def test_an_arms_answer_costs_the_processor_time_it_took(priced: Harness, base: str) -> None:
    model = on_arm(priced)
    if base == "with a price":
        on_priced_base(priced, model)
    if base == "taken away":
        priced.stubs.routes[model]["base_model"] = "a-base-that-was-taken-away"
    assert (await ask(priced, model)).is_success
    assert (await priced.completed()).cost == LOOK


async def test_each_choice_costs_what_it_took(priced: Harness) -> None:
    assert (await ask(priced, on_arm(priced), n=3)).is_success
    assert (await priced.completed()).cost == pytest.approx(3 * CPU_SECONDS * SECOND)


async def test_a_test_is_told_it_too(priced: Harness) -> None:
    model = on_arm(priced)
    priced.stubs.versions[model] = priced.stubs.routes[model]
    assert (await ask(priced, model, "test")).json()["cost"] == LOOK


async def test_an_arm_that_was_sure_enough_costs_its_one_look(priced: Harness) -> None:
    assert (await ask(priced, unsure(priced, 0.5), n=3)).is_success
    assert (await priced.completed()).cost == LOOK


@pytest.mark.parametrize("adapter", [True, False])
async def test_what_an_unsure_arm_took_is_owed_beside_what_the_next_takes(priced: Harness, adapter: bool) -> None:
    model = unsure(priced, adapter=adapter)
    tokens = on_priced_base(priced, model)
    assert (await ask(priced, model)).headers["x-sartor-handed-over"].startswith("head;")
    assert (await priced.completed()).cost == pytest.approx(tokens + CPU_SECONDS * SECOND)


async def test_rows_that_are_shown_cost_that_they_were_looked_for(priced: Harness) -> None:
    model = on_shown(priced)
    tokens = on_priced_base(priced, model)
    assert (await ask(priced, model)).is_success
    assert (await priced.completed()).cost == pytest.approx(tokens + CPU_SECONDS * SECOND)


async def test_where_tokens_have_no_price_that_of_a_look_says_nothing(priced: Harness) -> None:
    assert (await ask(priced, unsure(priced))).is_success
    assert (await priced.completed()).cost is None


async def test_without_a_price_of_arms_they_cost_nothing_where_others_do(harness: Harness) -> None:
    model = unsure(harness)
    tokens = on_priced_base(harness, model)
    assert (await ask(harness, model)).is_success
    assert (await harness.completed()).cost == pytest.approx(tokens)
