"""The evidence of an evaluation: every answer with its score, and the intervals the verdict rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluator.comparison import ALPHA, Comparison, compare
from evaluator.domain import Evaluation, Plan
from evaluator.intervals import RESAMPLES, bootstrap_mean, bootstrap_statistic, wilson
from evaluator.rows import Row
from evaluator.scorers import chrf, exact_match, macro_f1, rouge_l
from evaluator.store import Answer
from evaluator.verdict import Verdict, decide
from schemas import Interval

SUITE = {"name": "heldout", "version": 2}
SCORERS = {
    "classification": {"accuracy": exact_match},
    "generation": {"chrF": chrf, "rougeL": rouge_l, "exact_match": exact_match},
}
PROPORTIONS = ("accuracy", "exact_match")

Scores = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Report:
    """A result: the verdict, the scores of its metric by system, and the whole evidence as JSON."""

    verdict: Verdict
    metric: str
    scores: dict[str, Interval]
    evidence: dict[str, Any]


def primary_metric(task: str) -> str:
    """The metric the verdict of a task rests on: `accuracy` or `chrF`."""
    return next(iter(SCORERS[task]))


def build_report(
    evaluation: Evaluation,
    plan: Plan,
    heldout: Sequence[Row],
    train: Sequence[Row],
    answers: Sequence[Answer],
    *,
    min_rows: int,
    earlier: int,
) -> Report:
    """Score the answers, compare the systems and judge the candidate.

    A row counts only if every system answered it, so that all are scored on the same rows.

    Args:
        evaluation: what was tested.
        plan: what was asked.
        heldout: all held-out rows.
        train: all training rows.
        answers: every answer.
        min_rows: fewer rows decide nothing.
        earlier: how many candidates were judged on these held-out rows before.
    """
    given = {(answer.system, answer.row): answer for answer in answers}
    counted = [
        heldout[place] for place in plan.rows if all(given[system, place].refused is None for system in plan.systems)
    ]
    scores = _score(evaluation.task, plan, counted, given)
    metric = primary_metric(evaluation.task)
    intervals = {system: _intervals(found, plan.seed) for system, found in scores.items()}
    if evaluation.task == "classification":
        for system in plan.systems:
            intervals[system]["macro_f1"] = _macro_f1(system, counted, given, plan.seed)
    comparisons = _comparisons(scores, metric, plan.seed)
    primary: dict[str, Interval] = {system: intervals[system][metric] for system in plan.systems}
    over_guess = _over_guess(scores, counted, train, plan.seed) if evaluation.task == "classification" else None
    over_few_shot = comparisons.get("candidate - few_shot")
    verdict = decide(
        metric,
        primary,
        comparisons["candidate - base"],
        over_few_shot.interval if over_few_shot else None,
        min_rows=min_rows,
        over_guess=over_guess,
    )
    if over_guess is not None:
        comparisons["candidate - commonest answer"] = over_guess
    evidence = {
        **opening(evaluation, metric, verdict),
        "seed": plan.seed,
        "resamples": RESAMPLES,
        "rows_available": len(heldout),
        "rows_without_weight": sum(not row.taught for row in heldout),
        "earlier_verdicts": earlier,
        "rows_asked": len(plan.rows),
        "rows_counted": len(counted),
        "rows_refused": _refusals(plan, given),
        "generation": {"temperature": 0, "max_tokens": plan.max_tokens, "stop": plan.stop},
        "few_shot_examples": [
            {"row": place, "messages": train[place].messages, "reference": train[place].reference}
            for place in plan.examples
        ],
        "scores": {
            system: {name: interval.model_dump() for name, interval in found.items()}
            for system, found in intervals.items()
        },
        "differences": {name: found.interval.model_dump() for name, found in comparisons.items()},
        "alpha": ALPHA,
        "p_values": {name: round(found.p_value, 6) for name, found in comparisons.items()},
        "cost": {system: _cost(system, plan, given) for system in plan.systems},
        "rows": [_row_evidence(place, row, plan, given, scores) for place, row in enumerate(counted)],
    }
    return Report(verdict, metric, primary, evidence)


def opening(evaluation: Evaluation, metric: str, verdict: Verdict) -> dict[str, Any]:
    """The part of the evidence that is there even when nothing could be asked."""
    return {
        "object": "evaluation.evidence",
        "suite": SUITE,
        "evaluation_id": evaluation.id,
        "model_id": evaluation.model_id,
        "job_id": evaluation.job_id,
        "base_model": evaluation.base_model,
        "adapter_id": evaluation.adapter_id,
        "task": evaluation.task,
        "heldout": evaluation.heldout.model_dump(),
        "train": evaluation.train.model_dump(),
        "attempts": evaluation.attempts,
        "metric": metric,
        "verdict": verdict.kind,
        "reason": verdict.reason,
    }


def _score(task: str, plan: Plan, counted: Sequence[Row], given: dict[tuple[str, int], Answer]) -> Scores:
    return {
        system: {
            name: [scorer(given[system, row.index].text, row.reference) for row in counted]
            for name, scorer in SCORERS[task].items()
        }
        for system in plan.systems
    }


def _intervals(found: dict[str, list[float]], seed: int) -> dict[str, Interval]:
    return {
        name: wilson(values) if name in PROPORTIONS else bootstrap_mean(values, seed) for name, values in found.items()
    }


def _macro_f1(system: str, counted: Sequence[Row], given: dict[tuple[str, int], Answer], seed: int) -> Interval:
    answers = [given[system, row.index].text for row in counted]
    references = [row.reference for row in counted]
    return bootstrap_statistic(
        lambda places: macro_f1([answers[i] for i in places], [references[i] for i in places]), len(counted), seed
    )


def _comparisons(scores: Scores, metric: str, seed: int) -> dict[str, Comparison]:
    return {
        f"candidate - {system}": compare(scores["candidate"][metric], scores[system][metric], seed)
        for system in scores
        if system != "candidate"
    }


def _refusals(plan: Plan, given: dict[tuple[str, int], Answer]) -> list[dict[str, Any]]:
    return [
        {"row": place, "system": system, "reason": given[system, place].refused}
        for place in plan.rows
        for system in plan.systems
        if given[system, place].refused is not None
    ]


def _cost(system: str, plan: Plan, given: dict[tuple[str, int], Answer]) -> dict[str, float]:
    answers = [given[system, place] for place in plan.rows if given[system, place].refused is None]
    seconds = [answer.seconds for answer in answers] or [0.0]
    return {
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "completion_tokens": sum(answer.completion_tokens for answer in answers),
        "seconds_median": round(float(np.median(seconds)), 4),
        "seconds_p95": round(float(np.quantile(seconds, 0.95)), 4),
    }


def _row_evidence(
    place: int, row: Row, plan: Plan, given: dict[tuple[str, int], Answer], scores: Scores
) -> dict[str, Any]:
    answers = {}
    for system in plan.systems:
        answer = given[system, row.index]
        answers[system] = {
            "text": answer.text,
            "scores": {name: round(values[place], 6) for name, values in scores[system].items()},
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "finish_reason": answer.finish_reason,
            "seconds": round(answer.seconds, 4),
        }
    return {"row": row.index, "messages": row.messages, "reference": row.reference, "answers": answers}


def _over_guess(scores: Scores, counted: Sequence[Row], train: Sequence[Row], seed: int) -> Comparison:
    """How much better the candidate is than always giving the commonest training answer."""
    commonest = Counter(row.reference for row in train if row.taught).most_common(1)[0][0]
    guessed = [exact_match(commonest, row.reference) for row in counted]
    return compare(scores["candidate"]["accuracy"], guessed, seed)
