"""Every field of OpenAI's requests is honoured, kept and given back, advice, or refused by its name."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import openai
import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.chat import completion_list_params, completion_update_params
from openai.types.chat.completions import message_list_params
from proxy_harness import BASE, QUESTION, Harness

from chassis.auth import Principal
from inference_proxy.bases import Base
from inference_proxy.domain import Chat
from inference_proxy.store import Chats
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PLAIN: dict[str, dict[str, Any]] = {CHAT: {"model": BASE, "messages": QUESTION}, TEXT: {"model": BASE, "prompt": "one"}}

CHANGES, SAME, REFUSED = "changes the answer", "asks for nothing", "is refused"
"""`SAME` are defaults, and advice by OpenAI's own definition."""

FUNCTION = {"name": "look", "parameters": {}}
BOTH: dict[str, list[tuple[Any, str]]] = {
    "frequency_penalty": [(0, SAME), (1.5, CHANGES), (-2, CHANGES), (2.5, REFUSED)],
    "logit_bias": [({}, SAME), ({"5": -100}, CHANGES), ({"x": 1}, REFUSED), ({"5": 101}, REFUSED)],
    "max_tokens": [(7, CHANGES), (0, REFUSED), (-1, REFUSED)],
    "n": [(1, SAME), (2, CHANGES), (0, REFUSED), (5, REFUSED)],
    "presence_penalty": [(0, SAME), (1.5, CHANGES), (-2, CHANGES), (-2.5, REFUSED)],
    "seed": [(3, CHANGES), ("x", REFUSED)],
    "stop": [([], SAME), ("shed", CHANGES), (["shed", "the"], CHANGES), (["a"] * 5, REFUSED), ("", REFUSED)],
    "stream": [(False, SAME), (True, CHANGES)],
    "stream_options": [({"include_usage": True}, REFUSED), ({"include_smell": True}, REFUSED)],
    "temperature": [(1, SAME), (0, CHANGES), (1.5, CHANGES), (2.5, REFUSED)],
    "top_p": [(1, SAME), (0.5, CHANGES), (0, REFUSED)],
    "user": [("ada", SAME)],
}
FIELDS: dict[str, dict[str, list[tuple[Any, str]]]] = {
    CHAT: BOTH
    | {
        "audio": [({"voice": "alloy", "format": "wav"}, REFUSED)],
        "function_call": [("none", SAME), ({"name": "look"}, REFUSED)],
        "functions": [([], SAME), ([FUNCTION], REFUSED)],
        "logprobs": [(False, SAME), (True, CHANGES)],
        "max_completion_tokens": [(7, CHANGES), (0, REFUSED)],
        "messages": [([{"role": "user", "content": "Why?"}], CHANGES), ([], REFUSED)],
        "metadata": [({}, SAME), ({"who": "Ada"}, REFUSED)],  # kept with `store` alone: see below
        "modalities": [(["text"], SAME), (["text", "audio"], REFUSED)],
        "model": [("gpt-4o", REFUSED)],
        "moderation": [({"model": "omni"}, REFUSED)],
        "parallel_tool_calls": [(True, SAME), (False, REFUSED)],
        "prediction": [({"type": "content", "content": "x"}, REFUSED)],
        "prompt_cache_key": [("k", SAME)],
        "prompt_cache_options": [({"mode": "explicit"}, SAME)],
        "prompt_cache_retention": [("24h", SAME)],
        "reasoning_effort": [("none", SAME), ("high", REFUSED)],
        "response_format": [({"type": "text"}, SAME), ({"type": "json_object"}, REFUSED)],
        "safety_identifier": [("x", SAME)],
        "service_tier": [("auto", SAME)],
        "store": [(False, SAME)],  # kept with True: see below
        "tool_choice": [("auto", SAME), ("none", SAME), ("required", REFUSED)],
        "tools": [([], SAME), ([{"type": "function", "function": FUNCTION}], REFUSED)],
        "top_logprobs": [(0, SAME), (2, REFUSED), (21, REFUSED)],
        "verbosity": [("medium", SAME), ("low", REFUSED), ("high", REFUSED)],
        "web_search_options": [({}, REFUSED)],
    },
    TEXT: BOTH
    | {
        "best_of": [(1, SAME), (2, REFUSED)],
        "echo": [(False, SAME), (True, CHANGES), ("x", REFUSED)],
        "logprobs": [(0, CHANGES), (2, CHANGES), (6, REFUSED)],
        "model": [("gpt-4o", REFUSED)],
        "prompt": [("two", CHANGES), (["one", "two"], CHANGES), ([1, 2], REFUSED), ([[1], [2]], REFUSED)],
        "suffix": [("", SAME), ("x", REFUSED)],
    },
}
CASES = [
    pytest.param(path, name, value, outcome, id=f"{path[4:8]}-{name}-{value!r:.30}")
    for path, fields in FIELDS.items()
    for name, cases in fields.items()
    for value, outcome in [*cases, (None, SAME)]
    if value is not None or name not in ("model", "messages", "prompt")
]


