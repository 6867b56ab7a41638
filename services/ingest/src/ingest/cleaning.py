"""Cleans, dedupes and splits rows so that no split knows what another one is asked."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]
Task = Literal["classification", "generation"]

FEWEST_ROWS = 10
LONGEST_LABEL = 60
MOST_LABELS = 200
ROWS_PER_LABEL = 3


@dataclass(frozen=True)
class Splits:
    """Rows by use, with what the cleaning did.

    Attributes:
        train, validation, heldout: chat rows.
        duplicates: rows dropped because an equal one stood before.
        task: what kind of answers there are.
        labels: answer -> rows, for a classification; empty otherwise.
    """

    train: list[Row]
    validation: list[Row]
    heldout: list[Row]
    duplicates: int
    task: Task
    labels: dict[str, int]

    @property
    def system(self) -> str:
        """The system message that every row begins with, which the model will expect too; empty if they differ."""
        first = {
            row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else ""
            for row in (*self.train, *self.validation, *self.heldout)
        }
        return first.pop() if len(first) == 1 else ""


def clean(row: Row) -> Row:
    """Unicode NFC, one kind of line end, no blanks around a content."""
    return {
        "messages": [
            {**message, "content": unicodedata.normalize("NFC", message["content"].replace("\r\n", "\n")).strip()}
            for message in row["messages"]
        ]
    }


def answer_of(row: Row) -> str:
    """The answer to learn: the last message."""
    return str(row["messages"][-1]["content"])


def question_key(row: Row) -> str:
    """What a row asks, folded so that trivial variants meet in one split."""
    asked = [[message["role"], message["content"].casefold().split()] for message in row["messages"][:-1]]
    return json.dumps(asked, ensure_ascii=False)


def task_of(rows: list[Row]) -> Task:
    """Classification where few short answers repeat: at least three rows each on average, none over 60 characters."""
    answers = {answer_of(row) for row in rows}
    short = all(len(answer) <= LONGEST_LABEL and "\n" not in answer for answer in answers)
    repeated = len(rows) >= ROWS_PER_LABEL * len(answers)
    return "classification" if short and repeated and len(answers) <= MOST_LABELS else "generation"


def split(rows: list[Row], *, validation_share: float, heldout_share: float, seed: str) -> Splits:
    """Clean, drop exact duplicates, and split; the same rows and seed always give the same splits.

    Rows that ask the same go to the same split. In a classification every answer is split in the same shares, as far
    as its rows allow; each share has at least one row where there are three.
    """
    unique: dict[str, Row] = {}
    for row in map(clean, rows):
        unique.setdefault(json.dumps(row, ensure_ascii=False, sort_keys=True), row)
    kept = list(unique.values())
    task = task_of(kept)
    strata: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    home: dict[str, str] = {}
    for row in kept:
        key = question_key(row)
        stratum = home.setdefault(key, answer_of(row) if task == "classification" else "")
        strata[stratum][key].append(row)
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "heldout": []}
    for stratum in sorted(strata):
        groups = sorted(strata[stratum].items(), key=lambda item: _order(seed, item[0]))
        for position, (_, members) in enumerate(groups):
            parts[_part(position, len(groups), validation_share, heldout_share)] += members
    for part in parts.values():
        part.sort(key=lambda row: _order(seed, json.dumps(row, ensure_ascii=False, sort_keys=True)))
    labels: dict[str, int] = {}
    if task == "classification":
        for row in kept:
            labels[answer_of(row)] = labels.get(answer_of(row), 0) + 1
    return Splits(**parts, duplicates=len(rows) - len(kept), task=task, labels=dict(sorted(labels.items())))


def _order(seed: str, text: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{text}".encode()).hexdigest()


def _part(position: int, total: int, validation_share: float, heldout_share: float) -> str:
    heldout = max(1, round(total * heldout_share)) if total >= 3 else 0
    validation = max(1, round(total * validation_share)) if total >= 3 else 0
    if position < heldout:
        return "heldout"
    return "validation" if position < heldout + validation else "train"


def japanese_share(rows: list[Row]) -> float:
    """Share of rows with kana or kanji in them."""
    with_japanese = sum(
        any(_is_japanese(character) for character in json.dumps(row, ensure_ascii=False)) for row in rows
    )
    return with_japanese / len(rows) if rows else 0.0


def _is_japanese(character: str) -> bool:
    return "\u3040" <= character <= "\u30ff" or "\u4e00" <= character <= "\u9fff"
