"""ROUGE-L: the longest common subsequence of words."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from evaluator.metrics.metric import Case, RowMetric
from evaluator.words import words

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


def rouge_l(case: Case) -> float:
    """F1 of the longest common subsequence (ROUGE-L; Lin 2004, https://aclanthology.org/W04-1013), by rouge-score.

    The package's own tokenizer keeps a-z and 0-9 only and gives two equal Japanese texts 0; ours does not, see `words`.
    """
    return float(_scorer().score(case.reference, case.answer)["rougeL"].fmeasure)


class _Tokens:
    """The tokenizer given to rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _scorer() -> RougeScorer:
    # Imported at first use: rouge-score brings nltk along, 180 MB that classification never needs.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Tokens())


ROUGE_L = RowMetric("rougeL", rouge_l)
