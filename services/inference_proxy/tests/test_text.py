"""Text as the engine made it: streamed and whole alike, in text, log-probabilities, usage and finish reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from proxy_harness import BASE, PROMPT_TOKENS, QUESTION, Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")

Answer = tuple[list[dict[str, Any]], dict[str, int]]
both_routes = pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"], ids=["chat", "completions"])


def in_bytes(text: str) -> tuple[bytes, ...]:
    return tuple(bytes([byte]) for byte in text.encode())


ANSWERS = [
    ((b"In ", b"the ", b"shed."), "eos_token", []),
    ((*in_bytes("龘靐"), b" and ", *in_bytes("👩‍👩‍👧"), b"!"), "eos_token", []),
    (in_bytes("ᚠᚢꀀꯀn̈한"), "length", []),
    (in_bytes("龘靐")[:-1], "length", []),
    (in_bytes("龘")[:2], "length", []),
    ((*in_bytes("a龘b"), *in_bytes("靐c")), "stop_sequence", ["b靐"]),
    ((b"x\xe9", b"\xbe\x98y\xe9\x9d", b"\x90z"), "eos_token", []),
    ((b"one", b" ST", b"O", b"X two", b" STO", b"P", b" no"), "stop_sequence", ["STOP"]),
    ((b"ends in ST", b"O"), "eos_token", ["STOP"]),
    ((b"STOP", b"all of it"), "stop_sequence", ["STOP"]),
    ((b"\xef\xbf\xbd", b" is text"), "eos_token", []),
]


@both_routes
@pytest.mark.parametrize(("spelled", "reason", "stop"), ANSWERS, ids=range(len(ANSWERS)))
async def test_a_streamed_answer_says_what_a_whole_one_says(
    harness: Harness, path: str, spelled: tuple[bytes, ...], reason: str, stop: list[str]
) -> None:
    harness.stubs.spelled, harness.stubs.reason = spelled, reason
    body: dict[str, Any] = {"model": BASE, "n": 2, "stop": stop or None}
    body |= {"prompt": "x", "logprobs": 1} if path == "/v1/completions" else LOGPROBS
    whole = await ask(harness, path, **body)
    streamed = await ask(harness, path, **body, stream=True, stream_options={"include_usage": True})
    assert streamed == whole
    choices, usage = whole
    assert usage["completion_tokens"] == 2 * len(spelled)
    assert usage["prompt_tokens"] == PROMPT_TOKENS
    text = b"".join(spelled).decode(errors="ignore")
    text = text[: text.find(stop[0])] if stop and stop[0] in text else text
    for choice in choices:
        assert choice["text"] == text
        assert choice["finish_reason"] == ("length" if reason == "length" else "stop")
        named = choice["logprobs"]
        own = list(spelled[: len(named)])
        assert b"".join(own).decode(errors="ignore").startswith(text)
        assert not named or len(b"".join(own[:-1])) < len(text.encode())
        if path == "/v1/completions":
            assert [one["offset"] for one in named] == [
                len(b"".join(own[:place]).decode(errors="ignore")) for place in range(len(own))
            ]
            assert [one["token"] for one in named] == [legacy(one) for one in own]
            assert [list(one["top"]) for one in named] == [[legacy(one)] for one in own]
        else:
            assert [bytes(one["bytes"]) for one in named] == own
            assert [bytes(one["top_logprobs"][0]["bytes"]) for one in named] == own
            assert [one["token"] for one in named] == [one.decode(errors="backslashreplace") for one in own]


LOGPROBS = {"messages": QUESTION, "logprobs": True, "top_logprobs": 1}


def legacy(own: bytes) -> str:
    try:
        return own.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)


async def ask(harness: Harness, path: str, **body: Any) -> Answer:
    """Choices and usage of an answer, streamed or not."""
    async with harness.http() as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        told = answer.json()
        return [choice_of([choice]) for choice in told["choices"]], told["usage"]
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert answer.text.endswith("data: [DONE]\n\n")
    assert events[-1]["choices"] == []
    assert all(event["usage"] is None for event in events[:-1])
    chunks = [choice for event in events for choice in event["choices"]]
    by_index = [[one for one in chunks if one["index"] == index] for index in range(2)]
    assert all(
        [one["finish_reason"] is None for one in each] == [True] * (len(each) - 1) + [False] for each in by_index
    )
    return [choice_of(each) for each in by_index], events[-1]["usage"]


def choice_of(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A choice put together from its parts."""
    texts = [one.get("text") or one.get("message", one.get("delta", {})).get("content") or "" for one in parts]
    named: list[dict[str, Any]] = []
    for told in (one["logprobs"] for one in parts if one["logprobs"]):
        if "content" in told:
            named += told["content"]
        else:
            rows = zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], told["text_offset"], strict=True)
            named += [{"token": one, "logprob": value, "top": top, "offset": at} for one, value, top, at in rows]
    return {"text": "".join(texts), "logprobs": named, "finish_reason": parts[-1]["finish_reason"]}


@both_routes
async def test_an_engine_that_tells_no_bytes_still_has_log_probabilities(harness: Harness, path: str) -> None:
    """As TGI itself: what it cannot show is named as it names it, and has no bytes."""
    harness.stubs.pieces = ("a", "", "龘", "\ufffd")
    body = {"prompt": "x", "logprobs": 1} if path == "/v1/completions" else LOGPROBS
    [choice], _ = await ask(harness, path, model=BASE, **body)
    assert choice["text"] == "a龘\ufffd"
    assert [one["token"] for one in choice["logprobs"]] == ["a", "", "龘", "\ufffd"]
    if path != "/v1/completions":
        assert [one["bytes"] for one in choice["logprobs"]] == [[97], [], list("龘".encode()), None]


async def test_the_stops_of_chat_do_not_end_a_raw_completion(harness: Harness) -> None:
    harness.stubs.pieces = ("one", "<end>", "two")
    [choice], _ = await ask(harness, "/v1/completions", model=BASE, prompt="x", stop=["never"])
    assert choice["text"] == "one<end>two"
    assert harness.stubs.prompts[0]["parameters"]["stop"] == ["never"]
    [chat], _ = await ask(harness, "/v1/chat/completions", model=BASE, messages=QUESTION)
    assert chat["text"] == "one"
