"""Pictures of how often an arm was right: by how many rows it knew, and by how sure it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from console.answers import BinAnswer, PointAnswer

LEFT, RIGHT, TOP, BOTTOM = 40, 300, 12, 132
"""Of the picture: between which its points lie."""


def _up(share: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * share, 1)


@dataclass(frozen=True)
class Dot:
    """A point at `x` and `y`, and its interval from `low` to `high`."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A curve of shares, with their intervals.

    Attributes:
        label: the same in words.
        dots: from left to right.
        marks: places along the lower scale, with what stands there.
        ideal: a line that they should lie on, as SVG wants it; empty where there is none.
    """

    label: str
    dots: tuple[Dot, ...]
    marks: tuple[tuple[float, str], ...]
    ideal: str = ""
    ticks: ClassVar[tuple[tuple[float, str], ...]] = tuple((_up(at), f"{at:g}") for at in (0.0, 0.5, 1.0))

    @property
    def line(self) -> str:
        """Through the dots, as SVG wants it."""
        return " ".join(f"{one.x},{one.y}" for one in self.dots)


def learning_curve(points: Sequence[PointAnswer]) -> Curve | None:
    """A learning curve, over a scale of rows that doubles at equal steps; None where no two points can be joined."""
    known = [one for one in points if one["rows"] > 0]
    if len(known) < 2 or known[0]["rows"] == known[-1]["rows"]:
        return None
    first, last = (math.log(known[place]["rows"]) for place in (0, -1))
    dots = tuple(_dot((math.log(one["rows"]) - first) / (last - first), one) for one in known)
    said = "; ".join(f"{one['rows']} rows: {one['accuracy']:.2f}" for one in known)
    return Curve(said, dots, tuple((dot.x, f"{one['rows']:,}") for dot, one in zip(dots, known, strict=True)))


def reliability_curve(bins: Sequence[BinAnswer]) -> Curve | None:
    """How often an arm was right, by how sure it was, beside the line of one that is right as often as it is sure.

    The scale begins below the least confidence: most lie close to 1. None where there is nothing to show.
    """
    if not bins:
        return None
    first = min(9, int(10 * bins[0]["confidence"])) / 10

    def across(confidence: float) -> float:
        return (confidence - first) / (1 - first)

    dots = tuple(_dot(across(one["confidence"]), one) for one in bins)
    said = "; ".join(f"{one['confidence']:.3f} sure: {one['accuracy']:.3f} right" for one in bins)
    marks = tuple((_along(across(at)), f"{at:g}") for at in (first, round((first + 1) / 2, 2), 1.0))
    return Curve(said, dots, marks, ideal=f"{LEFT},{_up(first)} {RIGHT},{TOP}")


def _dot(along: float, shown: PointAnswer | BinAnswer) -> Dot:
    return Dot(_along(along), _up(shown["accuracy"]), _up(shown["low"]), _up(shown["high"]))


def _along(share: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * share, 1)
