"""What the rows of a job tell, in sentences for the person whose rows they are."""

from __future__ import annotations

from chassis.text import shown
from schemas.artifacts import DataReport

LONGEST_ANSWER = 80


def sentences_of(report: DataReport) -> list[str]:
    """What more rows would bring, of which answers most, what is taken for what most often, and how many look wrong."""
    said = [report.curve.said]
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
