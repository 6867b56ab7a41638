"""The rows an arm is fitted to: chosen before they are held, and read in portions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arms import question_of, sample
from schemas.artifacts import ChatMessage, is_learned, read_chat_row, write_row
from trainer.arms.orders import NoArm

MOST_ANSWER_BYTES = 2**22
"""Of all different answers: who answers by an arm holds them all."""

MOST_SHOWN_BYTES = 3000
"""Of a row that the base model is shown: of longer ones hardly one fits beside a question."""

TURNS = ("user", "assistant")
NEVER_SHOWN = ("system", "developer")
"""Roles of messages that are not shown with a row: who asks brings their own."""

LEAST_REPEATED = 0.1
"""Share of the rows whose answer another row has too: of no more can an arm be right when it is measured."""


class Row(NamedTuple):
    """A row with something to learn.

    Attributes:
        question: what is embedded.
        answer: what is to be learned.
        shown: the row as the base model may be shown it: a line without system messages; empty where user and
            assistant do not take turns in it, as chat templates want them to.
    """

    question: str
    answer: str
    shown: str


@dataclass(frozen=True)
class Chosen:
    """The lines of the rows that an arm is fitted to, in their order.

    Attributes:
        generates: no answer comes again, so that the base model answers, shown the rows that are closest.
    """

    lines: NDArray[np.int64]
    generates: bool


def choose(path: Path, seed: int, *, generating: bool) -> Chosen:
    """The rows that an arm is fitted to: of each answer its share. Of a row five numbers are held.

    Args:
        path: chat JSONL.
        seed: of the choice.
        generating: whether rows may be shown to the base model where hardly an answer comes again.

    Raises:
        NoArm: they alone tell that none is worth a test, so that nothing is embedded in vain.
    """
    facts = [
        (number, _number(row.answer.encode()), len(row.answer.encode()), _number(line := row.shown.encode()), len(line))
        for number, row in _rows(path)
        if row is not None
    ]
    if not facts:
        raise NoArm("no row has a question and an answer to learn.")
    lines, answers, sizes, rows, lengths = np.array(facts, dtype=np.int64).T
    chosen = sample(answers, seed)
    _, first, times = np.unique(answers[chosen], return_index=True, return_counts=True)
    repeated = float(times[times > 1].sum() / len(chosen))
    if repeated < LEAST_REPEATED:
        if not generating:
            raise NoArm(
                f"{repeated:.0%} of its rows have an answer that comes again, {LEAST_REPEATED:.0%} at least must."
            )
        return Chosen(lines[_to_show(rows, lengths, seed)], generates=True)
    if sizes[chosen[first]].sum() > MOST_ANSWER_BYTES:
        raise NoArm("its different answers are too long to be held by who answers by them.")
    return Chosen(lines[chosen], generates=False)


def _to_show(rows: NDArray[np.int64], lengths: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The places of rows to show: each once, and none that is too long or cannot be shown."""
    _, first = np.unique(rows, return_index=True)
    short = np.sort(first[(lengths[first] > 0) & (lengths[first] <= MOST_SHOWN_BYTES)])
    if not len(short):
        raise NoArm(
            "hardly an answer comes again, and the base model can be shown no row: all are too long, or no turns."
        )
    chosen: NDArray[np.int64] = short[sample(rows[short], seed)]
    return chosen


def group_of(question: str) -> int:
    """A number that questions share which differ in case and spacing alone, as rows meet in one split of a dataset."""
    return _number(" ".join(question.casefold().split()).encode())


def _number(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())


def read(path: Path, chosen: Chosen) -> Iterator[Row]:
    """The rows that were chosen, in their order."""
    wanted = iter(chosen.lines.tolist())
    line = next(wanted, None)
    for number, row in _rows(path):
        if number == line and row is not None:
            yield row
            line = next(wanted, None)
        if line is None:
            return


def _rows(path: Path) -> Iterator[tuple[int, Row | None]]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            yield number, _row(line) if line.strip() else None


def _row(line: bytes) -> Row | None:
    """A row; None where its last message is no answer to learn, or nothing was asked."""
    *asked, last = read_chat_row(line)["messages"]
    if not is_learned(last) or not last["content"]:
        return None
    question = question_of(asked)
    if not question.strip():
        return None
    said: list[ChatMessage] = [
        {"role": one["role"], "content": one["content"]} for one in [*asked, last] if one["role"] not in NEVER_SHOWN
    ]
    in_turns = all(one["role"] == TURNS[place % 2] for place, one in enumerate(said))
    return Row(question, last["content"], write_row({"messages": said}) if in_turns else "")
