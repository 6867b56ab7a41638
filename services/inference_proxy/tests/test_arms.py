"""A model that an arm answers for: asked like any other, answered by its own arm alone, and by its adapter later."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import openai
import pytest
from arm_requests import WAYS, ask, code, on_arm
from played_arms import EMBEDDER, TOKENS, as_arm
from prometheus_client import REGISTRY
from proxy_harness import BASE, QUESTION, Harness, as_route

from chassis.ids import new_id
from schemas import AdapterEvicted, ChatCompleted, ModelPinned, ModelPromoted, ModelRetired, ModelUnpinned
from schemas.http.inference_proxy import UNSUPPORTED
from schemas.http.rag_indexer import QUESTION_CHARACTERS, STALE_ARM, WRONG_ARM
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICED = {"price": {"input": 3.0, "output": 15.0}}


def wrong_models(why: str) -> float:
    return REGISTRY.get_sample_value("inference_wrong_models_total", {"why": why}) or 0.0


@pytest.mark.parametrize("kind", ["head", "nearest"])
async def test_an_arm_answers_as_a_model_does_and_says_which_it_is(harness: Harness, kind: str) -> None:
    model = on_arm(harness, kind)
    harness.stubs.arms.instead = {"kind": kind}
    conversation = [{"role": "system", "content": "Be brief."}, *QUESTION, {"role": "assistant", "content": "Which?"}]
    given = {"messages": [*conversation, {"role": "user", "content": "The red one."}], "max_tokens": 1}
    answer = await ask(harness, model, **given)
    assert answer.status_code == 200, answer.text
    told, arm_id = answer.json(), harness.adapter(model)
    assert told["choices"][0]["message"]["content"] == "refund"
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"] == {"prompt_tokens": TOKENS, "completion_tokens": 1, "total_tokens": TOKENS + 1}
    assert (told["model"], told["system_fingerprint"]) == (model, arm_id)
    assert (answer.headers["x-sartor-arm"], answer.headers["x-sartor-adapter"]) == (kind, arm_id)
    [(caller, asked)] = harness.stubs.arms.asked
    assert (caller.tenant_id, asked.arm_id, asked.testing, asked.top) == (harness.a, arm_id, False, 0)
    assert asked.manifest.model_dump() == harness.stubs.routes[model]["arm"]["manifest"]
    assert asked.questions == [f"{QUESTION[0]['content']}\nWhich?\nThe red one."]
    assert harness.stubs.prompts == [], "the base model was asked"
    completed = await harness.completed()
    assert (completed.adapter_id, completed.prompt_tokens, completed.completion_tokens) == (arm_id, TOKENS, 1)


async def test_the_header_tells_adapters_from_arms_and_is_not_there_for_a_base(harness: Harness) -> None:
    assert (await ask(harness, harness.model())).headers["x-sartor-arm"] == "adapter"
    assert "x-sartor-arm" not in (await ask(harness, BASE)).headers


async def test_a_stream_of_an_arm_is_its_answer_with_what_it_is_worth(harness: Harness) -> None:
    sdk, model = harness.sdk(), on_arm(harness)
    asked: dict[str, Any] = {"model": model, "messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    whole = (await sdk.chat.completions.create(**asked)).choices[0]
    stream = await sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == whole.message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 1
    assert whole.logprobs is not None
    [token] = whole.logprobs.content or []
    assert (token.token, token.bytes, token.logprob) == ("refund", list(b"refund"), math.log(0.5))
    assert [(one.token, one.logprob) for one in token.top_logprobs] == [
        ("refund", math.log(0.5)),
        ("delivery", math.log(0.25)),
    ]
    streamed = [one.choices[0].logprobs.content for one in chunks if one.choices and one.choices[0].logprobs]
    assert streamed == [whole.logprobs.content]
    text = await sdk.completions.create(model=model, prompt="Where?", logprobs=1)
    assert text.choices[0].logprobs is not None
    assert text.choices[0].logprobs.top_logprobs == [{"refund": math.log(0.5)}]
    assert [asked.top for _, asked in harness.stubs.arms.asked] == [2, 2, 1]


async def test_an_answer_that_has_no_confidence_has_a_number_still(harness: Harness) -> None:
    harness.stubs.arms.says = (("refund", 0.0),)
    answer = await ask(harness, on_arm(harness), logprobs=True, temperature=1)
    assert answer.json()["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


async def test_a_stop_text_ends_the_answer_before_it(harness: Harness) -> None:
    answer = await ask(harness, on_arm(harness), stop=["und"])
    assert answer.json()["choices"][0]["message"]["content"] == "ref"


async def drawn(harness: Harness, model: str, count: int = 40, **sampling: Any) -> list[str]:
    """The answers to seeds in their order."""
    answers = [await ask(harness, model, seed=seed, n=4, **sampling) for seed in range(0, count, 4)]
    return [choice["message"]["content"] for answer in answers for choice in answer.json()["choices"]]


async def test_an_answer_is_drawn_by_seed_temperature_and_top_p(harness: Harness) -> None:
    model = on_arm(harness)
    assert set(await drawn(harness, model)) == {"refund"}, "without a temperature the likeliest answer is given"
    assert set(await drawn(harness, model, temperature=0)) == {"refund"}
    warm = await drawn(harness, model, temperature=1)
    assert warm == await drawn(harness, model, temperature=1), "a seed gives another answer"
    assert {"refund", "delivery"} < set(warm)
    assert warm.count("refund") > warm.count("other")
    assert set(await drawn(harness, model, temperature=0.01)) == {"refund"}
    assert set(await drawn(harness, model, temperature=1, top_p=0.5)) == {"refund"}
    assert set(await drawn(harness, model, temperature=1, top_p=0.8)) == {"refund", "delivery"}
    hot = await drawn(harness, model, temperature=2)
    assert hot.count("refund") < warm.count("refund")
    assert {asked.top for _, asked in harness.stubs.arms.asked} == {0, 20}
    one = (await ask(harness, model, temperature=2, seed=7, n=4, logprobs=True)).json()["choices"]
    worth = dict(harness.stubs.arms.says)
    for choice in one:
        [token] = choice["logprobs"]["content"]
        assert token["logprob"] == math.log(worth[choice["message"]["content"]]), "an answer has another's confidence"
        assert token["top_logprobs"] == [], "nobody asked for others"


@pytest.mark.parametrize(
    ("way", "asked", "param"),
    [
        ("chat", {"logit_bias": {"5": 1}}, "logit_bias"),
        ("chat", {"logit_bias": {"99999999": 1}}, "logit_bias"),
        ("chat", {"frequency_penalty": 1}, "frequency_penalty"),
        ("streamed", {"presence_penalty": -1}, "presence_penalty"),
        ("completion", {"echo": True, "logprobs": 0}, "echo"),
        ("completion", {"echo": True, "max_tokens": 0}, "echo"),
        ("chat", {"vector_store_ids": ["vs_1"]}, "vector_store_ids"),
        ("chat", {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "vector_store_ids"),
    ],
)
async def test_what_has_no_meaning_for_an_arm_is_refused_by_name(
    harness: Harness, way: str, asked: dict[str, Any], param: str
) -> None:
    answer = await ask(harness, on_arm(harness), way, **asked)
    assert code(answer) == (400, UNSUPPORTED)
    assert answer.json()["error"]["param"] == param
    assert "this model answers by its training rows at the moment" in answer.json()["error"]["message"]
    assert (harness.stubs.arms.asked, harness.stubs.searches) == ([], [])


@pytest.mark.parametrize(
    ("way", "asked"),
    [
        ("chat", {"frequency_penalty": 1}),
        ("streamed", {"presence_penalty": -1}),
        ("completion", {"echo": True, "logprobs": 0}),
        ("chat", {"vector_store_ids": ["vs_1"]}),
    ],
)
async def test_what_the_adapter_would_take_is_not_refused_for_good_while_an_arm_stands_in_for_it(
    harness: Harness, way: str, asked: dict[str, Any]
) -> None:
    model = on_arm(harness)
    harness.stubs.routes[model]["stands_in"] = True
    assert code(await ask(harness, model, way, **asked)) == (503, "model_loading")
    assert harness.stubs.arms.asked == []
    assert (await ask(harness, model, way)).is_success


async def test_an_arm_answers_though_its_base_model_is_not_there_any_more(harness: Harness) -> None:
    model = on_arm(harness)
    harness.stubs.routes[model]["base_model"] = "a-base-that-was-taken-away"
    harness.stubs.versions[model] = harness.stubs.routes[model]
    assert (await ask(harness, model)).is_success
    assert (await ask(harness, model, "test")).json()["cost"] is None


async def test_neutral_fields_and_an_echo_that_is_not_scored_are_taken(harness: Harness) -> None:
    model = on_arm(harness)
    assert (await ask(harness, model, frequency_penalty=0, presence_penalty=0, logit_bias={}, top_p=1)).is_success
    echoed = await ask(harness, model, "completion", echo=True, max_tokens=3)
    assert echoed.json()["choices"][0]["text"] == "Where?refund"


async def test_choices_and_prompts_are_each_asked_and_counted(harness: Harness) -> None:
    answer = await ask(harness, on_arm(harness), "completion", prompt=["one", "two"], n=2)
    assert len(answer.json()["choices"]) == 4
    assert answer.json()["usage"] == {"prompt_tokens": 2 * TOKENS, "completion_tokens": 4, "total_tokens": 16}
    assert sorted(asked.questions[0] for _, asked in harness.stubs.arms.asked) == ["one", "one", "two", "two"]


async def test_a_long_question_is_cut_where_it_begins(harness: Harness) -> None:
    model, long = on_arm(harness), "x" * QUESTION_CHARACTERS
    for way, said in (("chat", {"messages": [{"role": "user", "content": f"Hello {long}."}]}), ("completion", {})):
        assert (await ask(harness, model, way, **(said or {"prompt": f"Hello {long}."}))).is_success
    assert [asked.questions for _, asked in harness.stubs.arms.asked] == [[f"{long[1:]}."]] * 2


async def test_the_price_of_a_base_is_not_that_of_an_arm(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    model, unpriced = on_arm(harness), on_arm(harness)
    far = harness.provider_model("http://far", **PRICED)
    harness.stubs.routes[model]["base_model"] = far
    for one, cost in ((model, 0.0), (unpriced, None)):
        harness.stubs.versions[one] = harness.stubs.routes[one]
        answer = await ask(harness, one, "test")
        assert answer.status_code == 200, answer.text
        assert (answer.json()["cost"], answer.json()["completion_tokens"]) == (cost, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "other",
    [
        {"arm_id": "arm-of-somebody-else"},
        {"kind": "nearest"},
        {"embedder": {**EMBEDDER, "digest": "e" * 64}},
        {"embedder": {**EMBEDDER, "id": "other"}},
    ],
    ids=["another arm", "another kind", "other weights", "another embedder"],
)
async def test_no_word_is_given_of_what_is_not_the_arm_of_the_route(
    harness: Harness, way: str, other: dict[str, Any]
) -> None:
    model = on_arm(harness)
    harness.stubs.versions[model] = harness.stubs.routes[model]
    harness.stubs.arms.instead, before = other, wrong_models("another")
    answer = await ask(harness, model, way)
    assert code(answer) == (503, "wrong_model")
    assert "refund" not in answer.text
    assert wrong_models("another") == before + 1
    harness.stubs.arms.instead = {}
    assert (await ask(harness, model, way)).is_success


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("refusal", "means"),
    [
        ((409, STALE_ARM), (503, "wrong_model")),
        ((409, WRONG_ARM), (503, "wrong_model")),
        ((403, "insufficient_permissions"), (503, "wrong_model")),
        ((404, "arm_not_found"), (503, "arm_gone")),
        ((422, ""), (503, "generation_failed")),
        ((429, "rate_limit_exceeded"), (429, "rate_limit_exceeded")),
        ((503, "service_unavailable"), (503, "service_unavailable")),
    ],
)
async def test_a_refusal_of_the_arm_is_no_answer_of_the_base(
    harness: Harness, way: str, refusal: tuple[int, str], means: tuple[int, str]
) -> None:
    model = on_arm(harness)
    harness.stubs.versions[model] = harness.stubs.routes[model]
    harness.stubs.arms.refusal = refusal
    assert code(await ask(harness, model, way)) == means
    assert harness.stubs.prompts == []


@pytest.mark.parametrize("answers", [[], [{"answer": "a", "confidence": 0.5, "tokens": 1}] * 2], ids=["none", "two"])
async def test_as_many_answers_as_questions_or_none_is_given(harness: Harness, answers: list[Any]) -> None:
    harness.stubs.arms.instead = {"answers": answers}
    assert code(await ask(harness, on_arm(harness))) == (503, "generation_failed")
    harness.stubs.arms.instead = {"answers": [{"answer": "sure", "confidence": 7, "tokens": 1}]}
    assert code(await ask(harness, on_arm(harness))) == (503, "service_unavailable")


async def test_who_hangs_up_leaves_the_question_and_is_charged_nothing(harness: Harness) -> None:
    harness.stubs.arms.queued = True
    asking = asyncio.create_task(ask(harness, on_arm(harness)))
    await eventually(lambda: harness.stubs.arms.asked)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: harness.stubs.arms.hung_up == 1)
    assert [one for one in harness.seen.of(ChatCompleted) if one.tenant_id == harness.a] == []


async def test_an_arm_is_tested_by_the_id_of_its_version_and_says_that_a_test_asks(harness: Harness) -> None:
    model = harness.model()
    version = as_arm(harness.stubs.routes.pop(model))
    named = f"{model}@head"
    harness.stubs.versions[named] = {**version, "model": named, "state": "candidate"}
    answer = await ask(harness, named, "test")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["text"], told["adapter_id"], told["prompt_tokens"]) == ("refund", version["adapter_id"], TOKENS)
    assert told["confidence"] == 0.5
    [(caller, asked)] = harness.stubs.arms.asked
    assert (caller.tenant_id, asked.testing) == (harness.a, True)
    assert code(await ask(harness, named)) == (404, "model_not_found"), "a person asks a candidate"
    assert code(await ask(harness, named, "test", harness.b)) == (404, "model_not_found")
    harness.stubs.routes[named] = {**harness.stubs.versions[named], "state": "production"}
    pinned = await ask(harness, named)
    assert (pinned.json()["model"], pinned.headers["x-sartor-arm"]) == (named, "head")
    assert harness.stubs.arms.asked[-1][1].testing is False


async def test_questions_to_arms_leave_every_other_call_between_services_its_connection(harness: Harness) -> None:
    tenants = [new_id("tenant_") for _ in range(3)]
    models = {tenant: on_arm(harness, tenant=tenant) for tenant in tenants}
    tested = on_arm(harness)
    harness.stubs.versions[tested] = harness.stubs.routes[tested]
    harness.stubs.arms.queued = True
    tests = [asyncio.create_task(ask(harness, tested, "test")) for _ in range(64)]
    people = [asyncio.create_task(ask(harness, models[one], tenant=one)) for one in tenants for _ in range(16)]
    await eventually(lambda: len(harness.stubs.arms.asked) == len(tests) + len(people))
    answer = await harness.sdk(key=harness.key()).chat.completions.create(model=BASE, messages=QUESTION)
    assert answer.choices
    for one in (*tests, *people):
        one.cancel()
    await asyncio.gather(*tests, *people, return_exceptions=True)


async def test_the_tokens_of_an_arm_are_not_counted(harness: Harness) -> None:
    model = on_arm(harness)
    harness.stubs.versions[model] = harness.stubs.routes[model]
    key = harness.space.bearer("inference_proxy", harness.a, as_service="evaluator")
    async with harness.http(key=key) as http:
        answer = await http.post("/internal/evaluation/token_counts", json={"model": model, "text": "four"})
    assert answer.status_code == 400
    assert BASE in answer.json()["error"]["message"]


async def test_an_arm_belongs_to_its_tenant_and_owner(harness: Harness) -> None:
    model = on_arm(harness)
    assert code(await ask(harness, model, tenant=harness.b)) == (404, "model_not_found")
    anna, bela = harness.key(role="end_user"), harness.key(role="end_user")
    harness.stubs.routes[model]["owner"] = f"key_{anna[-6:]}"
    assert (await harness.sdk(key=anna).chat.completions.create(model=model, messages=QUESTION)).choices
    with pytest.raises(openai.NotFoundError):
        await harness.sdk(key=bela).chat.completions.create(model=model, messages=QUESTION)


async def test_the_adapter_answers_with_its_promotion_or_a_pin_and_the_arm_again_where_no_replica_holds_it(
    harness: Harness,
) -> None:
    model = harness.model()
    adapter, arm = harness.stubs.routes[model], as_arm(harness.stubs.routes[model])
    harness.stubs.routes[model] = harness.stubs.routes["intents"] = arm

    async def answers_by(name: str, kind: str) -> bool:
        return (await ask(harness, name)).headers.get("x-sartor-arm") == kind

    assert all([await answers_by(name, "head") for name in (model, "intents")])
    harness.stubs.routes[model] = harness.stubs.routes["intents"] = adapter
    ids = {"tenant_id": harness.a, "model_id": model, "adapter_id": adapter["adapter_id"]}
    await harness.publish(ModelPromoted(**ids, job_id="ftjob-1", base_model=BASE, decided_by="gate"))
    for name in (model, "intents"):
        await eventually(lambda name=name: answers_by(name, "adapter"), within=5)
    harness.stubs.routes[model] = arm
    [held] = adapter["replicas"]
    gone = AdapterEvicted(tenant_id=harness.a, adapter_id=adapter["adapter_id"], replica_id=held["replica_id"])
    await harness.publish(gone)
    await eventually(lambda: answers_by(model, "head"), within=5)
    harness.stubs.routes[model] = adapter
    pins = {"tenant_id": harness.a, "job_id": "ftjob-1", "name": model, "decided_by": "user_1"}
    await harness.publish(ModelPinned(**pins, model_id=model, revision=1))
    await eventually(lambda: answers_by(model, "adapter"), within=5)
    harness.stubs.routes[model] = arm
    await harness.publish(ModelUnpinned(**pins, model_id=model, revision=2))
    await eventually(lambda: answers_by(model, "head"), within=5)
    del harness.stubs.routes[model]
    await harness.publish(ModelRetired(tenant_id=harness.a, model_id=f"{model}@head", adapter_id=arm["adapter_id"]))

    async def is_gone() -> bool:
        return (await ask(harness, model)).status_code == 404

    await eventually(is_gone, within=5)


async def test_a_route_without_an_arm_needs_a_replica(harness: Harness) -> None:
    model = harness.model()
    harness.stubs.routes[model] = as_route(model, harness.a, "arm-1", [])
    assert code(await ask(harness, model)) == (503, "model_loading")
