"""What an answer of the proxy, or none, means for an evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from chassis.errors import (
    Invalid,
    NotFound,
    RateLimited,
    SartorError,
    TooLarge,
    Transient,
    Unauthenticated,
    Unprocessable,
)
from chassis.http import error_response
from chassis.peers import Peer
from chassis.tokens import Tokens
from evaluator import proxy
from evaluator.proxy import NotServed, NotThere, Proxy, RowRefused
from testkit import Addresses, Space
from testkit.running import free_port

QUESTION = [{"role": "user", "content": "Where is it?"}]
ANSWER = {
    "text": "Here.",
    "finish_reason": "stop",
    "prompt_tokens": 4,
    "completion_tokens": 2,
    "adapter_id": None,
    "cost": 0.5,
}
BROKEN = Transient("The model failed to answer.", code="generation_failed")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "BACKOFF_SECONDS", 0.0)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Space(Addresses("", "", "", "", "", ""), tmp_path).tokens("evaluator")


def asking(tokens: Tokens, told: list[SartorError | dict[str, Any]]) -> Proxy:
    """A proxy that answers what is told, one after the other, and the last for ever."""
    left: Iterator[SartorError | dict[str, Any]] = iter(told)
    app = FastAPI()

    @app.post("/internal/evaluation/{what}")
    async def answer(what: str, request: Request) -> Response:
        assert what == "answers"
        assert (await request.json())["model"] == "tiny-base"
        now = next(left, told[-1])
        return error_response(now) if isinstance(now, SartorError) else JSONResponse(now)

    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app))
    return Proxy(Peer("inference_proxy", "http://proxy", tokens, client), answer_seconds=5)


async def ask(asked: Proxy) -> Any:
    return await asked.answer("tenant_a", "tiny-base", QUESTION, max_tokens=3, stop=[])


@pytest.mark.parametrize("first", [BROKEN, RateLimited("Too many requests at the same time.")], ids=["broken", "busy"])
async def test_an_engine_that_is_busy_or_breaks_is_asked_again(tokens: Tokens, first: SartorError) -> None:
    found, seconds = await ask(asking(tokens, [first, first, ANSWER]))
    assert (found.text, found.cost) == ("Here.", 0.5)
    assert seconds > 0


@pytest.mark.parametrize(
    ("told", "means"),
    [
        (Transient("The model is being loaded.", code="model_loading"), NotServed),
        (Transient("The model is not reachable at the moment."), Transient),
        (Transient("What answers is not this model.", code="wrong_model"), Transient),
        (SartorError("It crashed."), Transient),
        (RateLimited("Too many requests at the same time."), NotServed),
        (NotFound("No such model.", code="model_not_found"), NotThere),
        (Unauthenticated("The service token was refused.", code="service_token_refused"), Transient),
        (BROKEN, Transient),
        (Invalid("The context is too short.", code="context_length_exceeded"), RowRefused),
        (TooLarge("The body is too large."), RowRefused),
        (Unprocessable("No."), RowRefused),
    ],
    ids=lambda one: getattr(one, "code", None) or getattr(one, "__name__", "other"),
)
async def test_what_a_refusal_means(tokens: Tokens, told: SartorError, means: type[SartorError]) -> None:
    with pytest.raises(means) as caught:
        await ask(asking(tokens, [told]))
    assert type(caught.value) is means
    assert told.message in caught.value.message


async def test_an_answer_of_another_release_is_none(tokens: Tokens) -> None:
    with pytest.raises(Transient) as caught:
        await ask(asking(tokens, [{"choices": []}]))
    assert type(caught.value) is Transient


async def test_an_answer_that_takes_too_long_counts_and_is_not_waited_for_again(tokens: Tokens) -> None:
    app, asked = FastAPI(), list[Any]()

    @app.post("/internal/evaluation/answers")
    async def never(request: Request) -> None:
        asked.append(await request.json())
        await asyncio.Event().wait()

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app)) as client:
        slow = Proxy(Peer("inference_proxy", "http://proxy", tokens, client), answer_seconds=0.2)
        with pytest.raises(Transient) as caught:
            await ask(slow)
    assert type(caught.value) is Transient
    assert len(asked) == 1


async def test_nobody_there_is_put_off(tokens: Tokens) -> None:
    async with httpx2.AsyncClient() as client:
        nobody = Peer("inference_proxy", f"http://127.0.0.1:{free_port()}", tokens, client)
        with pytest.raises(NotServed, match="cannot be reached"):
            await ask(Proxy(nobody, answer_seconds=5))
