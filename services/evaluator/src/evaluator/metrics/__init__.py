"""How answers are scored: one metric, or one family of them, in a file; all are right for Japanese as for English."""

from evaluator.metrics.bleu import BLEU
from evaluator.metrics.chrf import CHRF
from evaluator.metrics.classes import MACRO_F1, MACRO_PRECISION, MACRO_RECALL
from evaluator.metrics.matching import ACCURACY, EXACT_MATCH
from evaluator.metrics.metric import AwaitedMetric, Case, Metric, RowMetric, SetMetric
from evaluator.metrics.perplexity import PERPLEXITY, Perplexity
from evaluator.metrics.rouge import ROUGE_L

__all__ = [
    "ACCURACY",
    "BLEU",
    "CHRF",
    "EXACT_MATCH",
    "MACRO_F1",
    "MACRO_PRECISION",
    "MACRO_RECALL",
    "PERPLEXITY",
    "ROUGE_L",
    "AwaitedMetric",
    "Case",
    "Metric",
    "Perplexity",
    "RowMetric",
    "SetMetric",
]
