"""The evidence of an evaluation: every answer with its score, and the intervals the verdict rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NotRequired, TypedDict

from evaluator.cascade import cascade_of
from evaluator.comparison import ALPHA, Comparison, compare
from evaluator.domain import Evaluation, Plan, ServingArm
from evaluator.guess import best_guess
from evaluator.intervals import RESAMPLES
from evaluator.metrics import AwaitedMetric, Case, RowMetric, SetMetric
from evaluator.metrics.classes import per_class
from evaluator.metrics.metric import within
from evaluator.replacement import arm_goes_on, generating_arm_goes_on
from evaluator.rows import Row
from evaluator.store import Answer, Given
from evaluator.suites import Suite, TextSuite
from evaluator.usage import price, usage_by_system
from evaluator.verdict import (
    ARMS,
    GENERATES,
    SYSTEMS,
    Verdict,
    above_arm,
    arm_named,
    beside_arm,
    decide,
    decide_arm,
    decide_generating,
    in_cascade,
    without_arm,
)
from schemas import Interval, Usage
from schemas.artifacts import ArmKind, Cascade, ChatMessage

OVER_GUESS = "candidate - commonest answer"

Scores = dict[str, dict[str, list[float]]]
"""By system, then by metric, of each row that counts."""


class Refusal(TypedDict):
    """A question that a system refused."""

    row: int
    system: str
    reason: str | None


class AnswerEvidence(TypedDict):
    """What a system answered to a row."""

    text: str
    scores: dict[str, float]
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    seconds: float
    confidence: NotRequired[float]


class RowEvidence(TypedDict):
    """A row that counts, with what each system answered."""

    row: int
    messages: Sequence[ChatMessage]
    reference: str
    answers: dict[str, AnswerEvidence]


@dataclass(frozen=True)
class Report:
    """A result.

    Attributes:
        verdict: what is concluded.
        metrics: the value of every metric of the suite: metric -> system -> value.
        evidence: the whole of it as JSON.
        usage: what the answers of each system took that answered.
        cost: of all; None where one of them has no price.
        earlier: how many candidates were judged on the same data before.
        beaten_by: the arm that serves the candidate's name and goes on doing so.
        below_base: that arm, where the base model is better than it beyond doubt.
        cascade: what that arm and the candidate would do together.
    """

    verdict: Verdict
    metrics: dict[str, dict[str, Interval]]
    evidence: dict[str, Any]
    usage: dict[str, Usage]
    cost: float | None
    earlier: int
    beaten_by: ArmKind | None = None
    below_base: ArmKind | None = None
    cascade: Cascade | None = None


def counted_rows(plan: Plan, heldout: Sequence[Row], given: Given) -> list[Row]:
    """The rows that count: those that every system answered, so that all are scored on the same rows."""
    return [
        heldout[place] for place in plan.rows if all(given[system, place].refused is None for system in plan.systems)
    ]


def build_report(
    evaluation: Evaluation,
    suite: Suite,
    plan: Plan,
    heldout: Sequence[Row],
    train: Sequence[Row],
    answers: Sequence[Answer],
    *,
    min_rows: int,
    earlier: int,
) -> Report:
    """Score the answers, compare the systems and judge the candidate.

    Args:
        evaluation: what was tested.
        suite: by what.
        plan: what was asked.
        heldout: all held-out rows.
        train: all training rows.
        answers: every answer, with the scores that had to be waited for.
        min_rows: fewer rows decide nothing about an adapter.
        earlier: how many candidates were judged on these held-out rows before.
    """
    given = {(answer.system, answer.row): answer for answer in answers}
    counted = counted_rows(plan, heldout, given)
    cases: dict[str, list[Case]] = {
        system: [Case(row, given[system, row.index].text) for row in counted] for system in plan.systems
    }
    scores = _score(suite, plan, counted, cases, given)
    intervals = {system: _intervals(suite, found, cases[system], plan.seed) for system, found in scores.items()}
    decisive = suite.deciding.name
    comparisons = _comparisons(scores, decisive, plan.seed)
    if suite.scores_guess:
        comparisons[OVER_GUESS] = _over_guess(suite, scores, counted, train, plan.seed)
    decided_on: dict[str, Interval] = {system: intervals[system][decisive] for system in plan.systems}
    verdict = _decide(evaluation, suite, decided_on, comparisons, min_rows, plan.arm)
    beaten_by = below_base = cascade = None
    if (arm := plan.asked_arm) is not None and counted:
        over_arm, base_over_arm = (comparisons[f"{system} - {arm.kind}"] for system in ("candidate", "base"))
        called = arm_named(arm.kind, generates=arm.generates)
        verdict = beside_arm(verdict, called, over_arm)
        if base_over_arm.clear:
            below_base, verdict = arm.kind, above_arm(verdict, called, base_over_arm)
        elif _goes_on(arm, scores, decisive, over_arm, plan.seed, min_rows):
            beaten_by = arm.kind
        cascade = cascade_of(
            arm,
            suite.deciding,
            {system: found[decisive] for system, found in scores.items()},
            counted,
            given,
            seed=plan.seed,
            min_rows=min_rows,
            may_serve=verdict.kind != "fail" and beaten_by is None and below_base is None,
        )
        if cascade is not None and (step := cascade.advised_step) is not None:
            verdict = in_cascade(verdict, suite.deciding, called, step)
    elif plan.arm is not None and plan.arm.away is not None:
        called = arm_named(plan.arm.kind, generates=plan.arm.generates)
        verdict = without_arm(verdict, called, plan.arm.away)
    usage = usage_by_system(plan, given)
    evidence = {
        **opening(evaluation, suite, verdict),
        "seed": plan.seed,
        "resamples": RESAMPLES,
        "rows_available": len(heldout),
        "rows_without_weight": sum(not row.taught for row in heldout),
        "earlier_verdicts": earlier,
        "rows_asked": len(plan.rows),
        "rows_counted": len(counted),
        "rows_refused": refusals(plan, given),
        "generation": {"temperature": 0, "max_tokens": plan.max_tokens, "stop": plan.stop},
        "few_shot_examples": [
            {"row": place, "messages": train[place].messages, "reference": train[place].reference}
            for place in plan.examples
        ],
        "scores": {
            system: {name: interval.model_dump() for name, interval in found.items()}
            for system, found in intervals.items()
        },
        **({"classes": {system: _classes(found) for system, found in cases.items()}} if suite.of_classes else {}),
        "differences": {name: found.interval.model_dump() for name, found in comparisons.items()},
        "alpha": ALPHA,
        "p_values": {name: round(found.p_value, 6) for name, found in comparisons.items()},
        **({"serving_arm": _serving_arm(plan.arm, comparisons, beaten_by)} if plan.arm else {}),
        **({"cascade": cascade.model_dump()} if cascade else {}),
        "cost": {system: found.model_dump() for system, found in usage.items()},
        "rows": [_row_evidence(place, row, plan, given, scores) for place, row in enumerate(counted)],
    }
    metrics = {
        metric.name: {system: found[metric.name] for system, found in intervals.items()} for metric in suite.metrics
    }
    cost = price([answer for answer in answers if answer.system in plan.systems])
    return Report(verdict, metrics, evidence, usage, cost, earlier, beaten_by, below_base, cascade)


def opening(evaluation: Evaluation, suite: Suite | TextSuite, verdict: Verdict) -> dict[str, Any]:
    """The part of the evidence that is there even when nothing could be asked."""
    return {
        "object": "evaluation.evidence",
        "suite": suite.shown,
        "evaluation_id": evaluation.id,
        "model_id": evaluation.model_id,
        "job_id": evaluation.job_id,
        "base_model": evaluation.base_model,
        "adapter_id": evaluation.adapter_id,
        "arm": evaluation.arm,
        "generates": evaluation.generates,
        "task": evaluation.dataset.task,
        "method": evaluation.method,
        "heldout": evaluation.dataset.heldout.model_dump(),
        "train": evaluation.dataset.train.model_dump(),
        "attempts": evaluation.attempts,
        "metric": suite.deciding.name,
        "verdict": verdict.kind,
        "reason": verdict.reason,
    }


def _score(
    suite: Suite, plan: Plan, counted: Sequence[Row], cases: Mapping[str, Sequence[Case]], given: Given
) -> Scores:
    scores: Scores = {system: {} for system in plan.systems}
    for system, metric in product(plan.systems, suite.metrics):
        if isinstance(metric, RowMetric):
            scores[system][metric.name] = [within(metric, metric.score(case)) for case in cases[system]]
        elif isinstance(metric, AwaitedMetric):
            scores[system][metric.name] = [given[system, row.index].scores[metric.key] for row in counted]
    return scores


def _intervals(
    suite: Suite, scores: Mapping[str, Sequence[float]], cases: Sequence[Case], seed: int
) -> dict[str, Interval]:
    return {
        metric.name: metric.interval(cases, seed)
        if isinstance(metric, SetMetric)
        else metric.interval(scores[metric.name], seed)
        for metric in suite.metrics
    }


def _classes(cases: Sequence[Case]) -> list[dict[str, str | float]]:
    shares = ("precision", "recall", "f1")
    found = [asdict(one) for one in per_class(cases)]
    return [{name: round(value, 6) if name in shares else value for name, value in one.items()} for one in found]


def _comparisons(scores: Scores, metric: str, seed: int) -> dict[str, Comparison]:
    """The candidate over each other system, and those over the arm that serves its name."""
    pairs = [("candidate", system) for system in scores if system != "candidate"]
    pairs += [(system, arm) for arm in ARMS if arm in scores for system in scores if system not in ("candidate", arm)]
    return {f"{one} - {other}": compare(scores[one][metric], scores[other][metric], seed) for one, other in pairs}


def _decide(
    evaluation: Evaluation,
    suite: Suite,
    scores: Mapping[str, Interval],
    comparisons: Mapping[str, Comparison],
    min_rows: int,
    arm: ServingArm | None,
) -> Verdict:
    over_guess = comparisons.get(OVER_GUESS)
    if evaluation.generates and over_guess is not None:
        over_base = comparisons["candidate - base"]
        return decide_generating(suite.deciding, scores, over_base, over_guess, least_closed=suite.least_closed)
    if evaluation.arm is not None and over_guess is not None:
        return decide_arm(suite.deciding, scores, over_guess, evaluation.arm, least_closed=suite.least_closed)
    over_few_shot = comparisons.get("candidate - few_shot")
    return decide(
        suite.deciding,
        scores,
        comparisons["candidate - base"],
        over_few_shot.interval if over_few_shot else None,
        min_rows=min_rows,
        over_guess=over_guess,
        names=SYSTEMS | {arm.kind: f"{GENERATES}, in use meanwhile,"} if arm and arm.generates else SYSTEMS,
    )


def _goes_on(arm: ServingArm, scores: Scores, metric: str, over_arm: Comparison, seed: int, min_rows: int) -> bool:
    """Whether the arm that serves the name goes on doing so."""
    if not arm.generates:
        return arm_goes_on(over_arm, min_rows=min_rows)
    over_adapter = compare(scores[arm.kind][metric], scores["candidate"][metric], seed)
    return generating_arm_goes_on(over_adapter, min_rows=min_rows)


def _serving_arm(arm: ServingArm, comparisons: Mapping[str, Comparison], beaten_by: ArmKind | None) -> dict[str, Any]:
    """The arm that serves the name, and who is better than it beyond doubt on the same rows."""
    over = {name.removesuffix(f" - {arm.kind}"): found for name, found in comparisons.items() if name != OVER_GUESS}
    return {
        **arm.model_dump(),
        "goes_on": beaten_by is not None,
        "better_beyond_doubt": [
            system for system in ("base", "few_shot", "candidate") if system in over and over[system].clear
        ],
    }


def refusals(plan: Plan, given: Given) -> list[Refusal]:
    """What was refused of a plan, by whom and why."""
    return [
        {"row": place, "system": system, "reason": given[system, place].refused}
        for place in plan.rows
        for system in plan.systems
        if given[system, place].refused is not None
    ]


def _row_evidence(place: int, row: Row, plan: Plan, given: Given, scores: Scores) -> RowEvidence:
    answers: dict[str, AnswerEvidence] = {}
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
        if answer.confidence is not None:
            answers[system]["confidence"] = answer.confidence
    return {"row": row.index, "messages": row.messages, "reference": row.reference, "answers": answers}


def _over_guess(suite: Suite, scores: Scores, counted: Sequence[Row], train: Sequence[Row], seed: int) -> Comparison:
    """How much better the candidate is than always giving one training answer."""
    assert isinstance(suite.deciding, RowMetric)  # as every suite that scores a guess is checked to have
    guess = best_guess(train, suite.deciding, seed, of_classes=suite.of_classes)
    guessed = [suite.deciding.score(Case(row, guess)) for row in counted]
    return compare(scores["candidate"][suite.deciding.name], guessed, seed)
