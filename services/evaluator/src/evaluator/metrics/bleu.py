"""BLEU: how many runs of up to four words the answers have in common with their references, taken together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from sacrebleu.metrics import bleu as sacrebleu

from evaluator.metrics.metric import Case, SetMetric
from evaluator.words import words

ORDER = 4
"""The longest run of words that is counted."""


def counts(cases: Sequence[Case]) -> np.ndarray:
    """For each case: the words of answer and reference, then by length of run those in common and those of the answer.

    Shape (cases, 2 + 2 · 4). A run counts at most as often as the reference has it.
    """
    found = np.zeros((len(cases), 2 + 2 * ORDER), dtype=int)
    for place, case in enumerate(cases):
        score = _scorer().sentence_score(" ".join(words(case.answer)), [" ".join(words(case.reference))])
        found[place] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return found


def bleu(summed: np.ndarray) -> float:
    """Corpus BLEU-4 (Papineni et al. 2002, https://aclanthology.org/P02-1040) from summed counts, by sacrebleu.

    Lengths of which no answer has a run are left out, so that equal texts of three words score 1, not 0; a length
    without a run in common is smoothed (`exp`).
    """
    answered, wanted, *runs = map(int, summed)
    score = sacrebleu.BLEU.compute_bleu(
        runs[:ORDER], runs[ORDER:], answered, wanted, smooth_method="exp", effective_order=True, max_ngram_order=ORDER
    )
    return min(1.0, float(score.score) / 100)  # a rounding error above it, where all is in common


@cache
def _scorer() -> sacrebleu.BLEU:
    return sacrebleu.BLEU(tokenize="none", max_ngram_order=ORDER, effective_order=True)


BLEU = SetMetric("BLEU", counts, bleu)
