"""The data sets of Table Q: how their records are asked, and which rows are uploaded and which are tested.

A set is a folder with its name that holds `open.jsonl`, a JSON object a line with the fields that are read here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTED = 100
"""Rows a seed that no upload holds, or what the largest upload leaves."""

FILE = "open.jsonl"

Record = dict[str, Any]


class NoSet(Exception):
    """A folder holds no such set; the message says what is missing."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        system: what every row of the set begins with.
        question: what is asked.
        answer: what is taught.
        accepted: what counts as right besides.
    """

    system: str
    question: str
    answer: str
    accepted: tuple[str, ...] = ()

    @property
    def asked(self) -> list[Any]:
        """The messages before the answer."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.question}]

    @property
    def line(self) -> str:
        """The row as it is uploaded."""
        return json.dumps({"messages": [*self.asked, {"role": "assistant", "content": self.answer}]})

    def is_right(self, said: str) -> bool:
        """Whether an answer is the one that is taught, or as good, but for case and spacing."""
        return _folded(said) in map(_folded, (self.answer, *self.accepted))


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: of its folder.
        sizes: rows of the uploads.
        instruction: makes the system message of all records.
        row: makes question, answer and what counts as right besides, of one record.
        max_tokens: of an answer.
        stop: what ends an answer; nothing where answers have several lines.
    """

    name: str
    sizes: tuple[int, ...]
    instruction: Callable[[list[Record]], str]
    row: Callable[[Record], tuple[str, str, tuple[str, ...]]]
    max_tokens: int = 24
    stop: str | None = "\n"

    def rows(self, folder: Path) -> list[Row]:
        """All rows; of those that ask the same, the first.

        Raises:
            NoSet: they are not there, or look otherwise.
        """
        path = folder / self.name / FILE
        try:
            records = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
            system = self.instruction(records)
            made = [Row(system, *self.row(record)) for record in records]
        except (OSError, ValueError, KeyError) as error:
            raise NoSet(f"{path}: {error!r}; a set is a folder with {FILE} in it, see bench/data_sets.py.") from error
        return list({_folded(row.question): row for row in reversed(made)}.values())[::-1]

    def cut(self, rows: list[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
        """So many rows to upload and those to test, of which no upload of this seed holds any.

        Raises:
            NoSet: there are not as many.
        """
        order = random.Random(f"{self.name} {seed}").sample(rows, len(rows))
        tested = min(TESTED, len(rows) - max(self.sizes))
        if tested < 1 or tested + count > len(rows):
            raise NoSet(
                f"{self.name}: {len(rows)} rows are too few to upload {count} and test {max(tested, 1)} others."
            )
        return order[tested : tested + count], order[:tested]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _of_classes(records: list[Record]) -> str:
    classes = sorted({record["label"] for record in records})
    return f"Say what the message is about: one of {', '.join(classes)}."


def _labelled(record: Record) -> tuple[str, str, tuple[str, ...]]:
    return record["text"], record["label"], ()


def _slots(record: Record) -> tuple[str, str, tuple[str, ...]]:
    asked_for = ", ".join(record["requested"]) or "nothing"
    return f"Asked for: {asked_for}\nMessage: {record['text']}", json.dumps(record["slots"], sort_keys=True), ()


def _read(record: Record) -> tuple[str, str, tuple[str, ...]]:
    answer, *others = record["answers"]
    return f"{record['title']}\n{record['context']}\n\n{record['question']}", answer, tuple(others)


def _instructed(record: Record) -> tuple[str, str, tuple[str, ...]]:
    return record["messages"][-1]["content"], record["chosen"], ()


def _always(text: str) -> Callable[[list[Record]], str]:
    return lambda _: text


CLASSES = (
    DataSet("banking77-12", (20, 60, 288), _of_classes, _labelled),
    DataSet("banking77-12hard", (20, 60, 288), _of_classes, _labelled),
    DataSet("xsid-ja", (20, 60, 100), _of_classes, _labelled),
)
TEXTS = (
    DataSet(
        "restaurant8k",
        (20, 60, 288),
        _always("Write what the message says of people, date, time, first_name and last_name as JSON."),
        _slots,
        max_tokens=64,
    ),
    DataSet("jsquad", (20, 60, 288), _always("本文の言葉で答えてください。"), _read, max_tokens=32),
    DataSet(
        "instruction-ja",
        (20, 60, 288),
        _always("日本語で答えてください。"),
        _instructed,
        max_tokens=256,
        stop=None,
    ),
)
"""Answers that hardly come again."""

DATA_SETS = {one.name: one for one in (*CLASSES, *TEXTS)}
