"""What a given text is worth: one pass for many texts, each read by its own adapter, fair beside generation."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from engine_harness import adapter_folder, at_rest
from fastapi import FastAPI

from model_server import scoring
from model_server.api import routes
from model_server.engine import Engine
from model_server.errors import AdapterNotFound, EngineStopped, InputTooLong, Overloaded
from model_server.requests import BEYOND_TGI
from model_server.scoring import Scored
from model_server.sequence import GenerateRequest
from testkit import eventually

TEXTS = ["cancel my order", "カードを紛失しました", "where", "please refund the payment to my card " * 9]


def values(scored: list[Scored]) -> list[float]:
    return [one.logprob for one in scored if one.logprob is not None]


async def alone(engine: Engine, text: str, adapter_id: str | None) -> list[float]:
    """By another way: the whole text's logits at once, without padding, company or slices."""
    ids = engine.encode(text)
    adapter = engine._adapters[adapter_id] if adapter_id else None

    def work() -> list[float]:
        passes = engine._passes
        passes._plan.uses = [(adapter, None)] if adapter else []
        with torch.inference_mode():
            hidden = passes._decoder(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, :-1]
            log_probs = torch.log_softmax((hidden @ passes._head.t()).float(), dim=-1)
        return [float(log_probs[place, token]) for place, token in enumerate(ids[1:])]

    return await asyncio.wrap_future(engine._chore(work))


async def test_each_text_is_scored_by_its_own_adapter_whatever_its_company(engine: Engine, tmp_path: Path) -> None:
    proofs = [await engine.load(adapter_folder(engine, tmp_path / f"{seed}", seed=seed)) for seed in (1, 2)]
    asked = [(text, who) for text in TEXTS for who in (None, proofs[0].adapter_id, proofs[1].adapter_id)]
    with at_rest(engine):
        waiting = [asyncio.create_task(engine.score(text, who)) for text, who in asked]
        await eventually(lambda: engine.queued == len(asked))
    for (text, who), scored in zip(asked, await asyncio.gather(*waiting), strict=True):
        assert [one.id for one in scored] == engine.encode(text)
        assert scored[0].logprob is None
        assert values(scored) == pytest.approx(await alone(engine, text, who), abs=1e-3)
    by_who = [values(await engine.score(TEXTS[0], who)) for who in (None, *(proof.adapter_id for proof in proofs))]
    assert all(abs(one[0] - other[0]) > 0.01 for one, other in pairwise(by_who))


async def test_the_likeliest_of_each_place_are_told_where_they_are_wanted(engine: Engine) -> None:
    scored = await engine.score(TEXTS[3], None, 5)
    assert len(scored) > scoring.POSITIONS
    assert scored[0].top == []
    for one in scored[1:]:
        assert len(one.top) == 5
        likeliest = [value for _, value in one.top]
        assert likeliest == sorted(likeliest, reverse=True)
        assert dict(one.top).get(one.id, one.logprob) == one.logprob
        assert one.logprob <= likeliest[0]
    assert (await engine.score(TEXTS[0], None))[1].top == []


async def test_a_pass_is_bounded_and_every_answer_has_a_token_between_two_passes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "SCORED_TOKENS", 64)
    order, rows = [], []
    step, of, advance = engine._scorings.step, engine._scorings.of, engine._advance

    def passed() -> None:
        order.append("pass" if engine._running else "pass alone")
        step()

    def seen(taken: Any) -> Any:
        rows.append([len(one.prompt) for one in taken])
        return of(taken)

    monkeypatch.setattr(engine._scorings, "step", passed)
    monkeypatch.setattr(engine._scorings, "of", seen)
    monkeypatch.setattr(engine, "_advance", lambda batch: (order.append("token"), advance(batch)))
    with at_rest(engine):
        answer = asyncio.create_task(_generated(engine, 12))
        scores = [asyncio.create_task(engine.score(f"{TEXTS[0]} {number}", None)) for number in range(60)]
        await eventually(lambda: engine.queued == 61)
    assert len(await asyncio.wait_for(answer, 60)) == 12
    assert len(await asyncio.wait_for(asyncio.gather(*scores), 60)) == 60
    assert all(max(of_pass) * len(of_pass) <= 64 for of_pass in rows)
    assert sum(map(len, rows)) == 60
    assert max(map(len, rows)) > 1
    while_answering = [one for one in order if one != "pass alone"]
    assert while_answering.count("pass") >= 5
    assert all({one, other} != {"pass"} for one, other in pairwise(while_answering))


