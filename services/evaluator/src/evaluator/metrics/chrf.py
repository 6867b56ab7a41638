"""chrF: how many short runs of characters an answer has in common with its reference."""

from __future__ import annotations

from functools import cache

from sacrebleu.metrics import chrf as sacrebleu

from evaluator.metrics.metric import Case, RowMetric
from evaluator.words import normalise


def chrf(case: Case) -> float:
    """Character n-gram F-score (chrF2, n to 6; Popović 2015, https://aclanthology.org/W15-3049), by sacrebleu.

    It needs no tokenizer, so it treats every script alike.
    """
    return min(1.0, float(_scorer().sentence_score(normalise(case.answer), [normalise(case.reference)]).score) / 100)


@cache
def _scorer() -> sacrebleu.CHRF:
    return sacrebleu.CHRF()


CHRF = RowMetric("chrF", chrf)
