"""`echo`: what a given text is worth, in OpenAI's shape, from whichever engine can tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import openai
import pytest
from openai._models import validate_type
from openai.types import Completion
from played_provider import PROMPT_TOKENS, Provider
from proxy_harness import BASE, DIGEST, Harness

from inference_proxy.engines import Accepted, Prompt, PromptTooLong, Scored, Target
from inference_proxy.engines.openai import OpenAIEngine
from inference_proxy.engines.tgi import TGIEngine
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "Where is 龘靐?"
PATH = "/v1/completions"
SCORED = {"model": BASE, "prompt": TEXT, "echo": True, "logprobs": 2, "max_tokens": 0}


async def ask(harness: Harness, **body: Any) -> dict[str, Any]:
    async with harness.http() as http:
        answer = await http.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def refused(harness: Harness, **body: Any) -> tuple[int, str | None, str]:
    async with harness.http() as http:
        answer = await http.post(PATH, json=body)
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


async def test_a_text_is_told_with_what_each_of_its_tokens_is_worth(harness: Harness) -> None:
    told = await ask(harness, **SCORED)
    [choice] = told["choices"]
    assert (choice["text"], choice["finish_reason"]) == (TEXT, "length")
    logprobs = choice["logprobs"]
    assert set(logprobs) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    count = -(-len(TEXT.encode()) // 3)
    assert {len(listed) for listed in logprobs.values()} == {count}
    assert logprobs["token_logprobs"] == [None, *[-0.25] * (count - 1)]
    assert logprobs["top_logprobs"] == [None, *[{"x": -0.125}] * (count - 1)]
    assert logprobs["tokens"][:4] == ["Whe", "re ", "is ", "龘"]
    assert logprobs["text_offset"][:5] == [0, 3, 6, 9, 10]
    assert told["usage"] == {"prompt_tokens": count + 1, "completion_tokens": 0, "total_tokens": count + 1}
    assert harness.stubs.prompts == [], "something was generated"
    [body] = harness.stubs.scored
    assert (body["inputs"], body["parameters"]["adapter_id"], body["parameters"]["top_n_tokens"]) == (TEXT, None, 2)
    completed = await harness.completed()
    assert (completed.prompt_tokens, completed.completion_tokens) == (count + 1, 0)


async def test_the_sdk_takes_the_shape_but_for_the_first_tokens_null(harness: Harness) -> None:
    """OpenAI's API says null where the SDK's types allow none: there a strict client sees no other difference."""
    told = await ask(harness, **SCORED)
    logprobs = told["choices"][0]["logprobs"]
    logprobs["token_logprobs"][0], logprobs["top_logprobs"][0] = 0.0, {}
    assert validate_type(type_=Completion, value=told).choices[0].text == TEXT
    lenient = await harness.sdk().completions.create(**SCORED)
    assert lenient.choices[0].logprobs is not None
    assert lenient.choices[0].logprobs.token_logprobs is not None
    assert lenient.choices[0].logprobs.token_logprobs[:2] == [None, -0.25]
    credential = harness.space.bearer("inference_proxy", harness.a)
    strict = openai.AsyncOpenAI(api_key=credential, base_url=f"{harness.url}/v1", _strict_response_validation=True)
    plain = await strict.completions.create(model=BASE, prompt=TEXT, echo=True, max_tokens=0)
    assert (plain.choices[0].text, plain.choices[0].logprobs) == (TEXT, None)
    assert plain.usage is not None
    assert plain.usage.completion_tokens == 0
    both = await strict.completions.create(model=BASE, prompt=TEXT, echo=True, max_tokens=5)
    assert both.choices[0].text == f"{TEXT}In the shed."


@pytest.mark.parametrize("tuned", [False, True], ids=["base", "tuned"])
async def test_the_model_that_is_asked_reads_the_text(harness: Harness, tuned: bool) -> None:
    model = harness.model() if tuned else BASE
    await ask(harness, **{**SCORED, "model": model})
    [body] = harness.stubs.scored
    assert body["parameters"]["adapter_id"] == (harness.adapter(model) if tuned else None)


async def test_an_answer_goes_on_after_its_prompt(harness: Harness) -> None:
    told = await ask(harness, **{**SCORED, "max_tokens": 9, "logprobs": 1})
    [choice] = told["choices"]
    assert (choice["text"], choice["finish_reason"]) == (f"{TEXT}In the shed.", "stop")
    logprobs = choice["logprobs"]
    assert logprobs["tokens"][-3:] == ["In ", "the ", "shed."]
    assert logprobs["text_offset"][-3:] == [len(TEXT), len(TEXT) + 3, len(TEXT) + 7]
    assert logprobs["token_logprobs"].count(None) == 1
    assert told["usage"]["completion_tokens"] == 3


async def test_stops_and_choices_are_of_what_comes_after_the_prompt(harness: Harness) -> None:
    prompts = ["the first", "the second"]
    told = await ask(harness, model=BASE, prompt=prompts, echo=True, n=2, stop="the", logprobs=0)
    assert [one["text"] for one in told["choices"]] == [f"{prompt}In " for prompt in prompts for _ in range(2)]
    assert [one["logprobs"]["token_logprobs"][0] for one in told["choices"]] == [None] * 4


@pytest.mark.parametrize("most", [0, 9])
@pytest.mark.parametrize("logprobs", [None, 2])
async def test_a_streamed_echo_says_what_a_whole_one_says(harness: Harness, most: int, logprobs: int | None) -> None:
    body = {**SCORED, "max_tokens": most, "logprobs": logprobs}
    [whole] = (await ask(harness, **body))["choices"]
    async with harness.http() as http:
        answer = await http.post(PATH, json={**body, "stream": True, "stream_options": {"include_usage": True}})
    assert answer.text.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    parts = [choice for one in events for choice in one["choices"]]
    assert "".join(one["text"] for one in parts) == whole["text"]
    assert parts[-1]["finish_reason"] == whole["finish_reason"]
    named = [one["logprobs"] for one in parts if one["logprobs"]]
    if logprobs is None:
        assert (named, whole["logprobs"]) == ([], None)
    else:
        joined = {name: [one for told in named for one in told[name]] for name in named[0]}
        assert joined == whole["logprobs"]
    assert events[-1]["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": False}, "max_tokens"),
        ({"max_tokens": -1, "echo": True}, "max_tokens"),
        ({"logprobs": 6, "echo": True}, "logprobs"),
        ({"echo": True, "max_tokens": 0, "prompt": ["x"] * 17}, "prompt"),
    ],
    ids=str,
)
async def test_what_means_nothing_is_refused_by_name(harness: Harness, body: dict[str, Any], param: str) -> None:
    assert (await refused(harness, **{"model": BASE, "prompt": "x", **body}))[:2] == (400, param)
    assert harness.stubs.scored == []


async def test_a_text_that_does_not_fit_the_context_is_refused(harness: Harness) -> None:
    said = {"error": "`inputs` must have less than 2048 tokens. Given: 9999", "error_type": "validation"}
    harness.stubs.refusal = (422, said)
    async with harness.http() as http:
        answer = await http.post(PATH, json=SCORED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    harness.stubs.refusal = (404, {"error": "not loaded", "error_type": "adapter_not_found"})
    assert (await refused(harness, **SCORED))[0] == 503


async def test_tgi_tells_of_a_prompt_without_its_likeliest_tokens(harness: Harness) -> None:
    harness.stubs.beyond_tgi = ()
    status, param, message = await refused(harness, **{**SCORED, "prompt": "Where is it?"})
    assert (status, param) == (400, "logprobs")
    assert "logprobs=0" in message
    [choice] = (await ask(harness, **{**SCORED, "prompt": "Where is it?", "logprobs": 0}))["choices"]
    assert choice["logprobs"]["tokens"] == ["Where ", "is ", "it?"]
    assert choice["logprobs"]["token_logprobs"] == [None, -0.25, -0.25]
    assert choice["logprobs"]["text_offset"] == [0, 6, 9]


async def test_a_text_that_begins_like_the_begin_of_text_token_keeps_its_first_token(harness: Harness) -> None:
    engine, target = TGIEngine(5), Target(BASE, harness.stubs.url, base_digest=DIGEST)
    await engine.open()
    try:
        scored = await anext(engine.score(target, Prompt("prompt", text="<s>abc"), 0))
        assert "".join(piece.text for piece in scored.pieces) == "<s>abc"
        harness.stubs.refusal = (413, {"error": "too large", "error_type": "validation"})
        with pytest.raises(PromptTooLong):
            await anext(engine.score(target, Prompt("prompt", text="x"), 0))
    finally:
        await engine.close()


async def test_a_provider_scores_only_where_its_description_says_so(harness: Harness, provider: Provider) -> None:
    provider.words = (b"In ", b"the ", b"shed.")
    price = {"input": 2.0, "output": 10.0}
    able = harness.provider_model(provider.url, completions=True, scores=True, price=price)
    unable = harness.provider_model(provider.url, completions=True)
    asked = {**SCORED, "prompt": "In the shed."}
    status, param, _ = await refused(harness, **{**asked, "model": unable})
    assert (status, param) == (400, "echo")
    assert provider.asked == []
    told = await ask(harness, **{**asked, "model": able, "logprobs": 1})
    [choice] = told["choices"]
    assert (choice["text"], choice["logprobs"]["tokens"]) == ("In the shed.", ["In ", "the ", "shed."])
    assert choice["logprobs"]["token_logprobs"] == [None, -0.25, -0.25]
    [(path, body, _)] = provider.asked
    assert path == "completions"
    assert (body["echo"], body["max_tokens"], body["logprobs"]) == (True, 0, 1)
    assert told["usage"] == {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 0, "total_tokens": PROMPT_TOKENS}
    assert (await harness.completed()).cost == pytest.approx(PROMPT_TOKENS * 2 / 1_000_000)
    assert (await ask(harness, model=unable, prompt="So: ", echo=True, max_tokens=9))["choices"][0]["text"].startswith(
        "So: In the"
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_prompt_that_is_scored_and_answered_is_owed_as_often_as_it_is_read(
    harness: Harness, provider: Provider, stream: bool
) -> None:
    """Once for all its choices to say what it is worth, and once for each of them."""
    able = harness.provider_model(provider.url, completions=True, scores=True, price={"input": 2.0, "output": 10.0})
    asked = {"model": able, "prompt": ["In the shed."] * 2, "echo": True, "logprobs": 0, "max_tokens": 9, "n": 2}
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with harness.http() as http:
        answer = await http.post(PATH, json={**asked, **more})
    assert answer.status_code == 200, answer.text
    scored = [body for _, body, _ in provider.asked if body.get("echo")]
    assert (len(scored), len(provider.asked)) == (1, 5)
    completed = await harness.completed()
    assert (completed.prompt_tokens, completed.completion_tokens) == (3 * PROMPT_TOKENS, 4 * 3)
    assert completed.cost == pytest.approx((5 * PROMPT_TOKENS * 2 + 12 * 10) / 1_000_000)


async def test_choices_of_one_prompt_have_it_scored_once(harness: Harness) -> None:
    prompts = [TEXT, "another", TEXT]
    told = await ask(harness, **{**SCORED, "prompt": prompts, "n": 3})
    assert sorted(body["inputs"] for body in harness.stubs.scored) == sorted({*prompts})
    assert [one["text"] for one in told["choices"]] == [one for one in prompts for _ in range(3)]
    assert all(one["logprobs"]["token_logprobs"][0] is None for one in told["choices"])
    each = {len(one["logprobs"]["tokens"]) for one in told["choices"] if one["text"] == TEXT}
    assert each == {-(-len(TEXT.encode()) // 3)}
    assert told["usage"]["prompt_tokens"] == sum(-(-len(one.encode()) // 3) + 1 for one in {*prompts})


async def test_who_leaves_while_a_provider_scores_is_charged(
    harness: Harness, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Accepted | Scored] = []
    score = OpenAIEngine.score

    async def overheard(*asked: Any) -> AsyncGenerator[Accepted | Scored, None]:
        async with aclosing(score(*asked)) as told:
            async for one in told:
                heard.append(one)
                yield one

    monkeypatch.setattr(OpenAIEngine, "score", overheard)
    provider.queued = True
    able = harness.provider_model(provider.url, completions=True, scores=True, price={"input": 2.0, "output": 10.0})
    async with harness.http() as http:
        asking = asyncio.create_task(http.post(PATH, json={**SCORED, "model": able, "prompt": "Why? " * 80}))
        await eventually(lambda: heard)
        asking.cancel()
        await asyncio.wait((asking,))
    completed = await harness.completed()
    assert (completed.prompt_tokens, completed.completion_tokens) == (100, 0)
    assert (completed.finish_reason, completed.cost) == ("cancelled", pytest.approx(100 * 2 / 1_000_000))
