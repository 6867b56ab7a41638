"""Base models of other providers: chat and completions through the API, asking a provider on a real port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
from played_provider import KEY, PROMPT_TOKENS, Ending, Provider
from proxy_harness import DIGEST, QUESTION, Harness
from structlog.testing import capture_logs

from chassis.errors import Invalid
from inference_proxy.engines import Accepted, EngineAway, Piece, Prompt, Sampling, Target, openai_stream
from inference_proxy.engines.openai import OpenAIEngine
from inference_proxy.engines.tgi import TGIEngine
from schemas.artifacts import ProviderModelSpec
from testkit import eventually
from testkit.running import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASKED: dict[str, dict[str, Any]] = {CHAT: {"messages": QUESTION}, TEXT: {"prompt": "one", "max_tokens": 9}}
PRICE = {"input": 2.0, "output": 10.0}
USAGE = {"stream_options": {"include_usage": True}}
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
both_routes = pytest.mark.parametrize("path", [CHAT, TEXT], ids=["chat", "completions"])


def keyed(harness: Harness, provider: Provider, **more: Any) -> str:
    """A model of the provider that is asked with its key."""
    (harness.keys_dir / "theirs").write_text(f"{KEY}\n")
    return harness.provider_model(provider.url, key_file="theirs", **{"completions": True, **more})


async def ask(harness: Harness, path: str, model: str, **body: Any) -> httpx2.Response:
    async with harness.http() as http:
        return await http.post(path, json={"model": model, **ASKED[path], **body}, timeout=60)


def told(answer: httpx2.Response) -> dict[str, Any]:
    """Text, log-probabilities, reason and usage of an answer's first choice, however it was sent."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"].startswith("application/json"):
        events = [answer.json()]
    else:
        assert answer.text.endswith("data: [DONE]\n\n")
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [one for event in events for one in event["choices"] if one["index"] == 0]
    texts = [one.get("text") or one.get("message", one.get("delta", {})).get("content") or "" for one in choices]
    named: list[Any] = []
    for logprobs in (one["logprobs"] for one in choices if one["logprobs"]):
        named += logprobs.get("content") or zip(*(logprobs[name] for name in NAMED), strict=True)
    return {
        "text": "".join(texts),
        "logprobs": named,
        "reason": choices[-1]["finish_reason"],
        "usage": events[-1]["usage"],
        "fingerprints": {event["system_fingerprint"] for event in events},
    }


NAMED = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


@both_routes
@both_ways
async def test_a_provider_answers_for_a_base_model(
    harness: Harness, provider: Provider, path: str, stream: bool
) -> None:
    model = keyed(harness, provider, price=PRICE)
    answer = await ask(harness, path, model, stream=stream, **(USAGE if stream else {}))
    assert told(answer) == {
        "text": "In the shed.",
        "logprobs": [],
        "reason": "stop",
        "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 3, "total_tokens": PROMPT_TOKENS + 3},
        "fingerprints": {f"base-{model}"},
    }
    assert "x-sartor-adapter" not in answer.headers
    [(asked, body, credential)] = provider.asked
    assert f"/v1/{asked}" == path
    assert credential == f"Bearer {KEY}"
    assert body == {"model": "their-name", "stream": True, **USAGE, **ASKED[path]}
    completed = await harness.completed()
    assert (completed.model, completed.adapter_id) == (model, None)
    assert (completed.prompt_tokens, completed.completion_tokens) == (PROMPT_TOKENS, 3)
    assert completed.cost == pytest.approx((PROMPT_TOKENS * 2 + 3 * 10) / 1_000_000)


FIELDS: list[tuple[str, Any, dict[str, Any]]] = [
    ("temperature", 0, {"temperature": 0}),
    ("top_p", 0.5, {"top_p": 0.5}),
    ("seed", 7, {"seed": 7}),
    ("frequency_penalty", -1, {"frequency_penalty": -1}),
    ("presence_penalty", 1.5, {"presence_penalty": 1.5}),
    ("logit_bias", {"99999": 5}, {"logit_bias": {"99999": 5}}),
    ("stop", "shed", {"stop": ["shed"]}),
]


@both_routes
@pytest.mark.parametrize(("name", "value", "sent"), FIELDS, ids=[name for name, *_ in FIELDS])
async def test_a_field_is_sent_or_refused_by_name(
    harness: Harness, provider: Provider, path: str, name: str, value: Any, sent: dict[str, Any]
) -> None:
    answer = await ask(harness, path, keyed(harness, provider), **{name: value})
    assert answer.status_code == 200, answer.text
    [(_, body, _)] = provider.asked
    assert body.items() >= sent.items()
    refused = await ask(harness, path, keyed(harness, provider, lacks=[name]), **{name: value})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
    assert len(provider.asked) == 1


