"""Confidence intervals: Wilson's for proportions, the bootstrap for means and differences, Student's for clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from schemas import Interval

Z95 = 1.959963984540054
RESAMPLES = 5_000
STATISTIC_RESAMPLES = 500


def wilson(scores: Sequence[float]) -> Interval:
    """95 % interval of a proportion from scores that are 0 or 1 (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Unlike the normal approximation it has a width where all or none are right, and never leaves 0..1.
    """
    n = len(scores)
    if n == 0:
        return Interval(value=0.0, low=0.0, high=1.0, n=0)
    share = sum(scores) / n
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    reach = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    # Where all or none are right an end equals the share, but for a rounding error that must not put it beyond.
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return Interval(value=share, low=min(low, share), high=max(high, share), n=n)


def bootstrap_mean(scores: Sequence[float], seed: int) -> Interval:
    """95 % percentile interval of the mean over rows (Efron 1979, doi:10.1214/aos/1176344552)."""
    values = np.asarray(scores, dtype=float)
    if len(values) == 0:
        return Interval(value=0.0, low=0.0, high=0.0, n=0)
    means = values[_resamples(len(values), RESAMPLES, seed)].mean(axis=1)
    return _interval(float(values.mean()), means, len(values))


def bootstrap_difference(one: Sequence[float], other: Sequence[float], seed: int) -> Interval:
    """95 % interval of the mean of `one` minus that of `other`, both scored on the same rows in the same order.

    Rows are resampled as pairs, so what makes a row easy or hard for both cancels out (Koehn 2004,
    https://aclanthology.org/W04-3250).
    """
    return bootstrap_mean([a - b for a, b in zip(one, other, strict=True)], seed)


def bootstrap_statistic(statistic: Callable[[Sequence[int]], float], n: int, seed: int) -> Interval:
    """95 % interval of a statistic that is no mean, such as macro F1.

    Args:
        statistic: its value on the rows at the given places.
        n: number of rows.
        seed: of the resampling.
    """
    if n == 0:
        return Interval(value=0.0, low=0.0, high=0.0, n=0)
    values = np.asarray([statistic(places.tolist()) for places in _resamples(n, STATISTIC_RESAMPLES, seed)])
    return _interval(statistic(range(n)), values, n)


def clustered_mean(units: Sequence[Sequence[float]]) -> Interval:
    """Mean of all values with Student's 95 % interval over the units, where the values of a unit vary together.

    Of a single unit nothing is known of how it varies: its interval has no width.
    Source: Miller, "Adding Error Bars to Evals", arXiv 2411.00640, section 2.2 (clustered standard errors), with the
    factor n / (n - 1) for few clusters.
    """
    n, size = len(units), sum(map(len, units))
    mean = sum(map(sum, units)) / size
    if n < 2:
        return Interval(value=mean, low=mean, high=mean, n=n)
    squares = sum((sum(unit) - mean * len(unit)) ** 2 for unit in units)
    reach = t95(n - 1) * math.sqrt(n / (n - 1) * squares) / size
    return Interval(value=mean, low=mean - reach, high=mean + reach, n=n)


def t95(freedom: int) -> float:
    """Standard errors that a 95 % interval reaches to each side, with so many degrees of freedom.

    Source: Cornish-Fisher expansion of Student's t about the normal quantile, Abramowitz and Stegun 26.7.5; at 4
    degrees it is short by 0.3 %.
    """
    terms = (
        (Z95**3 + Z95) / 4,
        (5 * Z95**5 + 16 * Z95**3 + 3 * Z95) / 96,
        (3 * Z95**7 + 19 * Z95**5 + 17 * Z95**3 - 15 * Z95) / 384,
    )
    return Z95 + sum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))


def _resamples(n: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n, size=(count, n))


def _interval(value: float, resampled: np.ndarray, n: int) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high), n=n)
