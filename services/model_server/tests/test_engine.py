"""The engine on the tiny base model: batches, adapters, proofs, and TGI's wire format."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from engine_harness import adapter_folder, at_rest
from fastapi import FastAPI
from safetensors.torch import save_file
from text_generation.types import Response as TGIResponse
from text_generation.types import StreamResponse

from arithmetic import answering
from model_server import batching
from model_server.api import routes
from model_server.engine import Engine
from model_server.errors import AdapterNotFound, EngineStopped, InputTooLong
from model_server.sequence import GenerateRequest, Token
from serving import AdapterRefused
from testkit import eventually
from testkit.adapters import seal


async def tokens(engine: Engine, prompt: str, **options: Any) -> list[Token]:
    request = GenerateRequest(inputs=prompt, **{"max_new_tokens": 8, "top_n_tokens": 5, **options})
    return [token async for token in engine.generate(request)]


def likelihoods(answer: list[Token]) -> list[float]:
    """Log-probs of the fifth likeliest tokens: they tell adapters apart even where the likeliest is the same."""
    return [token.top[-1][2] for token in answer[:4]]


async def test_greedy_answers_do_not_depend_on_company(engine: Engine) -> None:
    prompts = ["cancel my order", "カードを紛失しました", "where", "please refund the payment to my card"]
    alone = [[token.id for token in await tokens(engine, prompt)] for prompt in prompts]
    together = await asyncio.gather(*(tokens(engine, prompt) for prompt in prompts))
    assert [[token.id for token in one] for one in together] == alone


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
async def test_an_adapter_is_proven_whatever_the_engine_computes_in(
    engine: Engine, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: torch.dtype
) -> None:
    folder = adapter_folder(engine, tmp_path / "adapter")
    chosen = {(torch.float32, engine.base.parameters, answering): kind}
    monkeypatch.setattr("model_server.engine.fastest", lambda *asked: chosen[asked])
    other = Engine(tiny_models / "tiny-test", threads=1)
    try:
        proof = await other.load(folder)
        transport = httpx2.ASGITransport(FastAPI(routes=routes(other).routes))
        async with httpx2.AsyncClient(transport=transport, base_url="http://engine") as client:
            info = (await client.get("/info")).json()
    finally:
        other.close()
    assert proof.adapter_id in other.proofs
    assert info["model_dtype"] == str(kind)


def words(engine: Engine, count: int, seed: int) -> str:
    """A text of exactly that many tokens."""
    known = (" cancel", " order", " card", " parcel", " refund", " account", " payment", " address", " my", " the")
    single = [word for word in known if len(engine.tokenizer(word, add_special_tokens=False).input_ids) == 1]
    assert len(single) > 4
    return "".join(random.Random(seed).choices(single, k=count))


def all_likelihoods(answer: list[Token]) -> list[float]:
    return [value for token in answer for _, _, value in token.top]


@pytest.mark.parametrize(
    ("shared", "own"),
    [
        (80, [1, 120, 30]),
        (63, [1, 200]),
        (64, [1, 64, 65]),
        (300, [63, 1, 129]),
        (70, [1, 700]),
        (130, [1, 2, 90, *range(3, 17)]),
        (0, [1, 63, 64, 65]),
    ],
    ids=str,
)
async def test_log_probabilities_do_not_depend_on_company(engine: Engine, shared: int, own: list[int]) -> None:
    """Across the window of 64, the block that is worth sharing, and the batch of 16: a longer company hides nothing."""
    prompts = [words(engine, shared, 0) + words(engine, count, place + 1) for place, count in enumerate(own)]
    assert len(engine.encode(prompts[0])) == 1 + shared + own[0]
    alone = [all_likelihoods(await tokens(engine, prompt, max_new_tokens=2)) for prompt in prompts]
    with at_rest(engine):
        waiting = [asyncio.create_task(tokens(engine, prompt, max_new_tokens=2)) for prompt in prompts]
        await eventually(lambda: engine.queued == len(prompts))
    for answer, expected in zip(await asyncio.gather(*waiting), alone, strict=True):
        assert all_likelihoods(answer) == pytest.approx(expected, abs=1e-3)


async def test_a_beginning_shared_by_unequal_prompts_is_computed_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, own = 400, [1, 30, 5]
    prompts = [words(engine, shared, 0) + words(engine, count, place + 1) for place, count in enumerate(own)]
    computed = []
    decoder = engine._passes._decoder

    def counting(**given: Any) -> Any:
        computed.append(given["input_ids"].numel())
        return decoder(**given)

    monkeypatch.setattr(engine._passes, "_decoder", counting)
    with at_rest(engine):
        waiting = [asyncio.create_task(tokens(engine, prompt, max_new_tokens=1)) for prompt in prompts]
        await eventually(lambda: engine.queued == len(prompts))
    await asyncio.gather(*waiting)
    assert sum(computed) <= shared + 1 + len(own) * (max(own) + 2)


async def test_an_adapter_is_proven_and_answers_differently(engine: Engine, tmp_path: Path) -> None:
    proof = await engine.load(adapter_folder(engine, tmp_path / "a"))
    assert proof.fingerprint_delta < 0.01
    assert proof.base_delta > 0.25
    base, own = await asyncio.gather(
        tokens(engine, "cancel my order"), tokens(engine, "cancel my order", adapter_id=proof.adapter_id)
    )
    assert likelihoods(base) != pytest.approx(likelihoods(own), abs=0.01)
    again = await tokens(engine, "cancel my order", adapter_id=proof.adapter_id)
    assert [token.id for token in own] == [token.id for token in again]
    await engine.unload(proof.adapter_id)
    with pytest.raises(AdapterNotFound):
        await tokens(engine, "cancel my order", adapter_id=proof.adapter_id)


async def test_two_adapters_in_one_batch_each_answer_as_alone(engine: Engine, tmp_path: Path) -> None:
    one = await engine.load(adapter_folder(engine, tmp_path / "1", seed=1))
    two = await engine.load(adapter_folder(engine, tmp_path / "2", seed=2))
    names = [one.adapter_id, two.adapter_id, None, one.adapter_id]
    alone = [likelihoods(await tokens(engine, "where is it", adapter_id=name)) for name in names]
    together = await asyncio.gather(*(tokens(engine, "where is it", adapter_id=name) for name in names))
    for answer, expected in zip(together, alone, strict=True):
        assert likelihoods(answer) == pytest.approx(expected, abs=1e-3)
    assert alone[0] != pytest.approx(alone[1], abs=0.01)
    assert alone[0] != pytest.approx(alone[2], abs=0.01)


@pytest.mark.parametrize(
    "what", ["weights", "base", "config", "fingerprint", "version", "no version", "nothing", "missing", "format"]
)
async def test_a_wrong_adapter_is_refused(engine: Engine, tmp_path: Path, what: str) -> None:
    folder = adapter_folder(engine, tmp_path / "a", strength=0.0 if what == "nothing" else 0.5)
    if what == "weights":
        with (folder / "adapter_model.safetensors").open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x7f")
    elif what == "base":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "base_digest": "0" * 64}))
    elif what == "config":
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "use_dora": True}))
        seal(folder, engine.base)
    elif what == "fingerprint":
        contents = json.loads((folder / "fingerprint.json").read_text())
        contents["probes"][0]["adapter"] = [value - 1 for value in contents["probes"][0]["adapter"]]
        (folder / "fingerprint.json").write_text(json.dumps(contents))
        seal(folder, engine.base)
    elif what == "version":
        contents = json.loads((folder / "fingerprint.json").read_text())
        (folder / "fingerprint.json").write_text(json.dumps({**contents, "version": 1}))
        seal(folder, engine.base)
    elif what == "no version":
        contents = json.loads((folder / "fingerprint.json").read_text())
        (folder / "fingerprint.json").write_text(json.dumps({"probes": contents["probes"]}))
        seal(folder, engine.base)
    elif what == "format":
        (folder / "adapter_model.safetensors").write_bytes(b"not tensors")
        seal(folder, engine.base)
    elif what == "missing":
        from safetensors.torch import load_file

        weights = load_file(folder / "adapter_model.safetensors")
        weights.pop(min(weights))
        save_file(weights, folder / "adapter_model.safetensors")
        seal(folder, engine.base)
    with pytest.raises(AdapterRefused):
        await engine.load(folder)


SHARED = "Where is my parcel? It should have been delivered. " * 6


async def test_an_adapter_dropped_while_requests_wait_answers_them_to_the_end(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "WORTH_SHARING", 8)
    proof = await engine.load(adapter_folder(engine, tmp_path / "a"))
    prompts = [SHARED + end for end in ("1", "2")]
    alone = [likelihoods(await tokens(engine, prompt, adapter_id=proof.adapter_id)) for prompt in prompts]
    with at_rest(engine):
        waiting = [asyncio.create_task(tokens(engine, prompt, adapter_id=proof.adapter_id)) for prompt in prompts]
        await eventually(lambda: engine.queued == 2)
        await engine.unload(proof.adapter_id)
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    for answer, expected in zip(answers, alone, strict=True):
        assert likelihoods(answer) == pytest.approx(expected, abs=1e-3)
    assert await asyncio.wait_for(tokens(engine, "where"), 10)


async def test_a_prefill_that_fails_fails_its_requests_and_nobody_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(batching, "WORTH_SHARING", 8)
        broken.setattr(engine._passes, "_prefilled", lambda *_: 1 / 0)
        with at_rest(engine):
            waiting = [asyncio.create_task(tokens(engine, SHARED + end)) for end in ("one", "two")]
            await eventually(lambda: engine.queued == 2)
        failed = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
        assert [type(one) for one in failed] == [ZeroDivisionError] * 2
    assert await asyncio.wait_for(tokens(engine, "where"), 10)


async def test_what_one_request_asks_for_fails_it_alone(engine: Engine) -> None:
    with at_rest(engine):
        wrong = asyncio.create_task(tokens(engine, "where", do_sample=True, top_k=-1))
        right = asyncio.create_task(tokens(engine, "where"))
        await eventually(lambda: engine.queued == 2)
    with pytest.raises(RuntimeError, match="out of range"):
        await asyncio.wait_for(wrong, 20)
    assert await asyncio.wait_for(right, 20)


async def test_who_left_before_its_turn_keeps_no_place_in_the_queue(engine: Engine) -> None:
    with at_rest(engine):
        leaving = [asyncio.create_task(tokens(engine, "where")) for _ in range(3)]
        await eventually(lambda: engine.queued == 3)
        for one in leaving:
            one.cancel()
        await asyncio.wait(leaving)
        assert engine.queued == 0
    assert await asyncio.wait_for(tokens(engine, "where"), 10)


async def test_work_given_up_before_its_turn_does_not_end_the_engine(engine: Engine) -> None:
    with at_rest(engine):
        assert engine._chore(lambda: None).cancel()
    assert await asyncio.wait_for(tokens(engine, "where"), 10)


async def test_an_engine_whose_thread_ended_says_so(tiny_models: Path) -> None:
    engine = Engine(tiny_models / "tiny-test", threads=2)
    with at_rest(engine):
        waiting = asyncio.create_task(tokens(engine, "where"))
        await eventually(lambda: engine.queued == 1)
        engine._stopping = True
    with pytest.raises(EngineStopped):
        await asyncio.wait_for(waiting, 10)
    await asyncio.to_thread(engine._thread.join, 10)
    with pytest.raises(EngineStopped):
        await asyncio.wait_for(tokens(engine, "where"), 10)
    with pytest.raises(EngineStopped):
        await engine.ping()
    app = FastAPI()
    app.include_router(routes(engine))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://engine") as http:
        assert (await http.get("/health")).status_code == 503


async def test_stops_limits_and_seeds(engine: Engine) -> None:
    whole = await tokens(engine, "cancel my order", max_new_tokens=12)
    text = whole[-1].generated_text
    assert whole[-1].finish_reason in ("length", "eos_token")
    stopped = await tokens(engine, "cancel my order", max_new_tokens=12, stop=[text[2:4]])
    assert stopped[-1].finish_reason == "stop_sequence"
    assert len(stopped) <= len(whole)
    sampled = [await tokens(engine, "where", do_sample=True, temperature=1.5, seed=7) for _ in range(2)]
    assert [token.id for token in sampled[0]] == [token.id for token in sampled[1]]
    with pytest.raises(InputTooLong, match="must be <="):
        await tokens(engine, "where", max_new_tokens=100_000)


async def test_leaving_ends_the_generation(engine: Engine) -> None:
    async with aclosing(engine.generate(GenerateRequest(inputs="where", max_new_tokens=1500))) as stream:
        async for _ in stream:
            break
    quick = await asyncio.wait_for(tokens(engine, "where", max_new_tokens=2), 10)
    assert quick


@pytest.fixture
def http(engine: Engine) -> httpx2.AsyncClient:
    app = FastAPI()
    app.include_router(routes(engine))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://engine")


async def test_the_wire_format_is_tgis(http: httpx2.AsyncClient) -> None:
    body = {"inputs": "cancel my order", "parameters": {"max_new_tokens": 4, "top_n_tokens": 2}}
    answer = await http.post("/generate", json=body)
    parsed = TGIResponse.model_validate(answer.json())
    assert parsed.details.generated_tokens == len(parsed.details.tokens)
    assert int(answer.headers["x-prompt-tokens"]) > 0
    stream = await http.post("/generate_stream", json=body)
    events = [StreamResponse(**json.loads(line[5:])) for line in stream.text.splitlines() if line.startswith("data:")]
    assert events[-1].generated_text == parsed.generated_text
    assert events[-1].details is not None


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/generate", {"inputs": "x", "parameters": {"adapter_id": "ad-unknown"}}, 404, "adapter_not_found"),
        ("/generate_stream", {"inputs": "x", "parameters": {"adapter_id": "ad-unknown"}}, 404, "adapter_not_found"),
        ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 99999}}, 422, "validation"),
    ],
)
async def test_refusals(http: httpx2.AsyncClient, path: str, body: Any, status: int, kind: str) -> None:
    answer = await http.post(path, json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)


async def test_tokenize_and_info(http: httpx2.AsyncClient) -> None:
    pieces = (await http.post("/tokenize", json={"inputs": "order", "add_special_tokens": False})).json()
    assert "".join(piece["text"] for piece in pieces) == "order"
    assert (await http.get("/info")).json()["model_id"] == "tiny-test"
    assert (await http.get("/health")).status_code == 200