@pytest.mark.parametrize(("path", "params"), [(CHAT, chat_params), (TEXT, text_params)], ids=["chat", "text"])
async def test_every_field_of_the_sdk_has_its_outcome(path: str, params: Any) -> None:
    assert set(FIELDS[path]) == {*params.CompletionCreateParamsBase.__annotations__, "stream"}


@pytest.mark.parametrize(("path", "name", "value", "outcome"), CASES)
async def test_a_field_does_what_it_says(harness: Harness, path: str, name: str, value: Any, outcome: str) -> None:
    plain = await outcome_of(harness, path, PLAIN[path])
    given = await outcome_of(harness, path, {**PLAIN[path], name: value})
    assert plain["status"] == 200
    if outcome == REFUSED:
        assert given["status"] == (404 if name == "model" else 400), given
        assert given["param"].split(".")[0].split("[")[0] == name
    else:
        assert given["status"] == 200, given
        assert (given == plain) is (outcome == SAME)


async def outcome_of(harness: Harness, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the client is told and the engine is asked, but for names and times."""
    harness.stubs.prompts.clear()
    async with harness.http() as http:
        answer = await http.post(path, json=body)
    if answer.status_code != 200:
        return {"status": answer.status_code, "param": answer.json()["error"]["param"] or ""}
    told = None if body.get("stream") else answer.json()
    for field in ("id", "created"):
        (told or {}).pop(field, None)
    asked = sorted(harness.stubs.prompts, key=str)
    return {"status": 200, "told": told, "asked": asked}


async def test_top_logprobs_are_as_many_as_asked(harness: Harness) -> None:
    given = await outcome_of(harness, CHAT, {**PLAIN[CHAT], "logprobs": True, "top_logprobs": 3})
    assert given["asked"][0]["parameters"]["top_n_tokens"] == 3


async def test_best_of_as_many_as_are_shown_asks_for_nothing(harness: Harness) -> None:
    assert await outcome_of(harness, TEXT, {**PLAIN[TEXT], "n": 2, "best_of": 2}) == await outcome_of(
        harness, TEXT, {**PLAIN[TEXT], "n": 2}
    )


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_without_a_limit_the_engine_is_asked_for_the_room_that_is_left(harness: Harness, path: str) -> None:
    given = await outcome_of(harness, path, PLAIN[path])
    parameters = given["asked"][0]["parameters"]
    assert "max_new_tokens" in parameters
    assert parameters["max_new_tokens"] is None


async def test_what_an_engine_lacks_is_refused_by_name(harness: Harness) -> None:
    harness.stubs.beyond_tgi = ()
    for name, value in (("presence_penalty", 1), ("logit_bias", {"5": 1})):
        given = await outcome_of(harness, CHAT, {**PLAIN[CHAT], name: value})
        assert (given["status"], given["param"]) == (400, name)
    given = await outcome_of(harness, CHAT, {**PLAIN[CHAT], "frequency_penalty": 1, "presence_penalty": 0})
    assert given["asked"][0]["parameters"]["frequency_penalty"] == 1


async def test_tool_choice_none_searches_nothing(harness: Harness) -> None:
    tools = [{"type": "file_search", "vector_store_ids": ["vs_unknown"]}]
    body = {**PLAIN[CHAT], "tools": tools, "tool_choice": "none"}
    assert await outcome_of(harness, CHAT, body) == await outcome_of(harness, CHAT, PLAIN[CHAT])


async def test_a_name_and_calls_of_tools_are_shown_to_the_model(harness: Harness) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"of": "Oslo"}'}}
    messages = [
        {"role": "user", "name": "Ada", "content": "Rain?"},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "yes"},
        {"role": "assistant", "refusal": "I may not say."},
    ]
    given = await outcome_of(harness, CHAT, {"model": BASE, "messages": messages})
    shown = '<user>Ada: Rain?<assistant>weather({"of": "Oslo"})<user>weather: yes<assistant>I may not say.<assistant>'
    assert given["asked"][0]["inputs"] == shown


async def test_stored_completions_are_kept_labelled_and_found(harness: Harness) -> None:
    assert set(completion_list_params.CompletionListParams.__annotations__) == {
        *("after", "limit", "metadata", "model", "order")
    }
    assert set(completion_update_params.CompletionUpdateParams.__annotations__) == {"metadata"}
    assert set(message_list_params.MessageListParams.__annotations__) == {"after", "limit", "order"}
    completions, model = harness.sdk().chat.completions, harness.model()
    kept = [
        await completions.create(model=one, messages=QUESTION, store=True, metadata=metadata, n=n)  # type: ignore[arg-type]
        for one, metadata, n in ((BASE, {"who": "Ada"}, 1), (model, {"who": "Bob"}, 2), (BASE, {"who": "Ada"}, 1))
    ]

    async def found(**asked: Any) -> list[str]:
        return [chat.id async for chat in completions.list(limit=1, **asked)]

    ids = [chat.id for chat in kept]
    assert sorted(await found()) == sorted(ids)
    assert await found(order="desc") == list(reversed(await found(order="asc")))
    assert sorted(await found(metadata={"who": "Ada"})) == sorted([ids[0], ids[2]])
    assert await found(model=model) == await found(metadata={"who": "Bob"}) == [ids[1]]
    assert await found(metadata={"who": "Ada"}, model=model) == []
    assert [choice.message.content for choice in (await completions.retrieve(ids[1])).choices] == ["In the shed."] * 2

    changed = await completions.update(ids[0], metadata={"who": "Eve"})
    assert (changed.id, changed.metadata) == (ids[0], {"who": "Eve"})
    assert await found(metadata={"who": "Eve"}) == [ids[0]]
    await completions.update(ids[0], metadata=None)
    assert (await completions.retrieve(ids[0])).metadata == {}
    with pytest.raises(openai.NotFoundError):
        await harness.sdk(tenant=harness.b).chat.completions.update(ids[0], metadata={"who": "me"})
    with pytest.raises(openai.BadRequestError, match="metadata"):
        await found(metadata={"$where": "1"})
    with pytest.raises(openai.BadRequestError, match="mood"):
        await completions.list(extra_query={"mood": "glad"})
    with pytest.raises(openai.NotFoundError):
        await completions.messages.list(ids[0], after="nowhere")
    assert [one.content async for one in completions.messages.list(ids[0], order="desc")] == [QUESTION[0]["content"]]


async def test_only_a_chat_has_a_verbosity(harness: Harness) -> None:
    given = await outcome_of(harness, TEXT, {**PLAIN[TEXT], "verbosity": "medium"})
    assert (given["status"], given["param"]) == (400, "verbosity")


@pytest.mark.parametrize("change", ["label", "delete"])
async def test_a_change_that_comes_after_a_delete_leaves_nothing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    completions = harness.sdk().chat.completions
    chat_id = (await completions.create(model=BASE, messages=QUESTION, store=True, metadata={"who": "Ada"})).id  # type: ignore[arg-type]
    stored, places = Chats.stored, []

    async def deleted_after_the_look(self: Chats, principal: Principal, chat_id: str) -> Chat:
        found = await stored(self, principal, chat_id)
        monkeypatch.setattr(Chats, "stored", stored)
        places.append(self)
        await completions.delete(chat_id)
        return found

    monkeypatch.setattr(Chats, "stored", deleted_after_the_look)
    with pytest.raises(openai.NotFoundError):
        if change == "label":
            await completions.update(chat_id, metadata={"who": "Eve"})
        else:
            await completions.delete(chat_id)
    left = await places[0]._chats.get(harness.a, chat_id)
    assert (left.stored, left.metadata, left.messages, left.answers) == (False, {}, [], [])


async def test_where_one_choice_fails_the_others_end_and_are_counted(harness: Harness) -> None:
    harness.stubs.endless = True
    harness.stubs.refusal = (500, {"error": "out of memory", "error_type": "incomplete_generation"})
    harness.stubs.refused_from = 2
    harness.stubs.refused_after = 5
    async with harness.http() as http:
        answer = await http.post(CHAT, json={**PLAIN[CHAT], "n": 3})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "generation_failed")
    await eventually(lambda: harness.stubs.hung_up == 2)
    completed = await harness.completed()
    assert completed.finish_reason == "cancelled"
    assert completed.completion_tokens >= 5


async def test_a_prompt_is_rendered_beside_the_event_loop(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    render = Base.render

    def slowly(self: Base, messages: list[dict[str, str]]) -> str:
        begun.set()
        assert go_on.wait(20)
        return render(self, messages)

    monkeypatch.setattr(Base, "render", slowly)
    asking = asyncio.create_task(outcome_of(harness, CHAT, PLAIN[CHAT]))
    await eventually(begun.is_set)
    go_on.set()
    assert (await asking)["status"] == 200


@pytest.mark.parametrize("name", ["service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"])
async def test_advice_of_chat_is_unknown_to_raw_completions(harness: Harness, name: str) -> None:
    given = await outcome_of(harness, TEXT, {**PLAIN[TEXT], name: "auto"})
    assert given == {"status": 400, "param": name}