@both_routes
@both_ways
async def test_limits_and_stop_texts_end_an_answer(
    harness: Harness, provider: Provider, path: str, stream: bool
) -> None:
    model = keyed(harness, provider)
    cut = told(await ask(harness, path, model, max_tokens=2, stream=stream, **(USAGE if stream else {})))
    assert (cut["text"], cut["reason"], cut["usage"]["completion_tokens"]) == ("In the ", "length", 2)
    stopped = told(await ask(harness, path, model, stop=["the"], stream=stream, **(USAGE if stream else {})))
    assert (stopped["text"], stopped["reason"]) == ("In ", "stop")
    provider.reason = "content_filter"
    assert (
        told(await ask(harness, path, model, stream=stream, **(USAGE if stream else {})))["reason"] == "content_filter"
    )


async def test_a_limit_is_called_as_the_provider_calls_it(harness: Harness, provider: Provider) -> None:
    await ask(harness, CHAT, keyed(harness, provider, max_tokens_field="max_completion_tokens"), max_tokens=2)
    [(_, body, _)] = provider.asked
    assert body["max_completion_tokens"] == 2
    assert "max_tokens" not in body


@both_routes
async def test_streamed_and_whole_answers_have_the_same_log_probabilities(
    harness: Harness, provider: Provider, path: str
) -> None:
    provider.words = (b"a ", *(bytes([byte]) for byte in "龘".encode()), "é!".encode())
    asked = {"logprobs": 2} if path == TEXT else {"logprobs": True, "top_logprobs": 2}
    model = keyed(harness, provider)
    whole = told(await ask(harness, path, model, **asked))
    assert told(await ask(harness, path, model, **asked, stream=True, **USAGE)) == whole
    assert whole["text"] == "a 龘é!"
    assert len(whole["logprobs"]) == 5
    assert provider.asked[0][1]["logprobs"] == asked["logprobs"]
    if path == CHAT:
        assert [bytes(one["bytes"]) for one in whole["logprobs"]] == list(provider.words)
        assert [len(one["top_logprobs"]) for one in whole["logprobs"]] == [2] * 5
        assert {one["logprob"] for one in whole["logprobs"]} == {-0.25}


@both_routes
@both_ways
async def test_log_probabilities_that_do_not_come_are_refused_by_name(
    harness: Harness, provider: Provider, path: str, stream: bool
) -> None:
    provider.tells = False
    answer = await ask(harness, path, keyed(harness, provider), logprobs=1 if path == TEXT else True, stream=stream)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logprobs")


async def test_a_provider_of_chats_takes_no_raw_prompt(harness: Harness, provider: Provider) -> None:
    refused = await ask(harness, TEXT, keyed(harness, provider, completions=False))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
    unlimited = await ask(harness, TEXT, keyed(harness, provider), max_tokens=None)
    assert (unlimited.status_code, unlimited.json()["error"]["param"]) == (400, "max_tokens")
    assert provider.asked == []


@both_ways
async def test_every_choice_is_asked_for_and_paid(harness: Harness, provider: Provider, stream: bool) -> None:
    model = keyed(harness, provider, price=PRICE)
    answer = await ask(harness, CHAT, model, n=2, seed=5, stream=stream, **(USAGE if stream else {}))
    assert told(answer)["usage"]["completion_tokens"] == 6
    assert sorted(body["seed"] for _, body, _ in provider.asked) == [5, 6]
    completed = await harness.completed()
    assert (completed.prompt_tokens, completed.completion_tokens) == (PROMPT_TOKENS, 6)
    assert completed.cost == pytest.approx(2 * (PROMPT_TOKENS * 2 + 3 * 10) / 1_000_000)


def error(message: str, code: str = "", param: str | None = None, kind: str = "some_error") -> dict[str, Any]:
    return {"error": {"message": f"{message} (key {KEY})", "type": kind, "code": code, "param": param}}


