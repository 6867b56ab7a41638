"""The evidence of a test by held-out text: perplexities, the gain, and what the training run says of the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Literal, TypedDict

from chassis.errors import Invalid
from evaluator.comparison import ALPHA, Comparison
from evaluator.domain import Evaluation, Plan, System
from evaluator.report import Report, opening, refusals
from evaluator.store import Answer, Given
from evaluator.suites import TextSuite
from evaluator.usage import price, usage_by_system
from evaluator.verdict import Verdict, by_chance
from evaluator.windows import Window, by_document
from schemas import Interval

Unit = Literal["documents", "passages"]

PASSAGE_TOKENS = 32
"""Of the end of an only document, how much counts as one measurement."""


class DocumentEvidence(TypedDict):
    """What a document was worth, by its line from 1."""

    line: int
    windows: int
    tokens: int
    perplexity: dict[str, float]
    training_run_gain: float


def build_text_report(
    evaluation: Evaluation,
    suite: TextSuite,
    plan: Plan,
    unit: Unit,
    windows: Sequence[Window],
    answers: Sequence[Answer],
    *,
    min_passages: int,
    earlier: int,
) -> Report:
    """Compare the systems on the windows that both scored, and judge the candidate.

    Args:
        evaluation: what was tested.
        suite: by what.
        plan: what was asked.
        unit: what varies by itself.
        windows: all that were held out.
        answers: every score.
        min_passages: fewer passages of an only document decide nothing.
        earlier: how many candidates were judged on the same text before.

    Raises:
        Invalid: the systems do not read the same tokens, so that nothing can be compared.
    """
    given = {(answer.system, answer.row): answer for answer in answers}
    counted = [windows[place] for place in plan.rows if _is_scored(place, plan, given)]
    refused = refusals(plan, given)
    usage = usage_by_system(plan, given)
    opened = {
        "earlier_verdicts": earlier,
        "measured_by": "the model as it is served",
        "windows_available": len(windows),
        "windows_asked": len(plan.rows),
        "windows_counted": len(counted),
        "windows_refused": refused,
        "cost": {system: found.model_dump() for system, found in usage.items()},
    }
    if not counted:
        why = f" The first refusal: {refused[0]['reason']}" if refused else ""
        nothing = f"No held-out text could be scored, so nothing is known about this model.{why}"
        verdict = Verdict("needs_human", nothing)
        nothing_known = {**opening(evaluation, suite, verdict), **opened}
        return Report(verdict, {}, nothing_known, usage, price(answers), earlier)
    units = {system: _units(unit, system, counted, given) for system in plan.systems}
    scores: dict[str, Interval] = {system: suite.deciding.interval(units[system]) for system in plan.systems}
    gain = suite.deciding.gain(units["candidate"], units["base"], plan.seed)
    run_gain = _run_gain(counted)
    fewest = suite.fewest_documents if unit == "documents" else min_passages
    verdict = decide(suite, scores, gain, run_gain, unit, fewest)
    evidence = {
        **opening(evaluation, suite, verdict),
        **opened,
        "tokens": sum(map(len, units["base"])),
        "seed": plan.seed,
        "interval_over": {"unit": unit, "n": gain.interval.n},
        "scores": {system: {suite.deciding.name: score.model_dump()} for system, score in scores.items()},
        "differences": {"candidate - base": gain.interval.model_dump()},
        "alpha": ALPHA,
        "p_values": {"candidate - base": round(gain.p_value, 6)},
        "training_run": {"gain": round(run_gain, 6), "tolerance": suite.tolerance},
        "documents": _documents(suite, plan, given, counted),
    }
    return Report(verdict, {suite.deciding.name: scores}, evidence, usage, price(answers), earlier)


def decide(
    suite: TextSuite, scores: Mapping[str, Interval], gain: Comparison, run_gain: float, unit: Unit, fewest: int
) -> Verdict:
    """Judge by the gain: pass where it is clear, fail where its interval ends at or below 0.

    All between is for a person, and so are too few units, and a model that does not gain on this text what its training
    run measured: then what is served is not what was trained, or was not measured on the text it is said to be.

    Args:
        suite: with its tolerance.
        scores: perplexity by system.
        gain: nats a token that the candidate is less surprised by than the base model.
        run_gain: the same by the training run's own numbers.
        unit: what the interval of the gain is over.
        fewest: of them decide.
    """
    found, n = gain.interval, gain.interval.n
    compared = (
        f"On {n} held-out {unit if n != 1 else unit[:-1]} the fine-tuned model has the perplexity "
        f"{scores['candidate'].value:.2f} and the base model {scores['base'].value:.2f} (lower is better)."
    )
    difference = f"{found.value:+.3f} nats a token"
    if abs(found.value - run_gain) > suite.tolerance:
        return Verdict(
            "needs_human",
            f"{compared} The gain is {difference}, but the training run measured {run_gain:+.3f} on the same text, and "
            f"they may differ by {suite.tolerance:g}: look why before it is used.",
        )
    if n < fewest:
        few = f"held-out {unit} to say how sure that is: {n}, and at least {fewest} are needed"
        return Verdict("needs_human", f"{compared} The gain is {difference}, and there are too few {few}.")
    difference += f" (95 % interval {found.low:+.3f} to {found.high:+.3f}, over {n} {unit})"
    if found.high <= 0:
        return Verdict("fail", f"{compared} It is no better: {difference}.")
    if not gain.clear:
        unclear = f"{compared} Whether it is better is not clear: {difference}{by_chance(gain)}."
        return Verdict("needs_human", unclear)
    return Verdict("pass", f"{compared} The gain is clear: {difference}.")


def _is_scored(place: int, plan: Plan, given: Given) -> bool:
    """Whether every system scored a window."""
    found = [given[system, place] for system in plan.systems]
    if any(one.refused is not None for one in found):
        return False
    lengths = {len(one.losses) for one in found}
    if len(lengths) > 1:
        raise Invalid("Base model and candidate read the same text as other tokens, so they cannot be compared.")
    return lengths != {0}


def _units(unit: Unit, system: System, windows: Sequence[Window], given: Given) -> list[list[float]]:
    """A system's losses by what varies by itself; passages are cut across windows, the last with what is left over."""
    documents = [_losses(system, of, given) for of in by_document(windows)]
    if unit == "documents":
        return documents
    tokens = list(chain.from_iterable(documents))
    n_passages = max(len(tokens) // PASSAGE_TOKENS, 1)
    cuts = [*(PASSAGE_TOKENS * number for number in range(n_passages)), len(tokens)]
    return [tokens[start:end] for start, end in pairwise(cuts)]


def _losses(system: System, windows: Sequence[Window], given: Given) -> list[float]:
    return [loss for one in windows for loss in given[system, one.index].losses]


def _run_gain(windows: Sequence[Window]) -> float:
    return sum(one.tokens * one.run_gain for one in windows) / sum(one.tokens for one in windows)


def _documents(suite: TextSuite, plan: Plan, given: Given, windows: Sequence[Window]) -> list[DocumentEvidence]:
    """Of each document what it was worth; not what it says."""
    return [
        {
            "line": of[0].line + 1,
            "windows": len(of),
            "tokens": len(_losses("base", of, given)),
            "perplexity": {
                system: round(suite.deciding.value(_losses(system, of, given)), 4) for system in plan.systems
            },
            "training_run_gain": round(_run_gain(of), 6),
        }
        for of in by_document(windows)
    ]
