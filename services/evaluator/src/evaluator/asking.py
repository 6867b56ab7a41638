"""Puts the questions of an evaluation, as many at a time as all evaluations of a replica may together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from chassis.crash import crash_point
from chassis.errors import Invalid
from evaluator.domain import Evaluation, ServingArm, System
from evaluator.store import Evaluations

Question = Callable[[], Awaitable[None]]


class Asking:
    """Asks, and notes that somebody answers.

    Args:
        evaluations: where that is noted.
        places: questions at a time.
    """

    def __init__(self, evaluations: Evaluations, places: int) -> None:
        self._evaluations = evaluations
        self._places = asyncio.Semaphore(places)

    async def one_then_all(self, evaluation: Evaluation, questions: Sequence[Question]) -> None:
        """Ask one system; the first question alone: it shows a missing adapter, and a shared prefix is read once."""
        crash_point("evaluator.planned")
        if not questions:
            return
        await self.each(evaluation, questions[:1])
        await self.each(evaluation, questions[1:])

    async def each(self, evaluation: Evaluation, questions: Sequence[Question]) -> None:
        """Ask as many at a time as all evaluations of this replica may together; after one that fails none begins.

        An answer, and nothing less, ends the wait for somebody who was missed: else one question that is never
        answered would begin it anew for ever.
        """
        failed = False

        async def asked(question: Question) -> None:
            nonlocal failed
            async with self._places:
                if failed:
                    return
                try:
                    await question()
                    crash_point("evaluator.answered")
                    if evaluation.adapter_missed_at is not None:
                        evaluation.find_adapter()
                        await self._evaluations.write(evaluation, Evaluation.find_adapter)
                except BaseException:  # also one that is cancelled: what has not begun is not asked
                    failed = True
                    raise

        try:
            async with asyncio.TaskGroup() as group:
                for question in questions:
                    group.create_task(asked(question))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None


@dataclass(frozen=True)
class Answerer:
    """Who answers for a system.

    Attributes:
        model: what is asked.
        adapter_id: the adapter or arm that must have answered; None of a base model.
    """

    model: str
    adapter_id: str | None

    def check(self, adapter_id: str | None) -> None:
        """Check who answered.

        Raises:
            Invalid: it was another adapter, or none.
        """
        if adapter_id != self.adapter_id:
            raise Invalid(f"'{self.model}' was answered for by '{adapter_id}', which is not what is tested.")


def answerer_of(evaluation: Evaluation, system: System, arm: ServingArm | None = None) -> Answerer:
    """Who is asked for a system.

    Args:
        evaluation: the test.
        system: of it.
        arm: what serves the candidate's name meanwhile.
    """
    if system == "candidate":
        return Answerer(evaluation.model_id, evaluation.adapter_id)
    if arm is not None and system == arm.kind:
        return Answerer(arm.version, arm.arm_id)
    return Answerer(evaluation.base_model, None)
