"""The suites: by task or method what is measured, which metric decides, and which systems are asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from evaluator.domain import System
from evaluator.metrics import (
    ACCURACY,
    BLEU,
    CHRF,
    EXACT_MATCH,
    MACRO_F1,
    MACRO_PRECISION,
    MACRO_RECALL,
    PERPLEXITY,
    ROUGE_L,
    AwaitedMetric,
    Metric,
    Perplexity,
    RowMetric,
    SetMetric,
)
from schemas import Task

TOLERANCE = 0.05
"""Nats a token by which what is served may gain more or less than its training run measured on the same text: other
arithmetic moves a mean of hundreds of tokens by a hundredth."""

LEAST_CLOSED: dict[Task, float] = {"classification": 0.0, "generation": 0.5}
"""Of the gap between a guess and no error at all, how much an arm must close besides being better beyond doubt.

A class is right or wrong. Free text that is only written alike, as answers to other questions are, has a share of its
characters in common with the right one: it may be better than any one answer to all, and be of no use.
"""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""What a metric may be called: its name is a field of documents."""

MOST_METRICS = 32
"""As many as `EvaluationCompleted.measured` holds."""


@dataclass(frozen=True)
class Suite:
    """What the candidates of one task are tested by.

    Attributes:
        name: as it stands in evidence.
        version: raised whenever another test would be made of the same rows.
        metrics: all that is measured.
        deciding: the one the verdict rests on, of each row, so that systems are compared row by row.
        systems: who is asked, in this order; `few_shot` only where there are examples to show.
        of_classes: whether answers are classes: each is measured by itself too, and a candidate must have learned more
            than the commonest of them.
        opponent: what a candidate must be better than: its base model, always giving one guess at the answer, or both.
        least_closed: of the gap between that guess and no error at all, how much a candidate must close besides.
    """

    name: str
    version: int
    metrics: tuple[Metric, ...]
    deciding: RowMetric | AwaitedMetric
    systems: tuple[System, ...] = ("base", "few_shot", "candidate")
    of_classes: bool = False
    opponent: Literal["base", "guess", "both"] = "base"
    least_closed: float = 0.0

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        if wrong := [name for name in names if not NAME.fullmatch(name)]:
            raise ValueError(f"suite {self.name}: a metric cannot be called {wrong[0]!r}")
        if len(names) > MOST_METRICS:
            raise ValueError(f"suite {self.name}: {len(names)} metrics, and an event tells of {MOST_METRICS}")
        if len(set(names)) < len(names):
            raise ValueError(f"suite {self.name}: two metrics have one name, {names}")
        if isinstance(self.deciding, SetMetric) or self.deciding not in self.metrics:
            raise ValueError(f"suite {self.name}: the deciding metric must be a row's, and one of {names}")
        if self.deciding.range != (0.0, 1.0):
            raise ValueError(f"suite {self.name}: the deciding metric must go from 0, the worst, to 1, the best")
        if len(set(self.systems)) < len(self.systems):
            raise ValueError(f"suite {self.name}: a system is asked twice, {list(self.systems)}")
        if self.scores_guess and not isinstance(self.deciding, RowMetric):
            raise ValueError(f"suite {self.name}: the commonest answer is scored too, so nothing can be waited for")
        if self.opponent != "guess" and not {"base", "candidate"} <= set(self.systems):
            raise ValueError(f"suite {self.name}: base and candidate must be asked, else nothing is compared")
        if self.opponent == "guess" and self.systems != ("candidate",):
            raise ValueError(f"suite {self.name}: beside a guess the candidate alone is asked, not {self.systems}")

    @property
    def scores_guess(self) -> bool:
        """Whether a guess at the answer is scored beside the systems."""
        return self.of_classes or self.opponent != "base"

    @property
    def shown(self) -> dict[str, str | int]:
        """As it stands in evidence."""
        return {"name": self.name, "version": self.version}


@dataclass(frozen=True)
class TextSuite:
    """What the candidates of a method are tested by that holds text out, not rows with answers.

    Attributes:
        name: as it stands in evidence.
        version: raised whenever another test would be made of the same text.
        deciding: the metric.
        systems: who is asked, in this order.
        fewest_documents: fewer decide nothing: chance alone favours five of five too often.
        tolerance: how far the gain may be from what the run measured, in nats a token.
    """

    name: str
    version: int
    deciding: Perplexity
    systems: tuple[System, ...] = ("base", "candidate")
    fewest_documents: int = 6
    tolerance: float = TOLERANCE

    @property
    def shown(self) -> dict[str, str | int]:
        """As it stands in evidence."""
        return {"name": self.name, "version": self.version}


SUITES: dict[Task, Suite] = {
    "classification": Suite(
        "heldout", 3, (ACCURACY, MACRO_PRECISION, MACRO_RECALL, MACRO_F1), deciding=ACCURACY, of_classes=True
    ),
    "generation": Suite("heldout", 3, (CHRF, ROUGE_L, BLEU, EXACT_MATCH), deciding=CHRF),
}

ARM_SUITES: dict[Task, Suite] = {
    task: Suite(
        "heldout_arm",
        1,
        suite.metrics,
        deciding=suite.deciding,
        systems=("candidate",),
        of_classes=suite.of_classes,
        opponent="guess",
        least_closed=LEAST_CLOSED[task],
    )
    for task, suite in SUITES.items()
}
"""What arms are tested by: people wait for them, so nobody else is asked."""

GENERATING_SUITES: dict[Task, Suite] = {
    task: Suite(
        "heldout_generating_arm",
        1,
        suite.metrics,
        deciding=suite.deciding,
        systems=("base", "candidate"),
        of_classes=suite.of_classes,
        opponent="both",
        least_closed=LEAST_CLOSED[task],
    )
    for task, suite in SUITES.items()
}
"""What arms are tested by that the base model answers by: they cost more than it does, and must be worth that."""

TEXT_SUITES: dict[str, TextSuite] = {"pretrain": TextSuite("heldout_text", 2, PERPLEXITY)}
"""By method; adapters of any other are tested by `SUITES`."""
