"""Chat, completions and feedback through the API on the local stack, asking an engine that speaks TGI's HTTP API."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from proxy_harness import BASE, PROMPT_TOKENS, QUESTION, Harness

from chassis.auth import hash_key
from eventbus import AggregateStore
from inference_proxy.domain import Chat
from inference_proxy.records import LOST
from inference_proxy.requests import ChatAsked, Kept
from inference_proxy.settings import Settings
from schemas import ChatCompleted, FeedbackDeleted, FeedbackRecorded, KeyRevoked, ModelRetired
from stores import mongo
from stores.mongo import PyMongoError
from testkit import eventually
from testkit.running import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
TOO_LONG = {"error": "Input validation error: `inputs` must have less than 512 tokens", "error_type": "validation"}
BUSY = {"error": "Model is overloaded", "error_type": "overloaded"}
NOT_HELD = {"error": "Adapter 'ad-1' is not loaded here.", "error_type": "adapter_not_found"}
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


async def test_a_whole_answer_counts_its_tokens_and_names_the_adapter_that_gave_it(harness: Harness) -> None:
    model = harness.model()
    raw = await harness.sdk().chat.completions.with_raw_response.create(model=model, messages=QUESTION, max_tokens=9)
    answer = raw.parse()
    assert answer.choices[0].message.content == "In the shed."
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.model, answer.system_fingerprint) == (model, harness.adapter(model))
    assert raw.headers["x-sartor-adapter"] == harness.adapter(model)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (11, 3, 14)
    [sent] = harness.stubs.prompts
    assert sent["inputs"] == "<user>Where is my bicycle?<assistant>"
    assert sent["parameters"]["adapter_id"] == harness.adapter(model)
    assert (sent["parameters"]["max_new_tokens"], sent["parameters"]["stop"]) == (9, ["<end>"])


async def test_a_streamed_answer_says_the_same_and_ends_with_its_usage(harness: Harness) -> None:
    stream = await harness.sdk().chat.completions.create(
        model=harness.model(), messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "In the shed."
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 4 + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == PROMPT_TOKENS + 3
    assert len({chunk.id for chunk in chunks}) == 1


async def test_raw_completions_are_sent_as_they_are(harness: Harness) -> None:
    answer = await harness.sdk().completions.create(model=BASE, prompt=["one", "two"], max_tokens=4)
    assert [choice.text for choice in answer.choices] == ["In the shed."] * 2
    assert sorted(sent["inputs"] for sent in harness.stubs.prompts) == ["one", "two"]
    assert {sent["parameters"]["adapter_id"] for sent in harness.stubs.prompts} == {None}
    assert (await harness.completed()).adapter_id is None


@both_ways
async def test_every_prompt_is_counted_once_and_every_choice_answered(harness: Harness, stream: bool) -> None:
    key = harness.key(requests_per_minute=10, tokens_per_minute=1000)
    body = {"model": BASE, "prompt": ["one", "two", "one"], "n": 2, "stream": stream}
    async with harness.http() as http:
        options = {"stream_options": {"include_usage": True}} if stream else {}
        headers = {"authorization": f"Bearer {key}"}
        answer = await http.post("/v1/completions", json={**body, **options}, headers=headers)
    last = json.loads(answer.text.split("data: ")[-2]) if stream else answer.json()
    assert len(harness.stubs.prompts) == 6
    assert last["usage"] == {"prompt_tokens": 3 * PROMPT_TOKENS, "completion_tokens": 18, "total_tokens": 51}
    assert answer.headers["x-ratelimit-remaining-requests"] == "7"
    said = await harness.completed()
    assert (said.prompt_tokens, said.completion_tokens) == (3 * PROMPT_TOKENS, 18)


@pytest.mark.parametrize(
    "model", ["ft:tiny-base:acme::nowhere", "gpt-4o", "../base_models", "../routes/x", "a?b#c", "a/b"]
)
@both_ways
async def test_an_unknown_model_is_not_found_and_nobody_answers_for_it(
    harness: Harness, model: str, stream: bool
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await harness.sdk().chat.completions.create(model=model, messages=QUESTION, stream=stream)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert harness.stubs.prompts == []


async def test_another_tenants_model_is_not_found_even_if_the_registry_tells_of_it(harness: Harness) -> None:
    model = harness.model(tenant=harness.a)
    assert await harness.sdk().chat.completions.create(model=model, messages=QUESTION)
    with pytest.raises(openai.NotFoundError) as caught:
        await harness.sdk(tenant=harness.b).chat.completions.create(model=model, messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert len(harness.stubs.prompts) == 1


async def test_a_retired_model_is_forgotten_with_its_event(harness: Harness) -> None:
    model = harness.model()
    await harness.sdk().chat.completions.create(model=model, messages=QUESTION)
    retired = ModelRetired(tenant_id=harness.a, model_id=model, adapter_id=harness.adapter(model))
    del harness.stubs.routes[model]
    await harness.publish(retired)

    async def refused() -> bool:
        answer = await ask(harness, model=model)
        return answer.status_code == 404

    await eventually(refused, within=5)


@pytest.mark.parametrize(
    ("refusal", "status", "code", "retry"),
    [
        ((422, TOO_LONG), 400, "context_length_exceeded", False),
        ((429, BUSY), 429, "rate_limit_exceeded", True),
        ((404, NOT_HELD), 503, "model_loading", True),
        ((500, {"error": "out of memory", "error_type": "incomplete_generation"}), 503, "generation_failed", True),
    ],
)
@both_ways
async def test_what_the_engine_refuses_has_its_own_status(
    harness: Harness, refusal: tuple[int, dict[str, str]], status: int, code: str, retry: bool, stream: bool
) -> None:
    harness.stubs.refusal = refusal
    answer = await ask(harness, model=harness.model(), stream=stream)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    assert ("retry-after" in answer.headers) is retry


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": {}, "content": "x"}]},
        {"messages": [{"role": None, "content": "x"}]},
        {"messages": ["x"]},
        {"messages": [None]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": [None]}]},
        {"messages": [{"role": "user", "content": [{"type": ["text"], "text": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": {}}]}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"tools": [{"type": ["file_search"]}]},
        {"tools": [{"type": "file_search", "vector_store_ids": "vs_1"}]},
        {"tools": [{"type": "file_search", "vector_store_ids": [None]}]},
        {"tools": ["file_search"]},
        {"tools": [{"type": "file_search"}]},
        {"tools": [{"type": "file_search", "vector_store_ids": None}]},
        {"tools": [{"type": "file_search", "vector_store_ids": []}], "vector_store_ids": []},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}, {"type": "file_search"}]},
        {"tools": [{"type": "file_search"}], "tool_choice": "none"},
        {"vector_store_ids": [7]},
        {"vector_store_ids": [f"vs_{number}" for number in range(11)]},
        {"response_format": []},
        {"response_format": {"type": []}},
        {"stream_options": "usage"},
        {"metadata": {"a": {}}},
        {"metadata": {"a\0b": "c"}, "store": True},
        {"metadata": {"a": "b\0"}, "store": True},
        {"model": ["m"]},
        {"model": "\ud800"},
        {"stop": [[]]},
        {"stop": ""},
        {"n": 1e9},
        {"max_tokens": "many"},
        {"seed": -1},
        {"frequency_penalty": -2.1},
        {"presence_penalty": 3},
        {"logit_bias": {"5": 101}},
        {"logit_bias": {"x": 1}},
        {"logit_bias": {"1000": 1}},
        {"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "mood": "glad"}]},
        {"messages": [{"role": "user", "content": "x"}] * 2049},
        {"messages": [{"role": "user", "content": "x"}] * 10_001},
        {"tool_choice": "required"},
        {"top_logprobs": 2},
        {"metadata": {"a": "b"}},
        {"max_tokens": 2, "max_completion_tokens": 3},
        {"max_tokens": 0},
        {"temperature": []},
    ],
    ids=str,
)
async def test_a_malformed_chat_is_told_so(harness: Harness, wrong: dict[str, Any]) -> None:
    answer = await ask(harness, **{"model": BASE, **wrong})
    assert answer.status_code == 400, answer.text
    assert (answer.json()["error"]["param"] or "").startswith(next(iter(wrong))), answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_tool_without_stores_searches_those_of_the_request(harness: Harness) -> None:
    harness.stubs.found[harness.a, "vs_1"] = []
    for tool in ({"type": "file_search", "vector_store_ids": None}, {"type": "file_search"}):
        answer = await ask(harness, model=BASE, tools=[tool], vector_store_ids=["vs_1"])
        assert answer.status_code == 200, answer.text
    assert harness.stubs.searches == [QUESTION[0]["content"]] * 2


@pytest.mark.parametrize("prompt", [7, [], [""], [7], [[1, 2]], {}, None, "\ud800"], ids=str)
async def test_a_malformed_completion_is_told_so(harness: Harness, prompt: Any) -> None:
    async with harness.http() as http:
        answer = await http.post("/v1/completions", content=json.dumps({"model": BASE, "prompt": prompt}), headers=JSON)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("up", [True, False], ids=["no replica holds it", "its replica is down"])
@both_ways
async def test_a_model_nobody_can_serve_now_asks_to_be_tried_again(harness: Harness, up: bool, stream: bool) -> None:
    replica = "" if up else f"http://127.0.0.1:{free_port()}"
    answer = await ask(harness, model=harness.model(replica=replica), stream=stream)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == ("model_loading" if up else "service_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert harness.stubs.prompts == []


@pytest.mark.parametrize("breaks", ["said", "silent"])
async def test_an_answer_that_breaks_off_never_looks_complete(harness: Harness, breaks: Any) -> None:
    harness.stubs.breaks = breaks
    streamed = await ask(harness, model=harness.model(), stream=True)
    assert "In " in streamed.text
    assert streamed.text.strip().splitlines()[-1].startswith('data: {"error": ')
    assert "[DONE]" not in streamed.text
    assert '"finish_reason": "stop"' not in streamed.text
    assert (await harness.completed()).finish_reason == "cancelled"
    whole = await ask(harness, model=harness.model())
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "generation_failed")


@both_ways
async def test_a_client_that_hangs_up_stops_the_engine(harness: Harness, stream: bool) -> None:
    harness.stubs.endless = True
    body = {"model": harness.model(), "messages": QUESTION, "stream": stream}
    async with harness.http() as http:
        if stream:
            async with http.stream("POST", CHAT, json=body) as answer:
                await anext(answer.aiter_lines())
        else:
            asking = asyncio.create_task(http.post(CHAT, json=body, timeout=60))
            await eventually(lambda: harness.stubs.words >= 20)
            asking.cancel()
            await asyncio.wait((asking,))
    await eventually(lambda: harness.stubs.hung_up == 1)
    completed = await harness.completed()
    assert completed.finish_reason == "cancelled"
    assert completed.prompt_tokens == PROMPT_TOKENS
    assert completed.completion_tokens > 0


@both_ways
async def test_a_client_that_leaves_before_the_first_token_leaves_the_engines_queue(
    harness: Harness, stream: bool
) -> None:
    harness.stubs.queued = True
    body = {"model": harness.model(), "messages": QUESTION, "stream": stream}
    async with harness.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=body, timeout=60))
        await eventually(lambda: harness.stubs.prompts)
        asking.cancel()
        await asyncio.wait((asking,))
        await eventually(lambda: harness.stubs.hung_up == 1)
    assert len(harness.stubs.prompts) == 1


async def test_each_key_has_its_own_limit_and_learns_when_to_come_back(harness: Harness) -> None:
    limited, other = harness.key(requests_per_minute=2, tokens_per_minute=5000), harness.key()
    model = harness.model()
    for left in ("1", "0"):
        raw = await harness.sdk(key=limited).chat.completions.with_raw_response.create(model=model, messages=QUESTION)
        assert raw.headers["x-ratelimit-limit-requests"] == "2"
        assert raw.headers["x-ratelimit-remaining-requests"] == left
        assert raw.headers["x-ratelimit-limit-tokens"] == "5000"
        assert int(raw.headers["x-ratelimit-remaining-tokens"]) < 5000
        assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
    with pytest.raises(openai.RateLimitError) as caught:
        await harness.sdk(key=limited).chat.completions.create(model=model, messages=QUESTION)
    assert caught.value.code == "rate_limit_exceeded"
    told = caught.value.response.headers
    assert 1 <= int(told["retry-after"]) <= 30
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert len(harness.stubs.prompts) == 2
    await harness.sdk(key=other).chat.completions.create(model=model, messages=QUESTION)


async def test_a_revoked_key_is_refused_soon_after_the_event(harness: Harness) -> None:
    key, model = harness.key(), harness.model()
    await harness.sdk(key=key).chat.completions.create(model=model, messages=QUESTION)
    del harness.stubs.keys[hash_key(key)]
    await harness.sdk(key=key).chat.completions.create(model=model, messages=QUESTION)
    async with harness.space.publisher("accounts") as publish:
        await publish(KeyRevoked(tenant_id=harness.a, key_id="key_1", key_hash=hash_key(key)))

    async def refused() -> bool:
        try:
            await harness.sdk(key=key).chat.completions.create(model=model, messages=QUESTION)
        except openai.AuthenticationError:
            return True
        return False

    await eventually(refused, within=5)


async def test_documents_enter_the_prompt_only_when_a_store_is_named_and_is_ones_own(harness: Harness) -> None:
    content = [{"type": "text", "text": "The shed is behind the house."}]
    row = {"file_id": "file-1", "filename": "garden.md", "score": 0.9, "attributes": {}, "content": content}
    harness.stubs.found[harness.a, "vs_1"] = [row]
    model = harness.model()
    plain = await ask(harness, model=model, store=True)
    assert harness.stubs.searches == []
    assert "sartor" not in plain.json()

    augmented = await ask(harness, model=model, vector_store_ids=["vs_1"])
    assert harness.stubs.searches == ["Where is my bicycle?"]
    assert augmented.json()["sartor"]["retrieved"] == [{"file_id": "file-1", "filename": "garden.md", "score": 0.9}]
    without, with_documents = (sent["inputs"] for sent in harness.stubs.prompts)
    assert "shed is behind" not in without
    assert "[garden.md]\nThe shed is behind the house." in with_documents
    await eventually(lambda: ["file-1"] in [one.retrieved for one in harness.seen.of(ChatCompleted)])

    theirs = harness.model(tenant=harness.b)
    for tenant, named, store in (
        (harness.b, theirs, "vs_1"),
        (harness.a, model, "../vector_stores/vs_1"),
        (harness.a, model, "vs_1/search?"),
    ):
        refused = await ask(harness, tenant=tenant, model=named, vector_store_ids=[store])
        assert refused.status_code == 404, store
    assert len(harness.stubs.prompts) == 2


async def test_the_list_of_stored_answers_is_read_by_an_index(harness: Harness) -> None:
    """Most answers are not stored; without an index a list of three would read a million of others."""
    settings = harness.space.settings(Settings, "inference_proxy")
    chats = mongo.connect(settings, "inference_proxy")["chats"]
    indexes = [index["key"] for index in (await chats.index_information()).values()]
    assert [("tenant_id", 1), ("stored", 1), ("created_at", -1), ("_id", -1)] in indexes


async def test_the_event_of_an_answer_carries_counts_and_lineage_and_no_content(harness: Harness) -> None:
    key, model = harness.key(), harness.model()
    answer = await harness.sdk(key=key).chat.completions.create(
        model=model, messages=QUESTION, store=True, metadata={"who": "Ada"}
    )
    said = (await harness.completed()).model_dump()
    assert said.pop("latency_ms") >= 0
    assert said == {
        "tenant_id": harness.a,
        "chat_id": answer.id,
        "model": model,
        "adapter_id": harness.adapter(model),
        "handed_over": None,
        "key_id": f"key_{key[-6:]}",
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": 3,
        "finish_reason": "stop",
        "retrieved": [],
        "cost": None,
    }
    stored = await harness.sdk().chat.completions.retrieve(answer.id)
    assert stored.choices[0].message.content == "In the shed."
    with pytest.raises(openai.NotFoundError):
        await harness.sdk(tenant=harness.b).chat.completions.retrieve(answer.id)


async def test_a_streamed_answer_has_the_log_probabilities_of_every_token(harness: Harness) -> None:
    """Also of those whose text is held back, as it may begin a stop text; none of what the stop cut off."""
    harness.stubs.pieces = ("one", " ST", "O", "X two", " STO", "P", " no")
    asked: dict[str, Any] = {"model": BASE, "messages": QUESTION, "logprobs": True, "stop": ["STOP"], "n": 2}
    whole = await harness.sdk().chat.completions.create(**asked)
    stream = await harness.sdk().chat.completions.create(**asked, stream=True)
    streamed: dict[int, list[str]] = {0: [], 1: []}
    async for chunk in stream:
        for choice in chunk.choices:
            if choice.logprobs:
                streamed[choice.index] += [entry.token for entry in choice.logprobs.content or []]
    for choice in whole.choices:
        assert choice.message.content == "one STOX two "
        assert choice.logprobs is not None
        assert streamed[choice.index] == [entry.token for entry in choice.logprobs.content or []]
    assert streamed[0] == ["one", " ST", "O", "X two", " STO"]


@both_ways
async def test_an_answer_does_not_wait_for_its_record(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    add, failed = AggregateStore.add, []

    async def away(self: AggregateStore[Any], aggregate: Any) -> None:
        if isinstance(aggregate, Chat) and len(failed) < 2:
            failed.append(aggregate.take_pending())
            raise PyMongoError("the database is away")
        await add(self, aggregate)

    monkeypatch.setattr(AggregateStore, "add", away)
    answer = await ask(harness, model=harness.model(), stream=stream)
    assert answer.status_code == 200
    assert ("[DONE]" in answer.text) if stream else (answer.json()["usage"]["completion_tokens"] == 3)
    assert (await harness.completed()).completion_tokens == 3
    assert [len(events) for events in failed] == [1, 1]


async def test_an_answer_whose_record_cannot_be_stored_is_given_and_the_loss_counted(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = LOST._value.get()
    monkeypatch.setattr(ChatAsked, "kept", property(lambda _: Kept([{"number": 10**30}], {})))
    assert (await ask(harness, model=harness.model(), store=True)).status_code == 200
    assert LOST._value.get() == before + 1


async def test_an_answer_whose_event_cannot_be_made_is_given_and_the_loss_counted(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(chat: Chat) -> None:
        ChatCompleted(**{**chat.model_dump(), "prompt_tokens": -1})

    before = LOST._value.get()
    monkeypatch.setattr(Chat, "announce", wrong)
    assert (await ask(harness, model=harness.model())).status_code == 200
    assert LOST._value.get() == before + 1


async def test_feedback_is_taken_for_ones_own_answers_only(harness: Harness) -> None:
    model = harness.model()
    chat = (await ask(harness, model=model)).json()["id"]
    body = {"completion_id": chat, "rating": "down", "correction": "It is in the cellar.", "comment": "wrong"}
    async with harness.http() as mine, harness.http(harness.b) as stranger:
        for http, asked in ((stranger, body), (mine, {**body, "completion_id": "chatcmpl-none"})):
            assert (await http.post("/v1/feedback", json=asked)).status_code == 404
        given = await mine.post("/v1/feedback", json=body)
        assert (given.status_code, given.json()["model"]) == (200, model)
    [event] = await eventually(
        lambda: [one for one in harness.seen.of(FeedbackRecorded) if one.tenant_id in (harness.a, harness.b)]
    )
    assert (event.tenant_id, event.chat_id, event.rating, event.has_correction) == (harness.a, chat, "down", True)
    assert event.feedback_id == given.json()["id"]
    assert "cellar" not in event.model_dump_json()


async def test_feedback_is_taken_back_by_its_giver_or_who_manages_the_organization(harness: Harness) -> None:
    chat = (await ask(harness, model=harness.model())).json()["id"]
    giver, colleague = (harness.key(role="engineer") for _ in range(2))

    async def rated() -> str:
        async with harness.http() as http:
            headers = {"authorization": f"Bearer {giver}"}
            body = {"completion_id": chat, "rating": "down", "correction": "It is in the cellar.", "comment": "wrong"}
            return str((await http.post("/v1/feedback", json=body, headers=headers)).json()["id"])

    async def taken_back(feedback_id: str, key: str, tenant: str = "") -> int:
        async with harness.http(tenant) as http:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return (await http.delete(f"/v1/feedback/{feedback_id}", headers=headers)).status_code

    first, second = await rated(), await rated()
    assert await taken_back(first, colleague) == 404
    assert await taken_back(first, "", harness.b) == 404
    assert await taken_back(first, giver) == 200
    assert await taken_back(first, giver) == 404
    assert await taken_back(second, harness.key(role="admin")) == 200
    gone = {first, second}
    await eventually(lambda: {one.feedback_id for one in harness.seen.of(FeedbackDeleted)} >= gone)
    settings = harness.space.settings(Settings, "inference_proxy")
    kept = await mongo.connect(settings, "inference_proxy")["feedback"].find({"_id": {"$in": sorted(gone)}}).to_list(2)
    assert ["cellar" in str(one) or "wrong" in str(one) for one in kept] == [False, False]


async def ask(harness: Harness, *, tenant: str = "", **body: Any) -> httpx2.Response:
    async with harness.http(tenant) as http:
        return await http.post(CHAT, content=json.dumps({"messages": QUESTION, **body}), headers=JSON)
