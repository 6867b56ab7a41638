"""How one answer is scored against its reference: always between 0 and 1, and right for Japanese as for English."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from sacrebleu.metrics.chrf import CHRF

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

# One token for each character of scripts written without spaces (kana, Han, Thai, Lao, Khmer, Myanmar), and one for
# each run of other letters and digits.
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
TOKEN = re.compile(rf"[{UNSPACED}\U00020000-\U0003ffff]|[^\W_{UNSPACED}\U00020000-\U0003ffff]+")


def normalise(text: str) -> str:
    """Text as answers are compared: Unicode NFKC (full-width letters become ASCII), case-folded, trimmed."""
    return unicodedata.normalize("NFKC", text).casefold().strip()


def exact_match(answer: str, reference: str) -> float:
    """1 if the two are equal once normalised, else 0. Its mean over rows is the accuracy."""
    return float(normalise(answer) == normalise(reference))


def chrf(answer: str, reference: str) -> float:
    """Character n-gram F-score (chrF2, n to 6; Popović 2015, https://aclanthology.org/W15-3049), by sacrebleu.

    It needs no tokenizer, so it treats every script alike.
    """
    return float(_chrf().sentence_score(normalise(answer), [normalise(reference)]).score) / 100


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence (ROUGE-L; Lin 2004, https://aclanthology.org/W04-1013), by rouge-score.

    The package's own tokenizer keeps a-z and 0-9 only and gives two equal Japanese texts 0; ours does not, see `TOKEN`.
    """
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def macro_f1(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean over the classes of the references of each class's F1, 2·TP / (2·TP + FP + FN).

    An answer that is no class at all is a miss for its reference's class and a false alarm for none.
    """
    said = [normalise(answer) for answer in answers]
    meant = [normalise(reference) for reference in references]
    hits = Counter(reference for answer, reference in zip(said, meant, strict=True) if answer == reference)
    claimed, present = Counter(said), Counter(meant)
    scores = [2 * hits[label] / (claimed[label] + present[label]) for label in present]
    return sum(scores) / len(scores) if scores else 0.0


class _Tokens:
    """The tokenizer given to rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return TOKEN.findall(normalise(text))


@cache
def _chrf() -> CHRF:
    return CHRF()


@cache
def _rouge() -> RougeScorer:
    # Imported at first use: rouge-score brings nltk along, 180 MB that classification never needs.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Tokens())
