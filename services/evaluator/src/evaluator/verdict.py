"""The verdict: what the scores say about a candidate, with the reason in a sentence for the person who owns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluator.comparison import Comparison
from evaluator.metrics import AwaitedMetric, RowMetric
from schemas import Interval
from schemas.artifacts import ArmKind, CascadeStep

Kind = Literal["pass", "fail", "needs_human"]

ARMS: dict[ArmKind, str] = {"head": "the head", "nearest": "the nearest training row"}
"""What an arm is called in a sentence, unless it generates."""

GENERATES = "the base model, shown the closest training rows"

SYSTEMS: dict[str, str] = {
    "candidate": "the fine-tuned model",
    "base": "the base model",
    "few_shot": "the base model with examples",
} | {kind: f"{name}, in use meanwhile," for kind, name in ARMS.items()}
"""What the systems of a test are called in a sentence."""


SHOWN = SYSTEMS | {"candidate": f"{GENERATES},"}
"""The same where an arm that generates is tested."""

UNKNOWN = "The rows do not show that it knows them"

GUESS = "always giving one answer"


@dataclass(frozen=True)
class Verdict:
    """What is concluded, and why."""

    kind: Kind
    reason: str


def decide(
    metric: RowMetric | AwaitedMetric,
    scores: Mapping[str, Interval],
    gain: Comparison,
    over_few_shot: Interval | None,
    *,
    min_rows: int,
    over_guess: Comparison | None = None,
    names: Mapping[str, str] = SYSTEMS,
) -> Verdict:
    """Judge a candidate by its paired differences.

    pass: better than the base model beyond doubt (the interval of the gain lies above 0, and chance alone would seldom
    do as well), and not worse than the base model with examples in its prompt beyond doubt. fail: no better than the
    base model beyond doubt (the interval ends at or below 0), or no better than always giving the commonest answer,
    which needs no model: a base model that has never seen the labels is easily beaten. Where that is not clear, as when
    nearly all answers are the same, closing less than half of the gap between that guess and no error at all fails
    too. All between, and fewer rows than `min_rows`, is for a person.

    Args:
        metric: the metric of `scores`.
        scores: by system, all on the same rows.
        gain: candidate minus base.
        over_few_shot: candidate minus few-shot; None where there were no examples to show.
        min_rows: fewer rows decide nothing.
        over_guess: candidate minus always giving the commonest training answer; None where answers are free text.
        names: what the systems are called.
    """
    rows = scores["candidate"].n
    if rows == 0:
        return Verdict("needs_human", "No held-out row could be tested, so nothing is known about this model.")
    compared = _compare(metric, scores, names)
    if rows < min_rows:
        return Verdict("needs_human", f"{compared} Only {_rows(rows)}: too few to decide (at least {min_rows} needed).")
    difference = f"{_points(gain.interval)} against the base model"
    if gain.interval.high <= 0:
        return Verdict("fail", f"{compared} It is no better: {difference}.")
    if not gain.clear:
        unclear = f"{compared} Whether it is better is not clear: {difference}{by_chance(gain)}."
        return Verdict("needs_human", unclear)
    if over_guess is not None and not over_guess.clear:
        over = over_guess.interval
        guess = f"{_points(over)} against always giving the commonest answer"
        room = 1 - (scores["candidate"].value - over.value)
        if over.high <= 0 or over.value < room / 2:
            return Verdict("fail", f"{compared} It has not learned the task: {guess}.")
        unclear = f"{compared} Whether it has learned the task is not clear: {guess}{by_chance(over_guess)}."
        return Verdict("needs_human", unclear)
    if over_few_shot is not None and over_few_shot.high < 0:
        return Verdict(
            "needs_human",
            f"{compared} It is better than the base model alone ({_points(gain.interval)}), but examples in the prompt "
            f"do better still: {_points(over_few_shot)} against them.",
        )
    return Verdict("pass", f"{compared} The gain is clear: {difference}.")


def decide_arm(
    metric: RowMetric | AwaitedMetric,
    scores: Mapping[str, Interval],
    over_guess: Comparison,
    kind: ArmKind,
    *,
    least_closed: float,
) -> Verdict:
    """Judge an arm by its difference from always giving one answer, which knows no question.

    pass: better beyond doubt, and it closes enough of the gap between that guess and no error at all; from six rows on
    that can be shown. fail: everything else. A person waits for its answers, and its adapter comes: nobody is asked.

    Args:
        metric: the metric of `scores`.
        scores: its own, as the candidate.
        over_guess: arm minus guess.
        kind: of the arm.
        least_closed: the share of the gap that it must close.
    """
    score, over = scores["candidate"], over_guess.interval
    if score.n == 0:
        return Verdict("fail", f"No held-out row could be tested. {UNKNOWN}.")
    guess = score.value - over.value
    compared = (
        f"On {_rows(score.n)} {_score(metric, ARMS[kind], score)} and "
        f"{_score(metric, GUESS, score.model_copy(update={'value': guess}))}."
    )
    difference = f"{_points(over)} against that"
    if not over_guess.clear:
        return Verdict("fail", f"{compared} {UNKNOWN}: {difference}{by_chance(over_guess)}.")
    if too_little := _too_little(score, over_guess, least_closed):
        return Verdict("fail", f"{compared} {UNKNOWN}: {difference} {too_little}.")
    return Verdict("pass", f"{compared} It is clearly better: {difference}.")


def _too_little(score: Interval, over_guess: Comparison, least_closed: float) -> str:
    """That too little of the gap between a guess and no error at all is closed; empty where enough is."""
    over = over_guess.interval.value
    lacking = 1 - (score.value - over)
    if over >= least_closed * lacking:
        return ""
    return f"are {100 * over / lacking:.0f} % of what that lacks, and {100 * least_closed:.0f} % are needed"


def decide_generating(
    metric: RowMetric | AwaitedMetric,
    scores: Mapping[str, Interval],
    over_base: Comparison,
    over_guess: Comparison,
    *,
    least_closed: float,
) -> Verdict:
    """Judge an arm by which the base model answers.

    pass: better than the base model alone beyond doubt, and than always giving one answer, and it closes enough of the
    gap between that and no error at all: the answer of another row, copied, is written alike too. fail: everything
    else, as of another arm, whose rows may be as few too; what is not clear is not worth its longer prompts.

    Args:
        metric: the metric of `scores`.
        scores: by system, all on the same rows.
        over_base: arm minus base model.
        over_guess: arm minus always giving one answer.
        least_closed: the share of the gap that it must close.
    """
    if scores["candidate"].n == 0:
        return Verdict("fail", f"No held-out row could be tested. {UNKNOWN}.")
    compared = _compare(metric, scores, SHOWN)
    for over, whom in ((over_base, "the base model alone"), (over_guess, GUESS)):
        if not over.clear:
            unclear = f"{_points(over.interval)} against {whom}{by_chance(over)}"
            return Verdict("fail", f"{compared} {UNKNOWN}: {unclear}.")
    if too_little := _too_little(scores["candidate"], over_guess, least_closed):
        return Verdict("fail", f"{compared} {UNKNOWN}: {_points(over_guess.interval)} against {GUESS} {too_little}.")
    return Verdict(
        "pass", f"{compared} It is clearly better: {_points(over_base.interval)} against the base model alone."
    )


def arm_named(kind: ArmKind, *, generates: bool) -> str:
    """What an arm is called in a sentence."""
    return GENERATES if generates else ARMS[kind]


def beside_arm(verdict: Verdict, arm: str, over_arm: Comparison) -> Verdict:
    """The verdict on an adapter, with its difference from the arm of its name; what follows the registry says.

    Args:
        verdict: on the adapter.
        arm: what it is called.
        over_arm: adapter minus arm.
    """
    return Verdict(verdict.kind, f"{verdict.reason} It has {_points(over_arm.interval)} against {arm}.")


def in_cascade(verdict: Verdict, metric: RowMetric | AwaitedMetric, arm: str, step: CascadeStep) -> Verdict:
    """The verdict on an adapter that does as well where it answers only what the arm of its name is unsure of.

    Args:
        verdict: on the adapter.
        metric: the metric of `step`.
        arm: what it is called.
        step: of the bound that is advised.
    """
    left = f"what {arm} is less than {100 * step.below:g} % sure of, {100 * step.handed_over:.0f} % of these rows"
    together = f"{_score(metric, 'the two together', step.score)}: {_points(step.over_adapter)} against it alone"
    return Verdict(verdict.kind, f"{verdict.reason} Where it answers only {left}, {together}.")


def above_arm(verdict: Verdict, arm: str, base_over_arm: Comparison) -> Verdict:
    """The verdict on an adapter whose name is served by an arm that is worse than the base model.

    Args:
        verdict: on the adapter.
        arm: what it is called.
        base_over_arm: base model minus arm.
    """
    behind = f"The base model is clearly better than {arm}: {_points(base_over_arm.interval)}."
    return Verdict(verdict.kind, f"{verdict.reason} {behind}")


def without_arm(verdict: Verdict, arm: str, why: str) -> Verdict:
    """The verdict on an adapter that could not be compared with the arm of its name, and why."""
    return Verdict(verdict.kind, f"{verdict.reason} {arm[0].upper()}{arm[1:]} could not be asked: {why}")


def untested_arm(reason: str) -> Verdict:
    """The verdict on an arm whose test could not be carried out: nothing shows that it knows the rows."""
    return Verdict("fail", f"The test could not be carried out: {reason} {UNKNOWN}.")


def untested(reason: str) -> Verdict:
    """The verdict where the test itself could not be carried out: a person decides, knowing why."""
    return Verdict("needs_human", f"The test could not be carried out: {reason}")


def _compare(metric: RowMetric | AwaitedMetric, scores: Mapping[str, Interval], names: Mapping[str, str]) -> str:
    shown = [_score(metric, names[name], scores[name]) for name in names if name in scores]
    sentence = f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
    on = f"On {_rows(scores['candidate'].n)} "
    return f"{on}{sentence}."


def _score(metric: RowMetric | AwaitedMetric, system: str, score: Interval) -> str:
    if metric.is_share:
        return f"{system} got {round(score.value * score.n)} right"
    return f"{system} reached {metric.name} {score.value * 100:.1f}"


def _points(difference: Interval) -> str:
    value, low, high = (100 * number for number in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"


def by_chance(comparison: Comparison) -> str:
    """How often chance alone does as well, to be added to a sentence."""
    return f"; chance alone does as well in {100 * comparison.p_value:.1f} % of such tests"


def _rows(count: int) -> str:
    return f"{count} held-out row" if count == 1 else f"{count} held-out rows"
