"""What answers took: tokens, time and cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluator.domain import Plan
from evaluator.store import Answer, Given
from schemas import Usage


def usage_by_system(plan: Plan, given: Given) -> dict[str, Usage]:
    """What the answers of each system took, but for those that gave none."""
    answers = {
        system: [given[system, place] for place in plan.rows if given[system, place].refused is None]
        for system in plan.systems
    }
    return {system: usage_of(found) for system, found in answers.items() if found}


def usage_of(answers: Sequence[Answer]) -> Usage:
    """What these took together; at least one."""
    seconds = [answer.seconds for answer in answers]
    return Usage(
        answers=len(answers),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        completion_tokens=sum(answer.completion_tokens for answer in answers),
        seconds_median=round(float(np.median(seconds)), 4),
        seconds_p95=round(float(np.quantile(seconds, 0.95)), 4),
        cost=price(answers),
    )


def price(answers: Sequence[Answer]) -> float | None:
    """What these cost together; None where one of them has no price. A question that was refused cost nothing."""
    total = 0.0
    for answer in answers:
        if answer.refused is None:
            if answer.cost is None:
                return None
            total += answer.cost
    return round(total, 9)
