"""What a method makes of a run's files: examples as tokens, in batches whose order depends on the seed alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

IGNORED = -100
"""Target of a position that is not learned."""


class BadTrainingData(Exception):
    """The files cannot be trained on; the message says which and why."""


@dataclass(frozen=True)
class Example:
    """One row, or one window of a text, as tokens.

    Attributes:
        ids: input tokens.
        targets: for each position the token it must predict, or `IGNORED`; same length as `ids`.
    """

    ids: list[int]
    targets: list[int]


@dataclass(frozen=True)
class Examples:
    """What can be learned from, in the order of its file, and how many rows or texts were left out.

    Attributes:
        too_long: rows of more tokens than the limit.
        unweighted: rows without an answer to learn: each has the weight 0.
        repeated: texts that stand in the file already.
    """

    rows: list[Example] = field(default_factory=list)
    too_long: int = 0
    unweighted: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class Place:
    """Where a window of held-out text stands in the training file.

    Attributes:
        line: of the file, from 0.
        start: its first character, in the document without the white space around it.
        end: the character after its last; not after `start` where the tokenizer does not tell.
        tokens: of the text; the token that ends the document is not among them.
    """

    line: int
    start: int
    end: int
    tokens: int


@dataclass(frozen=True)
class Data:
    """All that a run learns from and is measured on.

    Attributes:
        train: what is learned.
        validation: what chooses the epoch; may be empty.
        longest: most tokens of an example.
        heldout: what is measured with the finished adapter, where the method does that.
        heldout_places: where each example of `heldout` stands.
        heldout_documents: examples of each whole document in `heldout`; none where they are the end of one.
        kind: what the training file is, where it is text.
        unit: what an example is called, in the plural.
        note: what the job's owner should know of how it was split.
    """

    train: Examples
    validation: Examples
    longest: int
    heldout: Examples = field(default_factory=Examples)
    heldout_places: list[Place] = field(default_factory=list)
    heldout_documents: list[int] = field(default_factory=list)
    kind: Literal["document", "rows"] = "rows"
    unit: str = "rows"
    note: str = ""


def epoch_batches(examples: Sequence[Example], batch_size: int, seed: int, epoch: int) -> list[list[Example]]:
    """One epoch's batches: rows of like length together, in an order that depends only on the seed and the epoch.

    Rows are shuffled, sorted by length within pools of eight batches, cut, and the batches shuffled.
    """
    # Not for secrets: the order must be the same on every machine and attempt.
    order = random.Random(f"{seed}:{epoch}")  # noqa: S311
    rows = list(examples)
    order.shuffle(rows)
    pool = batch_size * 8
    batches = []
    for start in range(0, len(rows), pool):
        alike = sorted(rows[start : start + pool], key=lambda example: len(example.ids))
        batches += [alike[i : i + batch_size] for i in range(0, len(alike), batch_size)]
    order.shuffle(batches)
    return batches


def split_by_tokens(batch: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Cut a batch into parts of at most `max_tokens` padded tokens (at least one row), to bound memory."""
    parts: list[list[Example]] = []
    for example in sorted(batch, key=lambda example: len(example.ids)):
        if parts and (len(parts[-1]) + 1) * len(example.ids) <= max_tokens:
            parts[-1].append(example)
        else:
            parts.append([example])
    return parts
