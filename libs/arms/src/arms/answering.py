"""Ways to answer by embeddings, and how sure each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.artifacts import ArmKind

Numbers: TypeAlias = NDArray[np.float32]
Places: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Head:
    """A multinomial logistic regression whose classes are the answers.

    Attributes:
        coefficients: (answers, dimensions).
        intercepts: (answers,).
    """

    kind: ClassVar[ArmKind] = "head"

    coefficients: Numbers
    intercepts: Numbers

    @property
    def shape(self) -> tuple[int, int]:
        """How many answers it can give, and the length of its vectors."""
        answers, dimensions = self.coefficients.shape
        return answers, dimensions

    def confidences(self, vectors: Numbers) -> Numbers:
        """How likely each answer is: (questions, dimensions) -> (questions, answers), each row sums to 1."""
        return softmax(vectors @ self.coefficients.T + self.intercepts)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The answer of the row whose question is closest.

    Attributes:
        vectors: (rows, dimensions), unit vectors.
        places: (rows,), the answer of each row as a place among the answers.
        temperature: similarities are divided by it: the higher, the less sure it is.
        answers: how many there are.
    """

    kind: ClassVar[ArmKind] = "nearest"

    vectors: Numbers
    places: Places
    temperature: float
    answers: int

    @property
    def shape(self) -> tuple[int, int]:
        """How many answers it can give, and the length of its vectors."""
        return self.answers, self.vectors.shape[1]

    def confidences(self, vectors: Numbers) -> Numbers:
        """How likely each answer is, by its closest row: (questions, dimensions) -> (questions, answers)."""
        closest = closest_of_each(vectors, self.vectors, self.places, self.answers)
        return softmax(closest / np.float32(self.temperature))


@dataclass(frozen=True, eq=False)
class Shown:
    """The rows whose questions are closest, which the base model is shown before it answers.

    Its answers are rows; how sure it is of one is how similar that row's question is.

    Attributes:
        vectors: (rows, dimensions), unit vectors.
    """

    kind: ClassVar[ArmKind] = "nearest"

    vectors: Numbers

    def confidences(self, vectors: Numbers) -> Numbers:
        """How similar the question of each row is, from 0 to 1: (questions, dimensions) -> (questions, rows)."""
        similar: Numbers = np.clip(vectors @ self.vectors.T, 0, 1).astype(np.float32)
        return similar


Arm: TypeAlias = Head | Nearest | Shown


def closest_of_each(vectors: Numbers, rows: Numbers, places: Places, answers: int) -> Numbers:
    """The similarity of the closest row of each answer, (questions, answers); -1 where an answer has no row."""
    order = np.argsort(places, kind="stable")
    present, starts = np.unique(places[order], return_index=True)
    closest = np.full((len(vectors), answers), -1, dtype=np.float32)
    if len(order):
        closest[:, present] = np.maximum.reduceat(vectors @ rows[order].T, starts, axis=1)
    return closest


def softmax(scores: Numbers) -> Numbers:
    """Probabilities of scores, row by row."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely: Numbers = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return likely
