"""A share with its exact interval."""

from __future__ import annotations

import math
from collections.abc import Callable

LEVEL = 0.025
"""Of each side of an interval."""


def interval(right: int, asked: int) -> tuple[float, float]:
    """Exact 95 % interval of a share (Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    if asked == 0:
        return 0.0, 1.0
    low = _where(lambda share: _at_least(right, asked, share) >= LEVEL) if right else 0.0
    high = _where(lambda share: 1 - _at_least(right + 1, asked, share) <= LEVEL) if right < asked else 1.0
    return low, high


def _where(reached: Callable[[float], bool]) -> float:
    """The share from which on something is so."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return (low + high) / 2


def _at_least(right: int, asked: int, share: float) -> float:
    return sum(math.comb(asked, k) * share**k * (1 - share) ** (asked - k) for k in range(right, asked + 1))


def share_of(count: int, all_of_them: int) -> str:
    """A count with its share and interval."""
    low, high = interval(count, all_of_them)
    share = f"{100 * count / all_of_them:.1f} %, " if all_of_them else ""
    return f"{count} of {all_of_them} ({share}95 % interval {100 * low:.1f} to {100 * high:.1f})"
