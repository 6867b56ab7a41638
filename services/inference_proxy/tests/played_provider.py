"""A provider with OpenAI's HTTP API, played on a real port; a test chooses what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest_asyncio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from testkit import running

PROMPT_TOKENS = 9
KEY = "sk-their-secret"

Ending = Literal["", "said", "silent", "cut", "no usage", "no answer", "no end", "no reason", "other reason"]


@dataclass
class Provider:
    """What it answers, and what it was asked.

    Attributes:
        words: the tokens of an answer.
        reason: why the answer ended, unless it was its limit or a stop text.
        tells: whether it tells log-probabilities.
        refusal: status, body and headers instead of an answer.
        ending: how the stream breaks off, if it does.
        endless: words come again and again.
        queued: the first one does not come.
        usage: what it tells of the tokens, instead of what is true.
        told: events that come before the words, as they are.
        asked: path, body and `authorization` of each request.
        given: words that endless answers have had.
        hung_up: streams that were left.
    """

    url: str = ""
    words: tuple[bytes, ...] = (b"In ", b"the ", b"shed.")
    reason: str = "stop"
    tells: bool = True
    refusal: tuple[int, Any, Mapping[str, str]] | None = None
    ending: Ending = ""
    endless: bool = False
    queued: bool = False
    usage: Mapping[str, Any] = field(default_factory=dict)
    told: tuple[dict[str, Any], ...] = ()
    asked: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    given: int = 0
    hung_up: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/{path:path}")
        async def answer(path: str, request: Request) -> Response:
            body = await request.json()
            self.asked.append((path, body, request.headers.get("authorization")))
            if self.refusal:
                status, said, headers = self.refusal
                return JSONResponse(said, status_code=status, headers=dict(headers))
            return StreamingResponse(self.events(path, body), media_type="text/event-stream")

        return app

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[str, None]:
        done = False
        try:
            if self.queued:
                await asyncio.Event().wait()
            while self.endless:
                yield event(self.grown(path, body, [b"word "]))
                self.given += 1
                await asyncio.sleep(0.02)
            words, reason = self.limited(body)
            if path == "chat/completions":
                yield event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            for payload in self.told:
                yield event(payload)
            for told in whole_characters(words):
                yield event(self.grown(path, body, told))
            if self.ending == "said":
                yield event({"error": {"message": f"overloaded, {KEY}", "type": "server_error"}})
            elif self.ending == "cut":
                raise ConnectionError("the provider dies")
            elif self.ending == "no answer":
                yield "data: <html>\n\n"
            elif self.ending == "no end":
                yield "data: " + "x" * 2_000_000
            elif self.ending != "silent":
                end = {"finish_reason": {"other reason": "strange", "no reason": None}.get(self.ending, reason)}
                kind = {"delta": {}} if path == "chat/completions" else {"text": ""}
                yield event({"choices": [{"index": 0, **kind, **end}]})
                if self.ending != "no usage" and body["stream_options"]["include_usage"]:
                    tokens = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": len(words)}
                    yield event(
                        {"choices": [], "usage": {**tokens, "total_tokens": sum(tokens.values()), **self.usage}}
                    )
                yield "data: [DONE]\n\n"
            done = True
        finally:
            self.hung_up += not done and self.ending != "cut"

    def limited(self, body: dict[str, Any]) -> tuple[tuple[bytes, ...], str]:
        """The words that are left of the answer by what was asked, and why it ends with them."""
        words = self.words
        for stop in body.get("stop", []):
            place = next((at for at, word in enumerate(words) if stop.encode() in word), None)
            if place is not None:
                return words[:place], "stop"
        most = body.get("max_tokens") or body.get("max_completion_tokens") or len(words)
        return words[:most], "length" if most < len(words) else self.reason

    def grown(self, path: str, body: dict[str, Any], told: list[bytes]) -> dict[str, Any]:
        text, logprobs = b"".join(told).decode(errors="ignore"), None
        if path == "chat/completions":
            if body.get("logprobs") and self.tells:
                logprobs = {"content": [likely(word, body.get("top_logprobs", 0)) for word in told], "refusal": None}
            return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None, "logprobs": logprobs}]}
        if "logprobs" in body and self.tells:
            named = [word.decode(errors="replace") for word in told]
            logprobs = {"tokens": named, "token_logprobs": [-0.25] * len(told), "text_offset": [0] * len(told)}
            logprobs["top_logprobs"] = [{name: -0.25} for name in named] if body["logprobs"] else None
        return {"choices": [{"index": 0, "text": text, "finish_reason": None, "logprobs": logprobs}]}


def likely(word: bytes, top: int) -> dict[str, Any]:
    said = {"token": word.decode(errors="backslashreplace"), "bytes": list(word), "logprob": -0.25}
    return {**said, "top_logprobs": [said] * top}


def whole_characters(words: tuple[bytes, ...]) -> list[list[bytes]]:
    """Tokens that are told together, as no character is told in parts."""
    told: list[list[bytes]] = [[]]
    for word in words:
        told[-1].append(word)
        try:
            b"".join(told[-1]).decode()
        except UnicodeDecodeError:
            continue
        told.append([])
    return [one for one in told if one]


def event(payload: dict[str, Any]) -> str:
    return f"data: {json.dumps(payload)}\n\n"


@pytest_asyncio.fixture(loop_scope="module")
async def provider() -> AsyncIterator[Provider]:
    """A provider that answers."""
    played = Provider()
    async with running(played.app()) as url:
        played.url = url
        yield played
