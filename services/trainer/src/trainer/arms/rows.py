"""The rows an arm is fitted to: chosen before they are held, and read in portions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arms import MOST_ROWS, question_of, sample
from schemas import Task
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

SHOWN_BELOW: dict[Task, float] = {"classification": LEAST_REPEATED, "generation": 0.5}
"""The same share, of less than which rows are shown: of free text an arm must close half of what one answer lacks."""


class Row(NamedTuple):
    """A row with something to learn.

    Attributes:
        question: what is embedded.
        answer: what is to be learned.
        messages: all that was said.
    """

    question: str
    answer: str
    messages: Sequence[ChatMessage]

    @property
    def shown(self) -> str:
        """The line that the base model may be shown, without system messages.

        It is empty where user and assistant do not take turns, as chat templates want them to.
        """
        said = [one for one in self.messages if one["role"] not in NEVER_SHOWN]
        if any(one["role"] != TURNS[place % 2] for place, one in enumerate(said)):
            return ""
        return write_row({"messages": [{"role": one["role"], "content": one["content"]} for one in said]})


@dataclass(frozen=True)
class Chosen:
    """The rows that an arm is fitted to.

    Attributes:
        lines: theirs, in their order.
        generates: too few answers come again, so that the base model answers, shown the rows that are closest.
    """

    lines: NDArray[np.int64]
    generates: bool


def choose(path: Path, seed: int, *, shown_below: float) -> Chosen:
    """The rows that an arm is fitted to: of each answer its share. Of a row three numbers are held.

    Args:
        path: chat JSONL.
        seed: of the choice.
        shown_below: the share of rows with an answer that comes again, of less than which rows are shown.

    Raises:
        NoArm: they alone tell that none is worth a test, so that nothing is embedded in vain.
    """
    lines, answers, sizes = _facts(path, lambda row: row.answer)
    if not len(lines):
        raise NoArm("no row has a question and an answer to learn.")
    chosen = sample(answers, seed)
    _, first, times = np.unique(answers[chosen], return_index=True, return_counts=True)
    repeated = float(times[times > 1].sum() / len(chosen))
    if repeated < shown_below:
        return Chosen(_to_show(path, seed), generates=True)
    if repeated >= LEAST_REPEATED:
        if sizes[chosen[first]].sum() > MOST_ANSWER_BYTES:
            raise NoArm("its different answers are too long to be held by who answers by them.")
        return Chosen(lines[chosen], generates=False)
    raise NoArm(f"{repeated:.0%} of its rows have an answer that comes again, {LEAST_REPEATED:.0%} at least must.")


def _to_show(path: Path, seed: int) -> NDArray[np.int64]:
    """The lines of rows to show: each row once, none that is too long or cannot be shown, and not too much of all."""
    lines, rows, sizes = _facts(path, lambda row: row.shown)
    _, first = np.unique(rows, return_index=True)
    short = np.sort(first[(sizes[first] > 0) & (sizes[first] <= MOST_SHOWN_BYTES)])
    if not len(short):
        raise NoArm(
            "too few answers come again, and the base model can be shown no row: all are too long, or no turns."
        )
    most = MOST_ANSWER_BYTES // int(sizes[short].max())
    chosen: NDArray[np.int64] = lines[short[sample(rows[short], seed, min(most, MOST_ROWS))]]
    return chosen


def _facts(path: Path, of: Callable[[Row], str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each row its line, a number that follows from a text of it, and the bytes of that."""
    lines, numbers, sizes = [], [], []
    for line, row in _rows(path):
        if row is not None:
            text = of(row).encode()
            lines.append(line)
            numbers.append(_number(text))
            sizes.append(len(text))
    return np.array(lines, dtype=np.int64), np.array(numbers, dtype=np.int64), np.array(sizes, dtype=np.int64)


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
    return Row(question, last["content"], [*asked, last]) if question.strip() else None