async def _generated(engine: Engine, count: int) -> list[Any]:
    request = GenerateRequest(inputs="how do I", max_new_tokens=count, logit_bias=dict.fromkeys(_ends(engine), -100.0))
    return [token async for token in engine.generate(request)]


def _ends(engine: Engine) -> set[int]:
    return engine.vocabulary.end_ids


async def test_a_text_nobody_waits_for_any_more_is_not_scored(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    of = engine._scorings.of
    monkeypatch.setattr(engine._scorings, "of", lambda taken: (scored.append(len(taken)), of(taken))[1])
    with at_rest(engine):
        left = asyncio.create_task(engine.score("where is it", None))
        stays = asyncio.create_task(engine.score("where", None))
        await eventually(lambda: engine.queued == 2)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
    assert await asyncio.wait_for(stays, 20)
    assert scored == [1]


async def test_what_cannot_be_scored_is_refused_and_fails_nobody_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AdapterNotFound):
        await engine.score("where", "ad-unknown")
    with pytest.raises(InputTooLong):
        await engine.score("where " * engine.max_tokens, None)
    with at_rest(engine), monkeypatch.context() as full:
        full.setattr(engine, "_most_waiting", 1)
        first = asyncio.create_task(engine.score("where", None))
        await eventually(lambda: engine.queued == 1)
        with pytest.raises(Overloaded):
            await engine.score("where", None)
    assert await asyncio.wait_for(first, 20)
    with monkeypatch.context() as broken:
        broken.setattr(engine._scorings, "_scored", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(engine.score("where", None), 20)
    assert await asyncio.wait_for(engine.score("where", None), 20)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_who_waits_for_a_score_hears_that_the_engine_stops(tiny_models: Path) -> None:
    engine = Engine(tiny_models / "tiny-test", threads=1)
    engine._scorings.step = sys.exit  # type: ignore[method-assign]
    waiting = asyncio.create_task(engine.score("where", None))
    with pytest.raises(EngineStopped):
        await asyncio.wait_for(waiting, 20)


async def test_the_wire_is_tgis_with_details_of_the_prompt(engine: Engine) -> None:
    app = FastAPI()
    app.include_router(routes(engine))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://engine") as http:

        async def ask(path: str = "/generate", **parameters: Any) -> httpx2.Response:
            return await http.post(path, json={"inputs": TEXTS[1], "parameters": parameters})

        assert "score" in BEYOND_TGI
        assert (await http.get("/info")).json()["beyond_tgi"] == BEYOND_TGI
        alone = (await ask(decoder_input_details=True, max_new_tokens=0, top_n_tokens=2)).json()
        details = alone["details"]
        assert (alone["generated_text"], details["generated_tokens"], details["tokens"]) == ("", 0, [])
        prefill = details["prefill"]
        assert [one["id"] for one in prefill] == engine.encode(TEXTS[1])
        assert [one["special"] for one in prefill] == [place < engine.begins for place in range(len(prefill))]
        assert prefill[0]["logprob"] is None
        assert all(one["logprob"] < 0 and len(one["top_tokens"]) == 2 for one in prefill[1:])
        text = b"".join(bytes(one["bytes"]) for one in prefill if not one["special"])
        assert text.decode() == TEXTS[1]
        both = (await ask(decoder_input_details=True, max_new_tokens=2)).json()
        assert [one["id"] for one in both["details"]["prefill"]] == [one["id"] for one in prefill]
        assert 1 <= both["details"]["generated_tokens"] <= 2
        assert (await ask(max_new_tokens=2)).json()["details"]["prefill"] == []
        for path, parameters in [
            ("/generate", {"max_new_tokens": 0}),
            ("/generate_stream", {"max_new_tokens": 0}),
            ("/generate_stream", {"decoder_input_details": True}),
        ]:
            refused = await ask(path, **parameters)
            assert (refused.status_code, refused.json()["error_type"]) == (422, "validation")
        unknown = await ask(decoder_input_details=True, max_new_tokens=0, adapter_id="ad-unknown")
        assert (unknown.status_code, unknown.json()["error_type"]) == (404, "adapter_not_found")
