"""Judges a candidate by what its run measured on held-out text: there are no rows whose answers could be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chassis.errors import Invalid
from evaluator.intervals import Z95
from evaluator.verdict import Verdict
from schemas import Interval

FEWEST_UNITS = 5
"""Documents, or passages, without which nobody but a person decides: of fewer even the error is a guess."""

Measured = dict[str, dict[str, Interval]]
Unit = Literal["documents", "passages"]


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of held-out text, lower is better, under the names that a run publishes it by.

    Attributes:
        name: of the candidate's; of the base model's it has `base_` before it.
        error: standard error of the candidate's loss in nats a token, and of the base model's in the same way.
        gain: nats a token that the adapter saves; its standard error has `_error` after it.
        passages: how much text that was, in passages.
        documents: how many whole documents the text was of, over which the errors are; 0: they are over the passages.
    """

    name: str = "heldout_perplexity"
    error: str = "heldout_error"
    gain: str = "heldout_gain"
    passages: str = "heldout_passages"
    documents: str = "heldout_documents"

    def read(self, published: Mapping[str, float]) -> tuple[dict[str, Interval], Interval, Unit]:
        """The perplexity by system on so many passages, the gain, and over what its interval is.

        Raises:
            Invalid: the run published something else.
        """
        try:
            passages, documents = int(published[self.passages]), int(published[self.documents])
            n = documents or passages
            t = t95(n - 1)
            scores = {
                system: _perplexity(published[before + self.name], t * published[before + self.error], passages)
                for system, before in (("base", "base_"), ("candidate", ""))
            }
            gain, reach = published[self.gain], t * published[f"{self.gain}_error"]
        except KeyError as missing:
            message = f"The run published no {missing.args[0]!r}, by which the model would be judged."
            raise Invalid(message, code="nothing_published") from missing
        interval = Interval(value=gain, low=gain - reach, high=gain + reach, n=n)
        return scores, interval, "documents" if documents else "passages"


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
        scores, gain, unit = self.deciding.read(published)
        evidence = {
            "measured_by": "the training run",
            "passages": scores["candidate"].n,
            "interval_over": {"unit": unit, "n": gain.n},
            "scores": {system: {self.deciding.name: score.model_dump()} for system, score in scores.items()},
            "differences": {"candidate - base": gain.model_dump()},
        }
        return _decide(scores, gain, unit, min_passages), {self.deciding.name: scores}, evidence


PUBLISHED: dict[str, PublishedSuite] = {"pretrain": PublishedSuite("heldout_text", 1, Perplexity())}
"""By method; candidates of any other are judged by `SUITES`."""


def t95(freedom: int) -> float:
    """Standard errors that a 95 % interval reaches to each side, with so many degrees of freedom.

    Source: Cornish-Fisher expansion of Student's t about the normal quantile, Abramowitz and Stegun 26.7.5; at 4
    degrees it is short by 0.3 %.
    """
    if freedom < 1:
        return Z95
    terms = (
        (Z95**3 + Z95) / 4,
        (5 * Z95**5 + 16 * Z95**3 + 3 * Z95) / 96,
        (3 * Z95**7 + 19 * Z95**5 + 17 * Z95**3 - 15 * Z95) / 384,
    )
    return Z95 + sum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))


def _perplexity(value: float, reach: float, n: int) -> Interval:
    return Interval(value=value, low=value / math.exp(reach), high=value * math.exp(reach), n=n)


def _decide(scores: Mapping[str, Interval], gain: Interval, unit: Unit, min_passages: int) -> Verdict:
    """pass: the interval of the gain lies above 0; fail: it ends at or below 0; all between is for a person."""
    passages = scores["candidate"].n
    compared = (
        f"On {passages} held-out passages the fine-tuned model has the perplexity "
        f"{scores['candidate'].value:.2f} and the base model {scores['base'].value:.2f} (lower is better)."
    )
    if passages < min_passages:
        return Verdict("needs_human", f"{compared} They are too few to decide (at least {min_passages} needed).")
    difference = f"{gain.value:+.3f} nats a token"
    if gain.n < FEWEST_UNITS:
        few = f"held-out {unit} to say how sure that is: {gain.n}, and at least {FEWEST_UNITS} are needed"
        return Verdict("needs_human", f"{compared} The gain is {difference}, and there are too few {few}.")
    difference += f" (95 % interval {gain.low:+.3f} to {gain.high:+.3f}, over {gain.n} {unit})"
    if gain.high <= 0:
        return Verdict("fail", f"{compared} It is no better: {difference}.")
    if gain.low <= 0:
        return Verdict("needs_human", f"{compared} Whether it is better is not clear: {difference}.")
    return Verdict("pass", f"{compared} The gain is clear: {difference}.")
