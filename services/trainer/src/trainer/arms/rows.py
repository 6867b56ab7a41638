"""The rows an arm is fitted to: chosen before they are held, and read in portions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arms import question_of, sample
from schemas.artifacts import is_learned, read_chat_row
from trainer.arms.orders import NoArm

Row = tuple[str, str]
"""Question and answer."""

MOST_ANSWER_BYTES = 2**22
"""Of all different answers: who answers by an arm holds them all."""

LEAST_REPEATED = 0.1
"""Share of the rows whose answer another row has too: of no more can an arm be right when it is measured."""


def choose(path: Path, seed: int) -> NDArray[np.int64]:
    """The lines that an arm is fitted to, in their order: of each answer its share. Of a row three numbers are held.

    Args:
        path: chat JSONL.
        seed: of the choice.

    Raises:
        NoArm: their answers alone tell that none is worth a test, so that nothing is embedded in vain.
    """
    lines, answers, sizes = [], [], []
    for number, row in _rows(path):
        if row is not None:
            answer = row[1].encode()
            lines.append(number)
            answers.append(_number(answer))
            sizes.append(len(answer))
    if not lines:
        raise NoArm("no row has a question and an answer to learn.")
    known = np.array(answers, dtype=np.int64)
    chosen = sample(known, seed)
    _, first, times = np.unique(known[chosen], return_index=True, return_counts=True)
    if np.array(sizes)[chosen[first]].sum() > MOST_ANSWER_BYTES:
        raise NoArm("its different answers are too long to be held by who answers by them.")
    repeated = float(times[times > 1].sum() / len(chosen))
    if repeated < LEAST_REPEATED:
        raise NoArm(f"{repeated:.0%} of its rows have an answer that comes again, {LEAST_REPEATED:.0%} at least must.")
    return np.array(lines)[chosen]


def group_of(question: str) -> int:
    """A number that questions share which differ in case and spacing alone, as rows meet in one split of a dataset."""
    return _number(" ".join(question.casefold().split()).encode())


def _number(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())


def read(path: Path, lines: NDArray[np.int64]) -> Iterator[Row]:
    """The rows of some lines, in their order."""
    wanted = iter(lines.tolist())
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
    """Question and answer of a row; None where its last message is no answer to learn, or nothing was asked."""
    *asked, last = read_chat_row(line)["messages"]
    if not is_learned(last) or not last["content"]:
        return None
    question = question_of(asked)
    return (question, last["content"]) if question.strip() else None
