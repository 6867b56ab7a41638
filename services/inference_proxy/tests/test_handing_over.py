"""A pinned arm that hands over: it gives the answers it is sure of, and the next gives the others, whole."""

from __future__ import annotations

from typing import Any

import pytest
from arm_requests import ask, code, on_arm, unsure
from played_arms import TOKENS
from played_provider import Provider
from prometheus_client import REGISTRY
from proxy_harness import BASE, PROMPT_TOKENS, QUESTION, Harness

from schemas import AdapterEvicted, ModelRetired
from schemas.http.inference_proxy import UNSUPPORTED
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

GENERATED = "In the shed."
"""What the engine played here answers."""


def handed_over(to: str) -> float:
    return REGISTRY.get_sample_value("inference_handed_over_total", {"arm": "head", "to": to}) or 0.0


@pytest.mark.parametrize("below", [0.25, 0.5])
async def test_an_arm_that_is_sure_enough_answers_itself_and_is_asked_once(harness: Harness, below: float) -> None:
    model = unsure(harness, below)
    answer = await ask(harness, model)
    assert answer.json()["choices"][0]["message"]["content"] == "refund"
    assert answer.headers["x-sartor-arm"] == "head"
    assert "x-sartor-handed-over" not in answer.headers
    assert (len(harness.stubs.arms.asked), harness.stubs.prompts) == (1, [])
    completed = await harness.completed()
    assert (completed.adapter_id, completed.handed_over) == (harness.adapter(model), None)


async def test_an_unsure_arm_leaves_the_answer_to_the_adapter_and_it_says_so(harness: Harness) -> None:
    model, before = unsure(harness, 0.51), handed_over("adapter")
    answer = await ask(harness, model)
    told, adapter_id = answer.json(), f"ad-{model[-8:]}"
    assert told["choices"][0]["message"]["content"] == GENERATED
    assert (told["model"], told["system_fingerprint"]) == (model, adapter_id)
    assert (answer.headers["x-sartor-arm"], answer.headers["x-sartor-adapter"]) == ("adapter", adapter_id)
    assert answer.headers["x-sartor-handed-over"] == "head;confidence=0.5"
    assert told["usage"]["prompt_tokens"] == PROMPT_TOKENS, "what the arm read is counted"
    [prompt] = harness.stubs.prompts
    assert prompt["parameters"]["adapter_id"] == adapter_id
    assert prompt["inputs"] == f"<user>{QUESTION[0]['content']}<assistant>", "not by the base model's template"
    assert "<end>" in prompt["parameters"]["stop"]
    completed = await harness.completed()
    assert (completed.adapter_id, completed.handed_over) == (adapter_id, "head")
    assert handed_over("adapter") == before + 1


async def test_without_an_adapter_in_production_the_base_model_is_the_next(harness: Harness) -> None:
    model, before = unsure(harness, adapter=False), handed_over("base")
    answer = await ask(harness, model)
    told = answer.json()
    assert told["choices"][0]["message"]["content"] == GENERATED
    assert (told["model"], told["system_fingerprint"]) == (model, f"base-{BASE}")
    assert (answer.headers["x-sartor-arm"], answer.headers["x-sartor-handed-over"]) == ("base", "head;confidence=0.5")
    assert harness.stubs.prompts[0]["parameters"]["adapter_id"] is None
    completed = await harness.completed()
    assert (completed.model, completed.adapter_id, completed.handed_over) == (model, None, "head")
    assert handed_over("base") == before + 1


async def test_the_base_model_is_the_next_at_its_own_price(harness: Harness) -> None:
    model, priced = unsure(harness, adapter=False), f"priced-{harness.a[-8:]}"
    harness.stubs.prices[priced] = {"input": 2.0, "output": 10.0}
    harness.stubs.routes[model]["base_model"] = priced
    assert (await ask(harness, model)).headers["x-sartor-arm"] == "base"
    completed = await harness.completed()
    assert (completed.model, completed.cost) == (model, pytest.approx((PROMPT_TOKENS * 2 + 3 * 10) / 1_000_000))


async def test_a_provider_who_took_the_base_models_name_is_told_nothing(harness: Harness, provider: Provider) -> None:
    model = unsure(harness, adapter=False)
    harness.stubs.routes[model]["base_model"] = harness.provider_model(provider.url)
    assert code(await ask(harness, model)) == (503, "base_model_replaced")
    assert provider.asked == []


async def test_where_the_base_model_is_gone_the_model_is_not(harness: Harness) -> None:
    model, before = unsure(harness, adapter=False), handed_over("nobody")
    harness.stubs.routes[model]["base_model"] = "a-base-that-was-taken-away"
    assert code(await ask(harness, model)) == (503, "base_model_missing")
    assert handed_over("nobody") == before + 1
    harness.stubs.arms.says = (("refund", 0.9),)
    assert (await ask(harness, model)).headers["x-sartor-arm"] == "head"


async def test_what_the_next_cannot_take_is_refused_by_it(harness: Harness) -> None:
    model, many = unsure(harness), QUESTION * 2049
    refused = await ask(harness, model, messages=many)
    assert code(refused) == (400, "context_length_exceeded")
    harness.stubs.arms.says = (("refund", 0.9),)
    assert (await ask(harness, model, messages=many)).is_success


