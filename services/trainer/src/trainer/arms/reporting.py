"""What the rows of a job tell, in sentences for the person whose rows they are."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.text import shown
from schemas.artifacts import Coverage, DataReport

LONGEST_ANSWER = 80


def sentences_of(report: DataReport) -> list[str]:
    """What more rows would bring, of which answers most, how far its confidence holds, and what looks wrong."""
    said = [report.curve.said]
    if report.reliability is not None and report.reliability.coverage:
        said.append(_sure(report.reliability.coverage, report.rows))
    if weak := report.weakest:
        of = f"each of these {len(weak.answers)} answers" if len(weak.answers) > 1 else "this answer"
        named = "; ".join(shown(answer, LONGEST_ANSWER) for answer in weak.answers)
        said.append(f"{weak.each:,} rows more of {of} would probably bring {weak.more.said}: {named}.")
    if report.confusions:
        most = report.confusions[0]
        times = "once" if most.times == 1 else f"{most.times} times"
        wanted, given = shown(most.wanted, LONGEST_ANSWER), shown(most.given, LONGEST_ANSWER)
        said.append(f"Taken for another most often ({times}): {wanted}, for {given}.")
    if found := report.suspects_found:
        said.append(f"{found} row{'' if found == 1 else 's'} may have a wrong answer: look before you change one.")
    return said


def _sure(coverage: Sequence[Coverage], rows: int) -> str:
    """How often it was right where it was sure, at the highest confidence that half of the rows reach."""
    most = ([one for one in coverage if 2 * one.rows >= rows] or coverage[:1])[-1]
    sure = f"The arm was at least {most.confidence:.0%} sure of {most.rows:,} of {rows:,} rows: "
    right = f"{_percent(most.accuracy)} of these answers were right"
    return f"{sure}{right}." if most.others is None else f"{sure}{right}, and {_percent(most.others)} of the others."


def _percent(share: float) -> str:
    """A share; all and none are said of nothing less."""
    whole = round(100 * share)
    return f"{min(max(whole, 1), 99) if 0 < share < 1 else whole}%"
