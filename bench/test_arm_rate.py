"""Answers a core gives in a second: arms, from the question's text, beside an adapter that writes a label."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from arms import Arm, fit
from model_server.engine import Engine
from model_server.lora import PEFT_PREFIX, build
from model_server.sequence import GenerateRequest
from rag_indexer.e5 import E5

BASE = "SARTOR_BENCH_BASE"
ROUNDS = 3
RANK = 16
LABEL_TOKENS = 4
"""Of an answer such as `card_payment_fee_charged`: what an adapter writes, one pass each."""

ROWS, CLASSES = 500, 12
QUESTIONS = [
    f"{begin} {rest}?"
    for begin in ("Why was I charged", "How long do I wait", "Who do I ask", "Where do I see")
    for rest in ("for the night train", "about a lost card", "for a transfer abroad", "after a refund")
]

Ask = Callable[[list[str]], Awaitable[None]]


def arm_of(kind: str, embedder: E5) -> Ask:
    """An arm of as many rows and classes, fitted on random vectors: what they say does not change what it costs."""
    numbers = np.random.default_rng(1)
    vectors = numbers.standard_normal((ROWS, embedder.dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    arm: Arm = fit("head" if kind == "head" else "nearest", vectors, np.arange(ROWS, dtype=np.int32) % CLASSES, 1).arm

    async def ask(questions: list[str]) -> None:
        arm.confidences(embedder.queries(questions)).argmax(axis=1)

    return ask


def adapter_of(engine: Engine) -> Ask:
    """An adapter of random weights, asked as a conversation is."""
    numbers = torch.Generator().manual_seed(1)
    tensors = {}
    for path, layer in engine._layers.items():
        tensors[f"{PEFT_PREFIX}{path}.lora_A.weight"] = torch.randn(RANK, layer.in_features, generator=numbers)
        tensors[f"{PEFT_PREFIX}{path}.lora_B.weight"] = torch.zeros(layer.out_features, RANK)
    stops = {ids[-1] for ids in map(engine.encode, engine.base.stop_tokens)}
    engine._adapters["ad-1"] = build("ad-1", tensors, 1.0, engine._layers, RANK)

    async def one(question: str) -> None:
        prompt = engine.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        asked = GenerateRequest(str(prompt), "ad-1", LABEL_TOKENS, logit_bias=dict.fromkeys(stops, -100.0))
        assert len([token async for token in engine.generate(asked)]) == LABEL_TOKENS

    async def ask(questions: list[str]) -> None:
        await asyncio.gather(*map(one, questions))

    return ask


async def core_seconds(ask: Ask, questions: list[str], at_once: int) -> float:
    """Processor time of all questions, so many at a time; at the median of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for first in range(0, len(questions), at_once):
            await ask(questions[first : first + at_once])
        taken.append(time.process_time() - began)
    return statistics.median(taken)


@pytest.mark.skipif(BASE not in os.environ, reason=f"{BASE} names no folder of a base model: a tiny one tells nothing")
@pytest.mark.timeout(900)
async def test_answers_a_core_gives_in_a_second() -> None:
    embedder, threads = E5(1), torch.get_num_threads()
    engine = Engine(Path(os.environ[BASE]), threads=1)
    try:
        ways = {kind: arm_of(kind, embedder) for kind in ("head", "nearest")} | {"adapter": adapter_of(engine)}
        for ask in ways.values():
            await ask(QUESTIONS[:2])  # what is done once is no part of an answer
        title = f"answers a core-second, base {engine.base.id}"
        print(f"\n{title:48}{'one by one':>12}{'16 at once':>12}{'ratio':>16}")
        rates = {
            name: [len(QUESTIONS) / await core_seconds(ask, QUESTIONS, at_once) for at_once in (1, len(QUESTIONS))]
            for name, ask in ways.items()
        }
    finally:
        engine.close()
        torch.set_num_threads(threads)
    for name, (alone, together) in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[name], rates["adapter"], strict=True)]
        print(f"  {name:46}{alone:12.1f}{together:12.1f}{ratios[0]:8.1f}{ratios[1]:7.1f}x")
    assert rates["head"][0] > rates["adapter"][0]
