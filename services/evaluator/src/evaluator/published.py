"""Judges a candidate by what its run measured on held-out text: there are no rows whose answers could be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.errors import Invalid
from evaluator.verdict import Verdict
from schemas import Interval

Z = 1.96
"""Standard errors that a 95 % interval reaches to each side."""

Measured = dict[str, dict[str, Interval]]


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of held-out text, lower is better, under the names that a run publishes it by.

    Attributes:
        name: of the candidate's; of the base model's it has `base_` before it.
        error: standard error of the candidate's loss in nats a token, and of the base model's in the same way.
        gain: nats a token that the adapter saves; its standard error has `_error` after it.
        units: how many passages of text the errors come from.
    """

    name: str = "heldout_perplexity"
    error: str = "heldout_error"
    gain: str = "heldout_gain"
    units: str = "heldout_passages"

    def read(self, published: Mapping[str, float]) -> tuple[dict[str, Interval], Interval]:
        """The perplexity by system, and the gain.

        Raises:
            Invalid: the run published something else.
        """
        try:
            n = int(published[self.units])
            scores = {
                system: _perplexity(published[before + self.name], published[before + self.error], n)
                for system, before in (("base", "base_"), ("candidate", ""))
            }
            gain, error = published[self.gain], published[f"{self.gain}_error"]
        except KeyError as missing:
            message = f"The run published no {missing.args[0]!r}, by which the model would be judged."
            raise Invalid(message, code="nothing_published") from missing
        return scores, Interval(value=gain, low=gain - Z * error, high=gain + Z * error, n=n)


@dataclass(frozen=True)
class PublishedSuite:
    """What the candidates of a method are judged by that measures its held-out text itself.

    Attributes:
        name: as it stands in evidence.
        version: raised whenever the same numbers would be judged in another way.
        deciding: the metric the verdict rests on.
    """

    name: str
    version: int
    deciding: Perplexity

    @property
    def shown(self) -> dict[str, Any]:
        """As it stands in evidence."""
        return {"name": self.name, "version": self.version}

    def judge(self, published: Mapping[str, float], min_passages: int) -> tuple[Verdict, Measured, dict[str, Any]]:
        """The verdict, the value by metric and system, and what the evidence says beside them.

        Raises:
            Invalid: the run did not publish the deciding metric.
        """
        scores, gain = self.deciding.read(published)
        evidence = {
            "measured_by": "the training run",
            "passages": gain.n,
            "scores": {system: {self.deciding.name: score.model_dump()} for system, score in scores.items()},
            "differences": {"candidate - base": gain.model_dump()},
        }
        return _decide(scores, gain, min_passages), {self.deciding.name: scores}, evidence


PUBLISHED: dict[str, PublishedSuite] = {"pretrain": PublishedSuite("heldout_text", 1, Perplexity())}
"""By method; candidates of any other are judged by `SUITES`."""


def _perplexity(value: float, error: float, n: int) -> Interval:
    reach = math.exp(Z * error)
    return Interval(value=value, low=value / reach, high=value * reach, n=n)


def _decide(scores: Mapping[str, Interval], gain: Interval, min_passages: int) -> Verdict:
    """pass: the interval of the gain lies above 0; fail: it ends at or below 0; all between is for a person."""
    compared = (
        f"On {gain.n} held-out passages the fine-tuned model has the perplexity "
        f"{scores['candidate'].value:.2f} and the base model {scores['base'].value:.2f} (lower is better)."
    )
    if gain.n < min_passages:
        return Verdict("needs_human", f"{compared} They are too few to decide (at least {min_passages} needed).")
    difference = f"{gain.value:+.3f} nats a token (95 % interval {gain.low:+.3f} to {gain.high:+.3f})"
    if gain.high <= 0:
        return Verdict("fail", f"{compared} It is no better: {difference}.")
    if gain.low <= 0:
        return Verdict("needs_human", f"{compared} Whether it is better is not clear: {difference}.")
    return Verdict("pass", f"{compared} The gain is clear: {difference}.")