async def test_a_stream_says_from_its_first_chunk_on_what_gives_it(harness: Harness) -> None:
    model = unsure(harness)
    stream = await harness.sdk().chat.completions.create(model=model, messages=QUESTION, stream=True, logprobs=True)
    assert stream.response.headers["x-sartor-handed-over"] == "head;confidence=0.5"
    chunks = [chunk async for chunk in stream]
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == GENERATED
    assert {one.system_fingerprint for one in chunks} == {f"ad-{model[-8:]}"}


@pytest.mark.parametrize("stream", [False, True])
async def test_all_choices_of_all_prompts_are_left_where_one_is_unsure(harness: Harness, stream: bool) -> None:
    model = unsure(harness)
    harness.stubs.arms.to = {"one": (("refund", 0.9),)}
    sdk, asked = harness.sdk(), {"model": model, "max_tokens": 9}
    sure: Any = await sdk.completions.create(**asked, prompt="one", n=2)
    assert [choice.text for choice in sure.choices] == ["refund", "refund"]
    told: Any = await sdk.completions.create(**asked, prompt=["one", "two"], n=2, stream=stream)
    parts = [part async for part in told] if stream else [told]
    texts = ["".join(c.text for part in parts for c in part.choices if c.index == at) for at in range(4)]
    assert texts == [GENERATED] * 4
    assert [one.questions for _, one in harness.stubs.arms.asked] == [["one"], ["one", "two"]]


async def test_sure_answers_are_drawn_and_told_with_what_they_are_worth_as_ever(harness: Harness) -> None:
    model = unsure(harness, 0.1)
    asked = {"temperature": 1, "seed": 3, "n": 4, "logprobs": True, "top_logprobs": 2}
    here, there = [(await ask(harness, one, **asked)).json() for one in (model, on_arm(harness))]
    assert here["choices"] == there["choices"]
    assert here["usage"] == {"prompt_tokens": TOKENS, "completion_tokens": 4, "total_tokens": TOKENS + 4}


async def test_nothing_is_drawn_that_the_arm_is_less_sure_of(harness: Harness) -> None:
    async def drawn(below: float) -> set[str]:
        model, asked = unsure(harness, below), {"temperature": 2, "n": 4, "logprobs": True, "top_logprobs": 3}
        answers = [(await ask(harness, model, seed=seed, **asked)).json() for seed in range(0, 40, 4)]
        choices = [choice for answer in answers for choice in answer["choices"]]
        assert {len(choice["logprobs"]["content"][0]["top_logprobs"]) for choice in choices} == {3}, "all are told"
        return {choice["message"]["content"] for choice in choices}

    assert await drawn(0.125) == {"refund", "delivery", "other"}
    assert await drawn(0.25) == {"refund", "delivery"}
    assert await drawn(0.5) == {"refund"}


async def test_what_the_arm_lacks_is_refused_before_it_is_asked(harness: Harness) -> None:
    model = unsure(harness)
    for more in ({"frequency_penalty": 1}, {"vector_store_ids": ["vs_1"]}):
        assert code(await ask(harness, model, **more)) == (400, UNSUPPORTED)
    for echo in ({"logprobs": 1}, {"max_tokens": 0}):
        assert code(await ask(harness, model, "completion", echo=True, **echo)) == (400, UNSUPPORTED)
    assert (harness.stubs.arms.asked, harness.stubs.prompts) == ([], [])


async def test_an_unsure_arm_gives_no_answer_while_no_replica_holds_the_next(harness: Harness) -> None:
    model, before = unsure(harness, held=False), handed_over("nobody")
    answer = await ask(harness, model)
    assert code(answer) == (503, "model_loading")
    assert handed_over("nobody") == before + 1
    assert "refund" not in answer.text
    harness.stubs.arms.says = (("refund", 0.9),)
    assert (await ask(harness, model)).is_success, "what it is sure of needs no replica"
    harness.stubs.arms.says = (("refund", 0.1),)
    harness.stubs.routes[model]["hand_over"]["replicas"] = harness.stubs.held(harness.stubs.url)

    async def answered() -> bool:
        return (await ask(harness, model)).is_success

    await eventually(answered)


@pytest.mark.parametrize("over", ["evicted", "retired"])
async def test_the_next_that_is_away_is_asked_no_more_and_the_arm_stays(harness: Harness, over: str) -> None:
    model = unsure(harness)
    assert (await ask(harness, model)).is_success
    facts = {"tenant_id": harness.a, "model_id": model, "adapter_id": f"ad-{model[-8:]}"}
    if over == "evicted":
        harness.stubs.routes[model]["hand_over"]["replicas"] = []
        await harness.publish(AdapterEvicted(**facts, replica_id="r1", reason="made room"))
    else:
        harness.stubs.routes[model]["hand_over"] = {"below": 0.6}
        await harness.publish(ModelRetired(**facts, job_id="ftjob-1", reason="over"))

    async def answers_otherwise() -> bool:
        answer = await ask(harness, model)
        if answer.is_success and answer.headers["x-sartor-arm"] == "adapter":
            return False
        assert over == "retired" or code(answer) == (503, "model_loading")
        assert over == "evicted" or answer.headers["x-sartor-arm"] == "base"
        return True

    await eventually(answers_otherwise)
    harness.stubs.arms.says = (("refund", 0.9),)
    assert (await ask(harness, model)).headers["x-sartor-arm"] == "head"


async def test_where_the_arm_is_away_nobody_answers_in_its_place(harness: Harness) -> None:
    model, harness.stubs.arms.refusal = unsure(harness), (503, "transient")
    assert (await ask(harness, model)).status_code == 503
    assert harness.stubs.prompts == []
