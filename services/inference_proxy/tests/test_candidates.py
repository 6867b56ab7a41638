"""The signed call by which candidates are tested: asked as people would ask them, and on nobody's account."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from played_provider import Provider
from proxy_harness import BASE, PROMPT_TOKENS, QUESTION, Harness

from inference_proxy.admission import EVALUATION_TOKENS
from inference_proxy.settings import Settings
from schemas import ChatCompleted
from schemas.http.inference_proxy import UNSUPPORTED
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERS, COUNTS, SCORES = (f"/internal/evaluation/{what}" for what in ("answers", "token_counts", "scores"))
CHAT = "/v1/chat/completions"


def asked(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": QUESTION, "max_tokens": 7, **more}


def evaluator(harness: Harness, tenant: str = "") -> httpx2.AsyncClient:
    return harness.http(key=harness.space.bearer("inference_proxy", tenant or harness.a, as_service="evaluator"))


def read(kind: str) -> float:
    return float(EVALUATION_TOKENS.labels(kind)._value.get())


async def test_a_candidate_is_asked_as_it_would_be_served(harness: Harness) -> None:
    served, candidate = harness.model(), harness.candidate()
    before = read("prompt"), read("completion")
    async with evaluator(harness) as http:
        answer = await http.post(ANSWERS, json=asked(candidate, stop=["\n"]))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["text"], told["finish_reason"], told["adapter_id"]) == (
        "In the shed.",
        "stop",
        harness.stubs.versions[candidate]["adapter_id"],
    )
    assert (told["prompt_tokens"], told["completion_tokens"], told["cost"]) == (PROMPT_TOKENS, 3, None)
    async with harness.http() as http:
        same = {"model": served, "messages": QUESTION, "max_tokens": 7, "stop": ["\n"], "temperature": 0}
        assert (await http.post(CHAT, json=same)).status_code == 200
    tested, chatted = harness.stubs.prompts
    for body in (tested, chatted):
        body["parameters"].pop("adapter_id")
    assert tested == chatted, "a candidate is not judged as it would be served"
    assert (read("prompt") - before[0], read("completion") - before[1]) == (PROMPT_TOKENS, 3)


async def test_a_base_is_asked_with_examples_and_a_candidate_that_serves_already_too(harness: Harness) -> None:
    examples = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, *QUESTION]
    served = harness.model()
    harness.stubs.versions[served] = harness.stubs.routes[served]
    async with evaluator(harness) as http:
        base = await http.post(ANSWERS, json=asked(BASE, messages=examples))
        again = await http.post(ANSWERS, json=asked(served))
    assert (base.status_code, base.json()["adapter_id"]) == (200, None)
    assert harness.stubs.prompts[0]["inputs"] == f"<user>a<assistant>b<user>{QUESTION[0]['content']}<assistant>"
    assert again.json()["adapter_id"] == harness.adapter(served)


async def test_only_a_service_for_itself_may_name_a_candidate(harness: Harness) -> None:
    candidate = harness.candidate()
    end_user, owner = harness.key(role="end_user"), harness.key()
    through_the_console = harness.space.bearer("inference_proxy", harness.a, role="owner")
    for key in (end_user, owner, through_the_console):
        async with harness.http(key=key) as http:
            text = {"model": candidate, "text": "x"}
            for path, body in ((ANSWERS, asked(candidate)), (COUNTS, text), (SCORES, text)):
                assert (await http.post(path, json=body)).status_code == 403, path
            chat = await http.post(CHAT, json={"model": candidate, "messages": QUESTION})
            assert (chat.status_code, chat.json()["error"]["code"]) == (404, "model_not_found")
            text = await http.post("/v1/completions", json={"model": candidate, "prompt": "x"})
            assert text.status_code == 404
            marked = await http.post(CHAT, json={"model": candidate, "messages": QUESTION, "candidate": True})
            assert marked.status_code == 400
    async with evaluator(harness) as http:
        assert (await http.post(CHAT, json={"model": candidate, "messages": QUESTION})).status_code == 404
    assert harness.stubs.prompts == []


async def test_another_tenants_candidate_is_nobody(harness: Harness) -> None:
    candidate = harness.candidate()
    async with evaluator(harness, harness.b) as http:
        answer = await http.post(ANSWERS, json=asked(candidate))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert harness.stubs.prompts == []


async def test_a_candidate_without_a_replica_is_loading_and_never_the_base(harness: Harness) -> None:
    waiting = harness.candidate(held=False)
    lost = harness.candidate()
    async with evaluator(harness) as http:
        answer = await http.post(ANSWERS, json=asked(waiting))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
        assert harness.stubs.prompts == []
        harness.stubs.refusal = (404, {"error": "not loaded here", "error_type": "adapter_not_found"})
        answer = await http.post(ANSWERS, json=asked(lost))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")


async def test_tests_are_nobodys_chats_and_count_against_nobodys_limits(harness: Harness) -> None:
    candidate = harness.candidate()
    key = harness.key(requests_per_minute=2, tokens_per_minute=20)
    async with evaluator(harness) as http:
        for _ in range(5):
            assert (await http.post(ANSWERS, json=asked(candidate))).status_code == 200
    harness.stubs.endless = True
    async with evaluator(harness) as http, harness.http(key=key) as person:
        tests = [asyncio.create_task(http.post(ANSWERS, json=asked(candidate))) for _ in range(16)]
        await eventually(lambda: len(harness.stubs.prompts) == 21)
        chat = {"model": BASE, "messages": QUESTION, "stream": True}
        async with person.stream("POST", CHAT, json=chat) as answer:
            assert answer.status_code == 200, "tests have taken the places of people"
        assert not any(one.done() for one in tests)
        for one in tests:
            one.cancel()
        await asyncio.gather(*tests, return_exceptions=True)
    completed = await harness.completed()
    assert completed.model == BASE
    assert [one for one in harness.seen.of(ChatCompleted) if one.model == candidate] == []
    async with harness.http() as http:
        assert (await http.get(CHAT)).json()["data"] == []


async def test_what_a_test_cannot_ask_is_refused_by_name(harness: Harness) -> None:
    async with evaluator(harness) as http:
        for name, value in (("store", True), ("stream", True), ("n", 2), ("metadata", {"a": "b"}), ("max_tokens", 0)):
            answer = await http.post(ANSWERS, json=asked(BASE, **{name: value}))
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
        robot = [{"role": "robot", "content": "x"}]
        assert (await http.post(ANSWERS, json=asked(BASE, messages=robot))).status_code == 400


async def test_tokens_are_counted_by_the_models_engine(harness: Harness) -> None:
    async with evaluator(harness) as http:
        answer = await http.post(COUNTS, json={"model": BASE, "text": "four"})
        assert (answer.status_code, answer.json()) == (200, {"tokens": 4})
        assert (await http.post(COUNTS, json={"model": "nobody", "text": "four"})).status_code == 404


@pytest.mark.parametrize("tuned", [True, False], ids=["candidate", "base"])
async def test_a_text_is_scored_as_an_echo_tells_it_by_the_model_that_is_asked(harness: Harness, tuned: bool) -> None:
    text, model = "Where is 龘靐?", harness.candidate() if tuned else BASE
    adapter_id = harness.stubs.versions[model]["adapter_id"] if tuned else None
    before = read("prompt"), read("completion")
    async with evaluator(harness) as http:
        answer = await http.post(SCORES, json={"model": model, "text": text})
        assert answer.status_code == 200, answer.text
    count = -(-len(text.encode()) // 3)
    told = {"logprobs": [-0.25] * (count - 1), "prompt_tokens": count + 1, "adapter_id": adapter_id, "cost": None}
    assert answer.json() == told
    [body] = harness.stubs.scored
    assert (body["inputs"], body["parameters"]["adapter_id"]) == (text, adapter_id)
    assert harness.stubs.prompts == [], "something was generated"
    assert (read("prompt") - before[0], read("completion") - before[1]) == (count + 1, 0)


async def test_a_text_that_cannot_be_scored_is_refused_and_never_half_scored(
    harness: Harness, provider: Provider
) -> None:
    plain, chats = (harness.provider_model(provider.url, completions=completions) for completions in (True, False))
    async with evaluator(harness) as http:
        for unable in (plain, chats):
            answer = await http.post(SCORES, json={"model": unable, "text": "aa"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, UNSUPPORTED)
        assert provider.asked == []
        harness.stubs.strange = {"details": {"prefill": [{"id": 1, "text": "a", "logprob": None}] * 2}}
        answer = await http.post(SCORES, json={"model": BASE, "text": "aa"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "generation_failed")
        assert (await http.post(SCORES, json={"model": BASE, "text": ""})).status_code == 400


@pytest.mark.parametrize(
    ("refusal", "means"),
    [
        ((404, {"error": "not loaded here", "error_type": "base_not_found"}), (503, "wrong_model")),
        (
            (422, {"error": "at most 9 tokens", "error_type": "validation"}),
            (400, "context_length_exceeded"),
        ),
        ((422, {"error": "no text", "error_type": "validation"}), (400, None)),
        ((400, {"error": "no text"}), (400, None)),
        ((413, {"error": "too large"}), (400, "context_length_exceeded")),
        ((429, {"error": "busy", "error_type": "overloaded"}), (429, "rate_limit_exceeded")),
        ((500, {"error": "out of memory", "error_type": "generation"}), (503, "generation_failed")),
        ((500, {"error": "out of memory"}), (503, "generation_failed")),
        ((500, {"detail": "out of memory"}), (503, "generation_failed")),
    ],
)
async def test_what_an_engine_refuses_of_a_text_is_told_as_what_it_refuses_of_a_prompt(
    harness: Harness, refusal: tuple[int, dict[str, str]], means: tuple[int, str | None]
) -> None:
    harness.stubs.refusal = refusal
    async with evaluator(harness) as http:
        answer = await http.post(COUNTS, json={"model": BASE, "text": "four"})
    assert (answer.status_code, answer.json()["error"]["code"]) == means


@pytest.mark.parametrize("strange", [{}, [{}], [{"id": "x"}], [7], {"details": {"prefill": [{}]}}], ids=str)
async def test_an_engine_that_tells_something_strange_has_failed(harness: Harness, strange: Any) -> None:
    harness.stubs.strange = strange
    async with evaluator(harness) as http:
        answer = await http.post(COUNTS, json={"model": BASE, "text": "four"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "generation_failed")
    async with harness.http() as http:
        scored = {"model": BASE, "prompt": "four", "echo": True, "logprobs": 0, "max_tokens": 0}
        answer = await http.post("/v1/completions", json=scored)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "generation_failed")


async def test_texts_are_counted_in_as_many_places_as_there_are_for_tests(harness: Harness) -> None:
    harness.stubs.queued = True
    most = Settings.model_fields["inference_evaluation_in_flight"].default
    text = {"model": BASE, "text": "four"}
    async with evaluator(harness) as http:
        counts = [asyncio.create_task(http.post(COUNTS, json=text)) for _ in range(most)]
        await eventually(lambda: len(harness.stubs.counted) == most)
        assert (await http.post(COUNTS, json=text)).status_code == 429
        for one in counts:
            one.cancel()
        await asyncio.gather(*counts, return_exceptions=True)
        harness.stubs.queued = False

        async def free() -> bool:
            return (await http.post(COUNTS, json=text)).status_code == 200

        await eventually(free)
