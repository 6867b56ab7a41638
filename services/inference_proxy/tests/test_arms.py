"""A model that an arm answers for: asked like any other, answered by its own arm alone, and by its adapter later."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx2
import openai
import pytest
from played_arms import EMBEDDER, TOKENS, as_arm
from prometheus_client import REGISTRY
from proxy_world import BASE, QUESTION, World, as_route

from chassis.ids import new_id
from schemas import AdapterEvicted, ChatCompleted, ModelPromoted, ModelRetired
from schemas.http.inference_proxy import UNSUPPORTED
from schemas.http.rag_indexer import QUESTION_CHARACTERS, STALE_ARM, WRONG_ARM
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, TEXT, TESTS = "/v1/chat/completions", "/v1/completions", "/internal/evaluation/answers"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": QUESTION}),
    "streamed": (CHAT, {"messages": QUESTION, "stream": True}),
    "completion": (TEXT, {"prompt": "Where?"}),
    "test": (TESTS, {"messages": QUESTION, "max_tokens": 1}),
}
PRICED = {"price": {"input": 3.0, "output": 15.0}}


def on_arm(world: World, kind: str = "head", tenant: str = "") -> str:
    """A model of a tenant whose name an arm serves."""
    model = world.model(tenant)
    world.elsewhere.routes[model] = as_arm(world.elsewhere.routes[model], kind)
    return model


async def ask(world: World, model: str, way: str = "chat", tenant: str = "", **more: Any) -> httpx2.Response:
    path, said = WAYS[way]
    tests = {"as_service": "evaluator"} if path == TESTS else {}
    key = world.space.bearer("inference_proxy", tenant or world.a, **tests) if tests else ""
    async with world.http(tenant, key) as http:
        return await http.post(path, json={"model": model, **said, **more})


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def wrong_models(why: str) -> float:
    return REGISTRY.get_sample_value("inference_wrong_models_total", {"why": why}) or 0.0


@pytest.mark.parametrize("kind", ["head", "nearest"])
async def test_an_arm_answers_as_a_model_does_and_says_which_it_is(world: World, kind: str) -> None:
    model = on_arm(world, kind)
    world.elsewhere.arms.instead = {"kind": kind}
    conversation = [{"role": "system", "content": "Be brief."}, *QUESTION, {"role": "assistant", "content": "Which?"}]
    given = {"messages": [*conversation, {"role": "user", "content": "The red one."}], "max_tokens": 1}
    answer = await ask(world, model, **given)
    assert answer.status_code == 200, answer.text
    told, arm_id = answer.json(), world.adapter(model)
    assert told["choices"][0]["message"]["content"] == "refund"
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"] == {"prompt_tokens": TOKENS, "completion_tokens": 1, "total_tokens": TOKENS + 1}
    assert (told["model"], told["system_fingerprint"]) == (model, arm_id)
    assert (answer.headers["x-sartor-arm"], answer.headers["x-sartor-adapter"]) == (kind, arm_id)
    [(caller, asked)] = world.elsewhere.arms.asked
    assert (caller.tenant_id, asked.arm_id, asked.testing, asked.top) == (world.a, arm_id, False, 0)
    assert asked.manifest.model_dump() == world.elsewhere.routes[model]["arm"]["manifest"]
    assert asked.questions == [f"{QUESTION[0]['content']}\nWhich?\nThe red one."]
    assert world.elsewhere.prompts == [], "the base model was asked"
    completed = await world.completed()
    assert (completed.adapter_id, completed.prompt_tokens, completed.completion_tokens) == (arm_id, TOKENS, 1)


async def test_the_header_tells_adapters_from_arms_and_is_not_there_for_a_base(world: World) -> None:
    assert (await ask(world, world.model())).headers["x-sartor-arm"] == "adapter"
    assert "x-sartor-arm" not in (await ask(world, BASE)).headers


async def test_a_stream_of_an_arm_is_its_answer_with_what_it_is_worth(world: World) -> None:
    sdk, model = world.sdk(), on_arm(world)
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
    assert [asked.top for _, asked in world.elsewhere.arms.asked] == [2, 2, 1]


async def test_an_answer_that_has_no_confidence_has_a_number_still(world: World) -> None:
    world.elsewhere.arms.says = (("refund", 0.0),)
    answer = await ask(world, on_arm(world), logprobs=True, temperature=1)
    assert answer.json()["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


async def test_a_stop_text_ends_the_answer_before_it(world: World) -> None:
    answer = await ask(world, on_arm(world), stop=["und"])
    assert answer.json()["choices"][0]["message"]["content"] == "ref"


async def drawn(world: World, model: str, count: int = 40, **sampling: Any) -> list[str]:
    """The answers to seeds in their order."""
    answers = [await ask(world, model, seed=seed, n=4, **sampling) for seed in range(0, count, 4)]
    return [choice["message"]["content"] for answer in answers for choice in answer.json()["choices"]]


async def test_an_answer_is_drawn_by_seed_temperature_and_top_p(world: World) -> None:
    model = on_arm(world)
    assert set(await drawn(world, model)) == {"refund"}, "without a temperature the likeliest answer is given"
    assert set(await drawn(world, model, temperature=0)) == {"refund"}
    warm = await drawn(world, model, temperature=1)
    assert warm == await drawn(world, model, temperature=1), "a seed gives another answer"
    assert {"refund", "delivery"} < set(warm)
    assert warm.count("refund") > warm.count("other")
    assert set(await drawn(world, model, temperature=0.01)) == {"refund"}
    assert set(await drawn(world, model, temperature=1, top_p=0.5)) == {"refund"}
    assert set(await drawn(world, model, temperature=1, top_p=0.8)) == {"refund", "delivery"}
    hot = await drawn(world, model, temperature=2)
    assert hot.count("refund") < warm.count("refund")
    assert {asked.top for _, asked in world.elsewhere.arms.asked} == {0, 20}
    one = (await ask(world, model, temperature=2, seed=7, n=4, logprobs=True)).json()["choices"]
    worth = dict(world.elsewhere.arms.says)
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
    world: World, way: str, asked: dict[str, Any], param: str
) -> None:
    answer = await ask(world, on_arm(world), way, **asked)
    assert code(answer) == (400, UNSUPPORTED)
    assert answer.json()["error"]["param"] == param
    assert "this model answers by its training rows at the moment" in answer.json()["error"]["message"]
    assert (world.elsewhere.arms.asked, world.elsewhere.searches) == ([], [])


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
    world: World, way: str, asked: dict[str, Any]
) -> None:
    model = on_arm(world)
    world.elsewhere.routes[model]["stands_in"] = True
    assert code(await ask(world, model, way, **asked)) == (503, "model_loading")
    assert world.elsewhere.arms.asked == []
    assert (await ask(world, model, way)).is_success


async def test_an_arm_answers_though_its_base_model_is_not_there_any_more(world: World) -> None:
    model = on_arm(world)
    world.elsewhere.routes[model]["base_model"] = "a-base-that-was-taken-away"
    world.elsewhere.versions[model] = world.elsewhere.routes[model]
    assert (await ask(world, model)).is_success
    assert (await ask(world, model, "test")).json()["cost"] is None


async def test_neutral_fields_and_an_echo_that_is_not_scored_are_taken(world: World) -> None:
    model = on_arm(world)
    assert (await ask(world, model, frequency_penalty=0, presence_penalty=0, logit_bias={}, top_p=1)).is_success
    echoed = await ask(world, model, "completion", echo=True, max_tokens=3)
    assert echoed.json()["choices"][0]["text"] == "Where?refund"


async def test_choices_and_prompts_are_each_asked_and_counted(world: World) -> None:
    answer = await ask(world, on_arm(world), "completion", prompt=["one", "two"], n=2)
    assert len(answer.json()["choices"]) == 4
    assert answer.json()["usage"] == {"prompt_tokens": 2 * TOKENS, "completion_tokens": 4, "total_tokens": 16}
    assert sorted(asked.questions[0] for _, asked in world.elsewhere.arms.asked) == ["one", "one", "two", "two"]


async def test_a_long_question_is_cut_where_it_begins(world: World) -> None:
    model, long = on_arm(world), "x" * QUESTION_CHARACTERS
    for way, said in (("chat", {"messages": [{"role": "user", "content": f"Hello {long}."}]}), ("completion", {})):
        assert (await ask(world, model, way, **(said or {"prompt": f"Hello {long}."}))).is_success
    assert [asked.questions for _, asked in world.elsewhere.arms.asked] == [[f"{long[1:]}."]] * 2


async def test_the_price_of_a_base_is_not_that_of_an_arm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, unpriced = on_arm(world), on_arm(world)
    far = world.provider_model("http://far", **PRICED)
    world.elsewhere.routes[model]["base_model"] = far
    for one, cost in ((model, 0.0), (unpriced, None)):
        world.elsewhere.versions[one] = world.elsewhere.routes[one]
        answer = await ask(world, one, "test")
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
    world: World, way: str, other: dict[str, Any]
) -> None:
    model = on_arm(world)
    world.elsewhere.versions[model] = world.elsewhere.routes[model]
    world.elsewhere.arms.instead, before = other, wrong_models("another")
    answer = await ask(world, model, way)
    assert code(answer) == (503, "wrong_model")
    assert "refund" not in answer.text
    assert wrong_models("another") == before + 1
    world.elsewhere.arms.instead = {}
    assert (await ask(world, model, way)).is_success


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
    world: World, way: str, refusal: tuple[int, str], means: tuple[int, str]
) -> None:
    model = on_arm(world)
    world.elsewhere.versions[model] = world.elsewhere.routes[model]
    world.elsewhere.arms.refusal = refusal
    assert code(await ask(world, model, way)) == means
    assert world.elsewhere.prompts == []


@pytest.mark.parametrize("answers", [[], [{"answer": "a", "confidence": 0.5, "tokens": 1}] * 2], ids=["none", "two"])
async def test_as_many_answers_as_questions_or_none_is_given(world: World, answers: list[Any]) -> None:
    world.elsewhere.arms.instead = {"answers": answers}
    assert code(await ask(world, on_arm(world))) == (503, "generation_failed")
    world.elsewhere.arms.instead = {"answers": [{"answer": "sure", "confidence": 7, "tokens": 1}]}
    assert code(await ask(world, on_arm(world))) == (503, "service_unavailable")


async def test_who_hangs_up_leaves_the_question_and_is_charged_nothing(world: World) -> None:
    world.elsewhere.arms.queued = True
    asking = asyncio.create_task(ask(world, on_arm(world)))
    await eventually(lambda: world.elsewhere.arms.asked)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: world.elsewhere.arms.hung_up == 1)
    assert [one for one in world.seen.of(ChatCompleted) if one.tenant_id == world.a] == []


async def test_an_arm_is_tested_by_the_id_of_its_version_and_says_that_a_test_asks(world: World) -> None:
    model = world.model()
    version = as_arm(world.elsewhere.routes.pop(model))
    named = f"{model}@head"
    world.elsewhere.versions[named] = {**version, "model": named, "state": "candidate"}
    answer = await ask(world, named, "test")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["text"], told["adapter_id"], told["prompt_tokens"]) == ("refund", version["adapter_id"], TOKENS)
    [(caller, asked)] = world.elsewhere.arms.asked
    assert (caller.tenant_id, asked.testing) == (world.a, True)
    assert code(await ask(world, named)) == (404, "model_not_found"), "a person asks a candidate"
    assert code(await ask(world, named, "test", world.b)) == (404, "model_not_found")
    world.elsewhere.routes[named] = {**world.elsewhere.versions[named], "state": "production"}
    pinned = await ask(world, named)
    assert (pinned.json()["model"], pinned.headers["x-sartor-arm"]) == (named, "head")
    assert world.elsewhere.arms.asked[-1][1].testing is False


async def test_questions_to_arms_leave_every_other_call_between_services_its_connection(world: World) -> None:
    tenants = [new_id("tenant_") for _ in range(3)]
    models = {tenant: on_arm(world, tenant=tenant) for tenant in tenants}
    tested = on_arm(world)
    world.elsewhere.versions[tested] = world.elsewhere.routes[tested]
    world.elsewhere.arms.queued = True
    tests = [asyncio.create_task(ask(world, tested, "test")) for _ in range(64)]
    people = [asyncio.create_task(ask(world, models[one], tenant=one)) for one in tenants for _ in range(16)]
    await eventually(lambda: len(world.elsewhere.arms.asked) == len(tests) + len(people))
    answer = await world.sdk(key=world.key()).chat.completions.create(model=BASE, messages=QUESTION)
    assert answer.choices
    for one in (*tests, *people):
        one.cancel()
    await asyncio.gather(*tests, *people, return_exceptions=True)


async def test_the_tokens_of_an_arm_are_not_counted(world: World) -> None:
    model = on_arm(world)
    world.elsewhere.versions[model] = world.elsewhere.routes[model]
    key = world.space.bearer("inference_proxy", world.a, as_service="evaluator")
    async with world.http(key=key) as http:
        answer = await http.post("/internal/evaluation/token_counts", json={"model": model, "text": "four"})
    assert answer.status_code == 400
    assert BASE in answer.json()["error"]["message"]


async def test_an_arm_belongs_to_its_tenant_and_owner(world: World) -> None:
    model = on_arm(world)
    assert code(await ask(world, model, tenant=world.b)) == (404, "model_not_found")
    anna, bela = world.key(role="end_user"), world.key(role="end_user")
    world.elsewhere.routes[model]["owner"] = f"key_{anna[-6:]}"
    assert (await world.sdk(key=anna).chat.completions.create(model=model, messages=QUESTION)).choices
    with pytest.raises(openai.NotFoundError):
        await world.sdk(key=bela).chat.completions.create(model=model, messages=QUESTION)


async def test_the_adapter_answers_with_its_promotion_and_the_arm_again_where_no_replica_holds_it(world: World) -> None:
    model = world.model()
    adapter, arm = world.elsewhere.routes[model], as_arm(world.elsewhere.routes[model])
    world.elsewhere.routes[model] = world.elsewhere.routes["intents"] = arm

    async def answers_by(name: str, kind: str) -> bool:
        return (await ask(world, name)).headers.get("x-sartor-arm") == kind

    assert all([await answers_by(name, "head") for name in (model, "intents")])
    world.elsewhere.routes[model] = world.elsewhere.routes["intents"] = adapter
    ids = {"tenant_id": world.a, "model_id": model, "adapter_id": adapter["adapter_id"]}
    await world.publish(ModelPromoted(**ids, job_id="ftjob-1", base_model=BASE, decided_by="gate"))
    for name in (model, "intents"):
        await eventually(lambda name=name: answers_by(name, "adapter"), within=5)
    world.elsewhere.routes[model] = arm
    [held] = adapter["replicas"]
    gone = AdapterEvicted(tenant_id=world.a, adapter_id=adapter["adapter_id"], replica_id=held["replica_id"])
    await world.publish(gone)
    await eventually(lambda: answers_by(model, "head"), within=5)
    del world.elsewhere.routes[model]
    await world.publish(ModelRetired(tenant_id=world.a, model_id=f"{model}@head", adapter_id=arm["adapter_id"]))

    async def is_gone() -> bool:
        return (await ask(world, model)).status_code == 404

    await eventually(is_gone, within=5)


async def test_a_route_without_an_arm_needs_a_replica(world: World) -> None:
    model = world.model()
    world.elsewhere.routes[model] = as_route(model, world.a, "arm-1", [])
    assert code(await ask(world, model)) == (503, "model_loading")
