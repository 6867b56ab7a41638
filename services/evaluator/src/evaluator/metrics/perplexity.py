"""Perplexity: how surprised a system is by a text that it never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from evaluator.comparison import Comparison, sign_flip_p_value
from evaluator.intervals import clustered_mean
from schemas import Interval

Units = Sequence[Sequence[float]]
"""Losses in nats, token by token, of each part of a text that varies by itself: a document, or a passage."""

MOST_NATS = 700.0
"""Where e to the power of a number still is one."""


@dataclass(frozen=True)
class Perplexity:
    """e to the power of the mean loss of a token; lower is better.

    Attributes:
        name: as it stands in evidence.
    """

    name: str = "heldout_perplexity"

    def value(self, losses: Sequence[float]) -> float:
        """Its value for one system on some tokens, without an interval."""
        return math.exp(min(fmean(losses), MOST_NATS))

    def interval(self, units: Units) -> Interval:
        """Its value for one system, with an interval over the units."""
        loss = clustered_mean(units)
        value, low, high = (math.exp(min(one, MOST_NATS)) for one in (loss.value, loss.low, loss.high))
        return Interval(value=value, low=low, high=high, n=loss.n)

    def gain(self, candidate: Units, base: Units, seed: int) -> Comparison:
        """Nats a token by which a candidate is less surprised than the base model by the same tokens.

        The tokens are compared in pairs, so what makes a document easy or hard for both cancels out. Beside the
        interval, chance is asked whether it would favour as many and as long documents.
        """
        pairs = zip(base, candidate, strict=True)
        saved = [[before - after for before, after in zip(*pair, strict=True)] for pair in pairs]
        return Comparison(clustered_mean(saved), sign_flip_p_value([*map(sum, saved)], seed))


PERPLEXITY = Perplexity()