REFUSALS: list[tuple[int, Any, dict[str, str], tuple[int, str, str | None, str]]] = [
    (401, error("Incorrect API key", "invalid_api_key"), {}, (503, "service_unavailable", None, "key_refused")),
    (403, error("Country not supported"), {}, (503, "service_unavailable", None, "key_refused")),
    (402, error("Insufficient balance"), {}, (503, "service_unavailable", None, "unpaid")),
    (404, error("No such model", "model_not_found"), {}, (503, "service_unavailable", None, "unknown_there")),
    (429, error("Slow down"), {"retry-after": "17"}, (429, "rate_limit_exceeded", "17", "busy")),
    (429, error("Slow down"), {"retry-after": "soon"}, (429, "rate_limit_exceeded", "1", "busy")),
    (429, error("Quota", "insufficient_quota"), {"retry-after": "8"}, (503, "service_unavailable", None, "unpaid")),
    (429, error("Quota", kind="insufficient_quota"), {}, (503, "service_unavailable", None, "unpaid")),
    (429, error("Inactive", "billing_not_active"), {}, (503, "service_unavailable", None, "unpaid")),
    (400, error("Limit", "billing_hard_limit_reached"), {}, (503, "service_unavailable", None, "unpaid")),
    (500, error("The server had an error"), {}, (503, "generation_failed", "1", "broken")),
    (529, "overloaded", {"retry-after": "8"}, (503, "generation_failed", "8", "broken")),
    (307, {}, {"location": "/v1/elsewhere"}, (503, "generation_failed", "1", "broken")),
    (400, error("Too long", "context_length_exceeded", "messages"), {}, (400, "context_length_exceeded", None, "")),
    (413, {"detail": "too large"}, {}, (400, "context_length_exceeded", None, "")),
]


@both_ways
@pytest.mark.parametrize(("status", "body", "headers", "meant"), REFUSALS, ids=lambda one: str(one)[:20])
async def test_what_a_provider_refuses_is_told_to_whom_it_concerns(
    harness: Harness, provider: Provider, status: int, body: Any, headers: dict[str, str], meant: Any, stream: bool
) -> None:
    provider.refusal = (status, body, headers)
    with capture_logs() as logged:
        answer = await ask(harness, CHAT, keyed(harness, provider), stream=stream)
    ours, code, retry_after, why = meant
    assert (answer.status_code, answer.json()["error"]["code"]) == (ours, code)
    assert answer.headers.get("retry-after") == retry_after
    lines = [one for one in logged if one["event"] == "provider_failed"]
    assert [one["why"] for one in lines] == ([why] if why else [])
    level = "error" if (ours, retry_after) == (503, None) else "warning"
    assert [one["log_level"] for one in lines] == ([level] if why else [])
    assert KEY not in answer.text + str(logged)
    assert len(provider.asked) == 1


async def test_a_field_that_a_provider_refuses_is_named(harness: Harness, provider: Provider) -> None:
    provider.refusal = (400, error("Unsupported value", "unsupported_value", "temperature"), {})
    answer = await ask(harness, CHAT, keyed(harness, provider), temperature=0)
    said = answer.json()["error"]
    assert (answer.status_code, said["param"]) == (400, "temperature")
    assert "Unsupported value (key [key])" in said["message"]


@both_routes
@pytest.mark.parametrize("ending", [one for one in get_args(Ending) if one])
async def test_an_answer_that_breaks_off_never_looks_complete(
    harness: Harness, provider: Provider, path: str, ending: Ending
) -> None:
    model = keyed(harness, provider)
    provider.ending = ending
    with capture_logs() as logged:
        streamed = await ask(harness, path, model, stream=True)
        whole = await ask(harness, path, model)
    assert "In " in streamed.text
    assert streamed.text.strip().splitlines()[-1].startswith('data: {"error": ')
    assert "[DONE]" not in streamed.text
    assert '"finish_reason": "stop"' not in streamed.text
    code = "service_unavailable" if ending == "cut" else "generation_failed"
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, code)
    why = "unreachable" if ending == "cut" else "broken"
    assert [one["why"] for one in logged if one["event"] == "provider_failed"] == [why, why]
    assert KEY not in streamed.text + whole.text + str(logged)


@both_ways
async def test_a_client_that_hangs_up_leaves_the_provider_and_is_charged(
    harness: Harness, provider: Provider, stream: bool
) -> None:
    provider.endless = True
    question = [{"role": "user", "content": "Why? " * 80}]
    body = {"model": keyed(harness, provider), "messages": question, "stream": stream}
    async with harness.http() as http:
        if stream:
            async with http.stream("POST", CHAT, json=body) as answer:
                await anext(answer.aiter_lines())
        else:
            asking = asyncio.create_task(http.post(CHAT, json=body, timeout=60))
            await eventually(lambda: provider.given >= 5)
            asking.cancel()
            await asyncio.wait((asking,))
    await eventually(lambda: provider.hung_up == 1)
    completed = await harness.completed()
    assert completed.finish_reason == "cancelled"
    assert completed.prompt_tokens == 100
    assert completed.completion_tokens > 0


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Accepted | Piece]:
    """What the proxy has heard of providers so far."""
    heard: list[Accepted | Piece] = []
    generate = OpenAIEngine.generate

    async def overheard(*asked: Any) -> AsyncGenerator[Accepted | Piece, None]:
        async with aclosing(generate(*asked)) as pieces:
            async for piece in pieces:
                heard.append(piece)
                yield piece

    monkeypatch.setattr(OpenAIEngine, "generate", overheard)
    return heard


