"""Answers dealt at random: how they are dealt and counted, and that the code that decides refuses them."""

from __future__ import annotations

import zlib
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import shuffled_labels
from bench.data_sets import DataSet, Row
from bench.deciding import Deciding
from bench.kept import Kept, Key
from bench.shuffled_labels import DECIDED, TRUE, Shuffled, decide, shuffled, table, too_often

from schemas.artifacts import EmbedderFacts

INTENTS = {
    "late": "my parcel number {} has not come yet",
    "refund": "give me the money back for order {}",
    "opening": "until when is shop {} open today?",
}
ROWS = [
    Row("Which is it?", asked.format(7 * number), intent) for number in range(40) for intent, asked in INTENTS.items()
]


class Words:
    """An embedder by which questions are alike that share words."""

    dimensions = 64
    longest = 512

    def __init__(self, _threads: int = 1) -> None:
        pass

    def queries(self, texts: list[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in text.split():
                vector[zlib.crc32(word.encode()) % self.dimensions] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def facts(self) -> EmbedderFacts:
        return EmbedderFacts(id="words", digest="ab", dimensions=self.dimensions)

    def passages(self, texts: list[str]) -> np.ndarray:
        raise NotImplementedError

    def tokens(self, text: str) -> int:
        raise NotImplementedError

    def count(self, text: str) -> int:
        raise NotImplementedError


def one(came_to: str, seed: int, by: str = DECIDED) -> Shuffled:
    return Shuffled(
        key=Key(data_set="xsid-ja", rows=60, seed=seed, base=by), came_to=came_to, reason="Because of its rows."
    )


def key(rows: int, seed: int) -> Key:
    return Key(data_set="xsid-ja", rows=rows, seed=seed, base=DECIDED)


@pytest.fixture(autouse=True)
def set_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of questions that are easily told apart, in place of one."""
    made = DataSet("xsid-ja", (60, 90), lambda _: "", lambda _: ("", "", ()))
    monkeypatch.setitem(shuffled_labels.DATA_SETS, "xsid-ja", made)
    monkeypatch.setattr(DataSet, "rows", lambda *_: ROWS)


def test_the_answers_of_an_upload_are_dealt_among_its_questions_another_way_each_time() -> None:
    uploaded, _ = shuffled_labels.DATA_SETS["xsid-ja"].cut(ROWS, 90, 1)
    dealt, again, other = shuffled(ROWS, key(90, 1)), shuffled(ROWS, key(90, 1)), shuffled(ROWS, key(90, 2))
    assert [row.question for row in dealt] == [row.question for row in uploaded]
    assert Counter(row.answer for row in dealt) == Counter(row.answer for row in uploaded)
    assert sum(a.answer != b.answer for a, b in zip(dealt, uploaded, strict=True)) > 30
    assert dealt == again != other


def test_the_code_that_decides_lets_an_arm_of_true_answers_through_and_none_of_dealt_ones() -> None:
    deciding = Deciding(Words())
    uploaded, _ = shuffled_labels.DATA_SETS["xsid-ja"].cut(ROWS, 90, 1)
    came_to, reason = deciding.on(uploaded, 1)
    assert (came_to, "It is clearly better" in reason) == ("answers", True)
    assert "answers" not in [deciding.on(shuffled(ROWS, key(90, seed)), seed)[0] for seed in range(1, 6)]


def test_what_is_decided_already_is_not_decided_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    class Told:
        def __init__(self, _: object) -> None:
            pass

        def on(self, _: list[Row], seed: int) -> tuple[str, str]:
            seeds.append(seed)
            return "refused", "Because."

    monkeypatch.setattr(shuffled_labels, "Deciding", Told)
    monkeypatch.setattr(shuffled_labels, "E5", Words)
    kept = Kept(tmp_path / "done.jsonl", Shuffled)
    asked: dict[str, Any] = {"only": ["xsid-ja"], "rows": [60], "data": tmp_path, "uploads": 0}
    decide(Namespace(decisions=2, **asked), kept)
    again = Kept(tmp_path / "done.jsonl", Shuffled)
    again.resume()
    decide(Namespace(decisions=3, **asked), again)
    assert seeds == [1, 2, 1, 2, 3, 3], "dealt and true"
    assert Counter(one.key.base for one in again.finished) == {DECIDED: 3, TRUE: 3}
    assert again.finished == kept.finished + again.finished[4:]


def test_the_table_counts_arms_that_came_to_answer_by_way_set_and_size() -> None:
    found = [one("refused", 1), one("answers", 2), one("no arm", 3), one("refused", 1, by="tiny-test")]
    lines = table(found).splitlines()
    assert lines[2].startswith("| deciding code | xsid-ja | 60 | answers 1, no arm 1, refused 1 | 1 of 3 (33.3 %, ")
    assert lines[3].startswith("| tiny-test | xsid-ja | 60 | refused 1 | 0 of 1 (0.0 %, ")
    assert [line.split(" (")[0] for line in lines[4:]] == [
        "| deciding code | all | | | 1 of 3",
        "| tiny-test | all | | | 0 of 1",
    ]


@pytest.mark.parametrize(("answering", "ways"), [(5, []), (6, [DECIDED])])
def test_more_than_five_in_a_hundred_are_too_many(answering: int, ways: list[str]) -> None:
    found = [one("answers" if number < answering else "refused", number) for number in range(100)]
    others = [one("refused", 1, by="tiny-test"), one("answers", 1, by=TRUE)]
    assert too_often([*found, *others]) == ways
