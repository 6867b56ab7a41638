"""The rows an arm is fitted to: chosen before they are held, and read in portions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arms import question_of, sample

Row = tuple[str, str]
"""Question and answer."""


def choose(path: Path, seed: int) -> NDArray[np.int64]:
    """The lines that an arm is fitted to, in their order: of each answer its share. Of a row two numbers are held.

    Args:
        path: chat JSONL.
        seed: of the choice.
    """
    lines, answers = [], []
    for number, row in _rows(path):
        if row is not None:
            lines.append(number)
            answers.append(int.from_bytes(hashlib.blake2b(row[1].encode(), digest_size=8).digest()))
    if not lines:
        return np.empty(0, dtype=np.int64)
    return np.array(lines)[sample(np.array(answers, dtype=np.uint64), seed)]


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
    messages = json.loads(line)["messages"]
    last = messages[-1]
    answer = last.get("content")
    if last["role"] != "assistant" or last.get("weight", 1) == 0 or not isinstance(answer, str) or not answer:
        return None
    question = question_of(messages[:-1])
    return (question, answer) if question.strip() else None
