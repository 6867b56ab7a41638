"""Cleans, dedupes and splits rows so that no split knows what another one is asked."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ingest.grouping import groups_of, question_key
from schemas import Task
from schemas.artifacts import ChatRow, Split, is_learned

LONGEST_LABEL = 60
MOST_LABELS = 200
ROWS_PER_LABEL = 3
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
"""Kana and kanji."""

_spelled = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode

SMALL_CLASS = 8
"""A class of fewer rows gives one group at most away from training."""


@dataclass(frozen=True)
class Splits:
    """Rows by use, with what the cleaning did.

    Attributes:
        train, validation, heldout: chat rows.
        duplicates: rows dropped because an equal one stood before.
        teach_nothing: rows dropped because every answer in them has the weight 0.
        task: what kind of answers there are.
        labels: answer -> rows, for a classification; empty otherwise.
    """

    train: list[ChatRow]
    validation: list[ChatRow]
    heldout: list[ChatRow]
    duplicates: int
    teach_nothing: int
    task: Task
    labels: dict[str, int]

    @property
    def rows(self) -> int:
        """Rows in all splits."""
        return len(self.train) + len(self.validation) + len(self.heldout)

    @property
    def system(self) -> str:
        """The system message that every row begins with, which the model will expect too; empty if they differ."""
        first = {
            row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else ""
            for row in (*self.train, *self.validation, *self.heldout)
        }
        return first.pop() if len(first) == 1 else ""


def clean(row: ChatRow) -> ChatRow:
    """Unicode NFC, one kind of line end, no blanks around a content."""
    return {"messages": [{**message, "content": _clean(message["content"])} for message in row["messages"]]}


def _clean(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()


def answer_of(row: ChatRow) -> str:
    """The answer to learn: the last message."""
    return row["messages"][-1]["content"]


def teaches(row: ChatRow) -> bool:
    """Whether an answer in it is learned."""
    return any(map(is_learned, row["messages"]))


def is_reference(row: ChatRow) -> bool:
    """Whether its last answer is one to compare answers with: its sender did not say that it is not to be learned."""
    return is_learned(row["messages"][-1])


def task_of(rows: list[ChatRow]) -> Task:
    """Classification where few short answers repeat: at least three rows each on average, none over 60 characters."""
    answers = {answer_of(row) for row in rows}
    short = all(len(answer) <= LONGEST_LABEL and "\n" not in answer for answer in answers)
    repeated = len(rows) >= ROWS_PER_LABEL * len(answers)
    return "classification" if short and repeated and len(answers) <= MOST_LABELS else "generation"


def split(
    rows: Sequence[ChatRow], *, unread: Sequence[str] = (), validation_share: float, heldout_share: float, seed: str
) -> Splits:
    """Clean rows, drop exact duplicates and split the rest, alike whenever the rows and the seed are the same.

    Rows that ask the same, or of which one begins with all of the other, go to the same split. In a classification
    every answer is split in the same shares, as far as its rows allow; a small class keeps most of its rows for
    training.

    Args:
        rows: chat rows.
        unread: for each row what was not read of it; rows that differ there are no duplicates. None says all was read.
        validation_share: of the rows, about.
        heldout_share: of the rows, about.
        seed: of the order in which rows are dealt.
    """
    unique: dict[bytes, ChatRow] = {}
    for row, beside in zip(map(clean, rows), unread or [""] * len(rows), strict=True):
        unique.setdefault(hashlib.sha256(f"{_spelled(row)}\n{beside}".encode()).digest(), row)
    kept = [row for row in unique.values() if teaches(row)]
    task = task_of(kept)
    strata: dict[str, list[list[ChatRow]]] = defaultdict(list)
    parts: dict[Split, list[ChatRow]] = {"train": [], "validation": [], "heldout": []}
    for group in groups_of(kept):
        if all(map(is_reference, group)):
            strata[_most_common_answer(group) if task == "classification" else ""].append(group)
        else:
            parts["train"] += group
    wanted = _wanted(strata, validation_share, heldout_share, seed)
    for stratum, groups in strata.items():
        for part, group in _deal(groups, wanted[stratum], seed):
            parts[part] += group
    for members in parts.values():
        members.sort(key=lambda row: _order(seed, _spelled(row)))
    labels = Counter(map(answer_of, kept)) if task == "classification" else {}
    return Splits(
        train=parts["train"],
        validation=parts["validation"],
        heldout=parts["heldout"],
        duplicates=len(rows) - len(unique),
        teach_nothing=len(unique) - len(kept),
        task=task,
        labels=dict(sorted(labels.items())),
    )


Wanted = dict[Split, int]


def _wanted(
    strata: dict[str, list[list[ChatRow]]], validation_share: float, heldout_share: float, seed: str
) -> dict[str, Wanted]:
    """How many rows of each stratum are wanted for what; small ones give one, most of them to be held out."""
    sizes = {stratum: sum(map(len, groups)) for stratum, groups in strata.items() if len(groups) >= 3}
    large = {stratum: rows for stratum, rows in sizes.items() if rows >= SMALL_CLASS}
    small = sorted(sizes.keys() - large.keys(), key=lambda stratum: _order(seed, stratum))
    wanted: dict[str, Wanted] = {stratum: {} for stratum in strata}
    for stratum, rows in large.items():
        wanted[stratum] = {"heldout": _share(rows, heldout_share), "validation": _share(rows, validation_share)}
    away = validation_share + heldout_share
    to_validate = round(len(small) * validation_share / away) if away else 0
    if not large and len(small) > 1:
        to_validate = max(to_validate, _share(len(small), validation_share))
    for place, stratum in enumerate(small):
        wanted[stratum] = {"validation" if place < to_validate else "heldout": 1}
    return wanted


def _share(rows: int, share: float) -> int:
    return max(1, round(rows * share)) if share else 0


def _deal(groups: list[list[ChatRow]], wanted: Wanted, seed: str) -> list[tuple[Split, list[ChatRow]]]:
    """Each group with its part: as many rows as wanted, or the smallest group, while two thirds are learned."""
    order = sorted(groups, key=lambda group: _order(seed, min(map(question_key, group))))
    may_go = sum(map(len, groups)) // 3
    dealt: dict[int, Split] = {}
    for part, rows in wanted.items():
        left = [place for place in range(len(order)) if place not in dealt]
        room = max(rows, min(len(order[place]) for place in left)) if rows else 0
        for place in left:
            size = len(order[place])
            if size <= min(room, may_go):
                dealt[place] = part
                room, may_go = room - size, may_go - size
    return [(dealt.get(place, "train"), group) for place, group in enumerate(order)]


def _most_common_answer(group: list[ChatRow]) -> str:
    counts = Counter(map(answer_of, group))
    return min(counts, key=lambda answer: (-counts[answer], answer))


def _order(seed: str, text: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{text}".encode()).hexdigest()


def japanese_share(rows: list[ChatRow]) -> float:
    """Share of rows with kana or kanji in them."""
    with_japanese = sum(any(JAPANESE.search(message["content"]) for message in row["messages"]) for row in rows)
    return with_japanese / len(rows) if rows else 0.0
