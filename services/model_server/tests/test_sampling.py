"""What a request holds against or for some tokens, how long an answer may be, and what ends it early."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from engine_harness import at_rest
from fastapi import FastAPI

from chassis.http import create_app
from model_server import engine as engine_module
from model_server.api import routes
from model_server.engine import Engine
from model_server.errors import InputTooLong, ParameterRefused
from model_server.sequence import GenerateRequest, Sequence, Token
from testkit import eventually, running

PROMPT = "tick tock tick tock tick"


async def tokens(engine: Engine, prompt: str = PROMPT, **options: Any) -> list[Token]:
    request = GenerateRequest(inputs=prompt, **{"max_new_tokens": 24, "top_n_tokens": 20, **options})
    return [token async for token in engine.generate(request)]


def ids(answer: list[Token]) -> list[int]:
    return [token.id for token in answer]


async def test_penalties_follow_openais_formula_and_log_probabilities_stay_the_models(engine: Engine) -> None:
    """Greedy with a penalty is the likeliest after it was taken off those already said, as often as they were."""
    for frequency, presence in ((2.0, 0.0), (0.0, 2.0), (0.7, 1.1), (-2.0, 0.0), (0.0, -1.5)):
        said: dict[int, int] = {}
        for token in await tokens(engine, frequency_penalty=frequency, presence_penalty=presence):
            after = {
                one: value - said.get(one, 0) * frequency - (one in said) * presence for one, _, value in token.top
            }
            assert token.id in after
            assert after[token.id] == pytest.approx(max(after.values()), abs=1e-4)
            said[token.id] = said.get(token.id, 0) + 1


async def test_each_penalty_changes_a_repetitive_answer(engine: Engine) -> None:
    [first, *_] = await tokens(engine)
    (_, _, best), (second, _, next_best), *_ = first.top
    nearly = {second: best - next_best - 0.5}
    plain = ids(await tokens(engine, logit_bias=nearly))
    assert plain[0] == first.id
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}):
        assert ids(await tokens(engine, logit_bias=nearly, **penalty)) != plain


async def test_a_bias_bans_and_chooses(engine: Engine) -> None:
    plain = ids(await tokens(engine))
    banned = ids(await tokens(engine, logit_bias=dict.fromkeys(plain, -100.0)))
    assert not set(banned) & set(plain)
    assert set(ids(await tokens(engine, logit_bias={77: 100.0}))) == {77}
    assert ids(await tokens(engine, logit_bias={77: 0.0})) == plain
    with pytest.raises(ParameterRefused, match="no token"):
        await tokens(engine, logit_bias={engine.base.vocab_size: 1.0})


@pytest.mark.parametrize("left", [1, 2, 40])
async def test_an_answer_nobody_limited_takes_the_room_that_is_left(engine: Engine, left: int) -> None:
    whole = engine.encode(" card" * engine.max_tokens)
    prompt = " card" * (engine.max_tokens - (len(whole) - engine.max_tokens) - left)
    assert len(engine.encode(prompt)) == engine.max_tokens - left
    never_ends = dict.fromkeys(engine.vocabulary.end_ids, -100.0)
    answer = await tokens(engine, prompt, max_new_tokens=None, logit_bias=never_ends)
    assert (len(answer), answer[-1].finish_reason) == (left, "length")
    with pytest.raises(InputTooLong):
        await tokens(engine, prompt, max_new_tokens=left + 1)


@pytest.fixture
def app(engine: Engine) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    return create_app("model_server", routers=[routes(engine)], checks={}, lifespan=lifespan)


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
async def test_what_is_asked_on_the_wire_is_what_is_generated(app: FastAPI, engine: Engine, path: str) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://engine") as http:
        given = {"max_new_tokens": 3, "logit_bias": {"77": 100}, "frequency_penalty": -2, "presence_penalty": -2}
        body: dict[str, Any] = {"inputs": PROMPT, "parameters": {**given, "best_of": 1, "watermark": False}}
        assert (await http.post(path, json=body)).status_code == 200
        refused = await http.post(path, json={**body, "grammar_of_mine": {}})
        assert refused.status_code == 400
        assert "grammar_of_mine" in refused.text
        assert (await http.get("/info")).json()["beyond_tgi"] == ["presence_penalty", "logit_bias", "score"]


async def test_an_answer_whose_caller_left_is_not_computed_on(
    app: FastAPI, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    body: dict[str, Any] = {"inputs": "where", "parameters": {"max_new_tokens": 2000}}
    made: list[Sequence] = []
    monkeypatch.setattr(engine_module, "Sequence", lambda *given: made.append(Sequence(*given)) or made[-1])
    async with running(app) as url, httpx2.AsyncClient(base_url=url) as http:
        asking = asyncio.create_task(http.post("/generate", json=body, timeout=60))
        await eventually(lambda: made and made[0]._ids)
        asking.cancel()
        await asyncio.wait((asking,))
        await eventually(lambda: made[0].cancelled)
    assert not made[0].ended
    assert await asyncio.wait_for(tokens(engine, max_new_tokens=1), 20)


async def test_a_streamed_request_whose_caller_leaves_the_queue_is_never_computed(
    app: FastAPI, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Sequence] = []
    monkeypatch.setattr(engine_module, "Sequence", lambda *given: made.append(Sequence(*given)) or made[-1])
    body = {"inputs": "where", "parameters": {"max_new_tokens": 5}}
    async with running(app) as url, httpx2.AsyncClient(base_url=url) as http:
        with at_rest(engine):
            asking = asyncio.create_task(http.post("/generate_stream", json=body, timeout=60))
            await eventually(lambda: engine.queued == 1)
            asking.cancel()
            await asyncio.wait((asking,))
            await eventually(lambda: engine.queued == 0)
        assert await asyncio.wait_for(tokens(engine, max_new_tokens=1), 20)
    assert (made[0].cancelled, made[0]._ids) == (True, [])


HUGE = 7_900_000


async def test_prompts_no_context_can_hold_are_refused_before_they_are_read(
    app: FastAPI, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health is answered meanwhile."""
    monkeypatch.setattr(engine, "encode", lambda text: 1 / 0)
    content = json.dumps({"inputs": "order my card " * (HUGE // 14)})
    async with running(app) as url, httpx2.AsyncClient(base_url=url, timeout=60) as http:
        asking = [asyncio.create_task(http.post("/generate", content=content, headers=JSON)) for _ in range(4)]
        waits = []
        while not all(one.done() for one in asking):
            before = time.thread_time()  # of a processor: what other tests take meanwhile is no wait of the loop's
            assert (await http.get("/health")).status_code == 200
            waits.append(time.thread_time() - before)
        for one in asking:
            assert (one.result().status_code, one.result().json()["error_type"]) == (422, "validation")
    assert waits
    assert max(waits) < 1


JSON = {"content-type": "application/json"}


async def test_a_prompt_that_may_fit_is_read_beside_the_event_loop(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    encode = engine.encode

    def slowly(text: str) -> list[int]:
        begun.set()
        assert go_on.wait(20)
        return encode(text)

    monkeypatch.setattr(engine, "encode", slowly)
    asking = asyncio.create_task(tokens(engine, max_new_tokens=1))
    await eventually(begun.is_set)
    go_on.set()
    assert await asking