@both_ways
async def test_a_client_that_leaves_before_the_first_word_leaves_the_providers_queue_and_is_charged(
    harness: Harness, provider: Provider, taken: list[Accepted | Piece], stream: bool
) -> None:
    provider.queued = True
    question = [{"role": "user", "content": "Why? " * 80}]
    body = {"model": keyed(harness, provider, price=PRICE), "messages": question, "stream": stream}
    async with harness.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=body, timeout=60))
        await eventually(lambda: taken)
        asking.cancel()
        await asyncio.wait((asking,))
        await eventually(lambda: provider.hung_up == 1)
    assert len(provider.asked) == 1
    completed = await harness.completed()
    assert (completed.prompt_tokens, completed.completion_tokens) == (100, 0)
    assert (completed.finish_reason, completed.cost) == ("cancelled", pytest.approx(100 * 2 / 1_000_000))


@both_ways
async def test_an_answer_that_breaks_off_before_the_first_word_is_charged(
    harness: Harness, provider: Provider, stream: bool
) -> None:
    provider.words, provider.ending = (), "said"
    answer = await ask(harness, TEXT, keyed(harness, provider), prompt="Why? " * 80, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "generation_failed")
    completed = await harness.completed()
    assert (completed.prompt_tokens, completed.completion_tokens) == (100, 0)


async def test_what_a_provider_refuses_costs_nothing(harness: Harness, provider: Provider) -> None:
    provider.refusal = (500, error("The server had an error"), {})
    model = keyed(harness, provider)
    assert (await ask(harness, CHAT, model)).status_code == 503
    provider.refusal = None
    assert (await ask(harness, CHAT, model)).status_code == 200
    assert (await harness.completed()).completion_tokens == 3


@both_ways
@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": -5}, {"completion_tokens": -5}, {"completion_tokens": 10**24}, {"prompt_tokens": 1e9}]
)
async def test_nobody_is_charged_what_cannot_be(
    harness: Harness, provider: Provider, usage: dict[str, Any], stream: bool
) -> None:
    """An answer whose counts are nonsense has failed; what came of it is charged as it came."""
    provider.usage = usage
    answer = await ask(harness, TEXT, keyed(harness, provider), prompt="Why? " * 80, stream=stream)
    said = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
    assert (answer.status_code, said["error"]["code"]) == (200 if stream else 503, "generation_failed")
    completed = await harness.completed()
    assert (completed.prompt_tokens, completed.completion_tokens) == (100, 3)


