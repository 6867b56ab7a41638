"""The picture of a learning curve: how often an arm was right, by how many rows it knew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from console.answers import PointAnswer

LEFT, RIGHT, TOP, BOTTOM = 40, 300, 12, 132
"""Of the picture: between which its points lie."""


@dataclass(frozen=True)
class Dot:
    """A point at `x` and `y`, its interval from `low` to `high`, and the rows below it."""

    x: float
    y: float
    low: float
    high: float
    rows: str


@dataclass(frozen=True)
class Curve:
    """A curve over a scale of rows that doubles at equal steps.

    Attributes:
        label: the same in words.
        dots: from few rows to many.
        line: through them, as SVG wants it.
        ticks: places along the upright scale, with what stands there.
    """

    label: str
    dots: tuple[Dot, ...]
    line: str
    ticks: tuple[tuple[float, str], ...]


def curve_of(points: Sequence[PointAnswer]) -> Curve | None:
    """The picture of a curve; None where there are no two points to join."""
    known = [one for one in points if one["rows"] > 0]
    if len(known) < 2 or known[0]["rows"] == known[-1]["rows"]:
        return None
    first, last = (math.log(known[place]["rows"]) for place in (0, -1))

    def across(rows: int) -> float:
        return round(LEFT + (RIGHT - LEFT) * (math.log(rows) - first) / (last - first), 1)

    dots = tuple(
        Dot(across(one["rows"]), _up(one["accuracy"]), _up(one["low"]), _up(one["high"]), f"{one['rows']:,}")
        for one in known
    )
    said = "; ".join(f"{one['rows']} rows: {one['accuracy']:.2f}" for one in known)
    line = " ".join(f"{one.x},{one.y}" for one in dots)
    return Curve(said, dots, line, tuple((_up(at), f"{at:g}") for at in (0.0, 0.5, 1.0)))


def _up(share: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * share, 1)