@both_routes
async def test_an_answer_that_does_not_end_is_ended(
    harness: Harness, provider: Provider, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its text, and by its bytes where there is no text in them."""
    model = keyed(harness, provider)
    provider.words = (b"x" * 90_000,) * 12
    too_long = await ask(harness, path, model, max_tokens=16)
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (503, "generation_failed")
    monkeypatch.setattr(openai_stream, "LONGEST_STREAM", 10_000)
    provider.words, provider.told = (b"", b"shed."), ({"choices": []},) * 1000
    empty = await ask(harness, path, model)
    assert (empty.status_code, empty.json()["error"]["code"]) == (503, "generation_failed")


@both_routes
@both_ways
async def test_a_log_probability_that_is_no_number_is_not_told(
    harness: Harness, provider: Provider, path: str, stream: bool
) -> None:
    wrong = {"token": "In ", "logprob": float("nan"), "top_logprobs": []}
    logprobs = {"content": [wrong]} if path == CHAT else {"tokens": ["In "], "token_logprobs": [float("nan")]}
    grown = {"delta": {"content": "In "}} if path == CHAT else {"text": "In "}
    provider.told = ({"choices": [{"index": 0, **grown, "logprobs": logprobs}]},)
    answer = await ask(harness, path, keyed(harness, provider), logprobs=1 if path == TEXT else True, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "generation_failed")


@both_routes
@both_ways
async def test_what_is_null_is_absent(harness: Harness, provider: Provider, path: str, stream: bool) -> None:
    token = {"token": "So: ", "bytes": None, "logprob": -1, "top_logprobs": None}
    logprobs: dict[str, Any] = {"content": [token], "tokens": None, "token_logprobs": None, "top_logprobs": None}
    if path == TEXT:
        logprobs |= {"content": None, "tokens": ["So: "], "token_logprobs": [None]}
    grown = {"delta": {"content": "So: "}} if path == CHAT else {"text": "So: "}
    provider.told = (
        {"choices": None, "usage": None, "error": None},
        {"choices": [{"index": 0, "delta": None, "text": None, "finish_reason": None, "logprobs": None}]},
        {"choices": [{"index": 0, **grown, "logprobs": logprobs}]},
    )
    asked = {"logprobs": 1} if path == TEXT else {"logprobs": True, "top_logprobs": 1}
    answer = told(
        await ask(harness, path, keyed(harness, provider), **asked, stream=stream, **(USAGE if stream else {}))
    )
    assert (answer["text"], answer["reason"], len(answer["logprobs"])) == ("So: In the shed.", "stop", 4)


async def test_a_model_whose_base_became_a_providers_does_not_answer(harness: Harness, provider: Provider) -> None:
    """Nothing was rendered for it, so that its engine would be asked nothing at all."""
    model, base = harness.model(), keyed(harness, provider)
    harness.stubs.routes[model]["base_model"] = base
    with capture_logs() as logged:
        refused = await ask(harness, CHAT, model)
        raw = await ask(harness, TEXT, model)
    for answer in (refused, raw):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "base_model_replaced")
        assert base in answer.json()["error"]["message"]
    assert [one["log_level"] for one in logged if one["event"] == "base_model_replaced"] == ["error", "error"]
    assert (provider.asked, harness.stubs.prompts) == ([], [])
    assert (await ask(harness, CHAT, base)).status_code == 200


@both_ways
async def test_a_provider_that_nobody_reaches_is_away(harness: Harness, stream: bool) -> None:
    model = harness.provider_model(f"http://127.0.0.1:{free_port()}")
    answer = await ask(harness, CHAT, model, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
    assert "127.0.0.1" not in answer.text


async def test_a_key_is_read_when_it_is_used(harness: Harness, provider: Provider) -> None:
    """So a new one holds at once; without a file nobody is asked, and the operator is told."""
    model, file = keyed(harness, provider), harness.keys_dir / "theirs"
    assert (await ask(harness, CHAT, model)).status_code == 200
    file.write_text("sk-another")
    assert (await ask(harness, CHAT, model)).status_code == 200
    assert [credential for *_, credential in provider.asked] == [f"Bearer {KEY}", "Bearer sk-another"]
    for spoil in (lambda: file.write_text("two\nlines"), lambda: file.write_text(""), file.unlink):
        spoil()
        with capture_logs() as logged:
            answer = await ask(harness, CHAT, model)
        assert answer.status_code == 503
        [line] = [one for one in logged if one["event"] == "provider_failed"]
        assert (line["why"], line["base_model"], line["log_level"]) == ("no_key", model, "error")
        assert "two" not in str(logged)
    assert len(provider.asked) == 2


async def test_a_provider_without_a_key_is_sent_none(harness: Harness, provider: Provider) -> None:
    assert (await ask(harness, CHAT, harness.provider_model(provider.url))).status_code == 200
    assert provider.asked[0][2] is None


@pytest.mark.parametrize("ending", ["queued", "endless"])
async def test_an_answer_takes_no_longer_than_it_may(provider: Provider, ending: str) -> None:
    setattr(provider, ending, True)
    engine = OpenAIEngine(0.3, None)
    await engine.open()
    try:
        async with asyncio.timeout(10):
            with pytest.raises(EngineAway):
                async for _ in engine.generate(target(provider), Prompt("messages", messages=QUESTION), Sampling()):
                    pass
        await eventually(lambda: provider.hung_up == 1)
    finally:
        await engine.close()


async def test_our_engine_tells_the_tokens_of_a_text_and_a_provider_does_not(
    harness: Harness, provider: Provider
) -> None:
    own, theirs = TGIEngine(5), OpenAIEngine(5, Path())
    await own.open()
    try:
        assert await own.tokenize(Target("tiny-base", harness.stubs.url, base_digest=DIGEST), "abc") == [97, 98, 99]
        with pytest.raises(EngineAway):
            await own.tokenize(Target("tiny-base", f"http://127.0.0.1:{free_port()}"), "abc")
    finally:
        await own.close()
    with pytest.raises(Invalid, match="far"):
        await theirs.tokenize(target(provider), "abc")


def target(provider: Provider) -> Target:
    engine = {"kind": "openai", "url": f"{provider.url}/v1", "model": "their-name"}
    spec = ProviderModelSpec.model_validate({"id": "far", "engine": engine, "context_length": 100})
    return Target("far", spec.engine.url, provider=spec.engine)
