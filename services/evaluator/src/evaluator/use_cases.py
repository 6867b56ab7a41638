"""What the evaluator does: queues an evaluation, has it tested, or gives it to a person."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from chassis.crash import crash_point
from chassis.ids import now
from evaluator.asking import answerer_of
from evaluator.domain import Evaluation
from evaluator.proxy import NotServed, Proxy
from evaluator.report import Report, opening
from evaluator.settings import Settings
from evaluator.store import Answers, Artifacts, Evaluations
from evaluator.suites import TEXT_SUITES, Suite, TextSuite
from evaluator.usage import price
from evaluator.verdict import untested, untested_arm
from schemas import DatasetDeleted, ModelDeleted, ModelRegistered
from work import GiveUp

log = structlog.get_logger()

LONGEST_LOOK_SECONDS = 30.0
"""Longest time between two looks for a system that cannot be asked."""


class Queue:
    """Takes evaluations in and, when nobody wants their result any more, out."""

    def __init__(self, evaluations: Evaluations, answers: Answers, artifacts: Artifacts) -> None:
        self._evaluations = evaluations
        self._answers = answers
        self._artifacts = artifacts
        self._forgotten = asyncio.Event()

    async def add(self, registered: ModelRegistered) -> None:
        """Queue the evaluation of a candidate, once; one whose rows are deleted cannot be tested."""
        if await self._evaluations.are_deleted(registered.tenant_id, registered.dataset.heldout):
            return
        evaluation = await self._evaluations.add_once(Evaluation.of(registered, now()))
        if await self._evaluations.are_deleted(registered.tenant_id, registered.dataset.heldout):  # meanwhile
            await self._forget([evaluation])
        log.info("evaluation_queued", evaluation_id=evaluation.id, model_id=evaluation.model_id)

    async def cancel(self, tenant_id: str, model_id: str) -> None:
        """The model was rejected or retired: stop testing it."""
        evaluation = await self._evaluations.of_model(tenant_id, model_id)
        if evaluation is None:
            return
        stopped = await self._evaluations.update(tenant_id, evaluation.id, lambda one: one.cancel(now()))
        if stopped.state == "cancelled":
            await self._answers.forget(stopped)

    async def forget_model(self, deleted: ModelDeleted) -> None:
        """A model was deleted: so is what was noted down to judge it by."""
        evaluation = await self._evaluations.of_model(deleted.tenant_id, deleted.model_id)
        await self._forget([evaluation] if evaluation else [])

    async def forget_rows(self, deleted: DatasetDeleted) -> None:
        """Rows were deleted: so is every report that quotes them."""
        await self._evaluations.note_deleted(deleted.tenant_id, deleted.heldout)
        await self._forget(await self._evaluations.on_rows(deleted.tenant_id, deleted.heldout))

    async def _forget(self, evaluations: list[Evaluation]) -> None:
        for evaluation in evaluations:
            await self._evaluations.update(evaluation.tenant_id, evaluation.id, lambda one: one.forget(now()))
        self._forgotten.set()

    async def rest(self, seconds: float) -> None:
        """Wait until something is to be removed, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._forgotten.wait()
        self._forgotten.clear()

    async def sweep(self) -> None:
        """Remove evidence that is not wanted, and answers of evaluations that are over.

        A worker may have added answers late, or been killed before it removed them. They hold what a tenant's rows
        say, so none may stay.
        """
        async for evaluation in self._evaluations.ended(await self._answers.owners()):
            await self._answers.forget(evaluation)
        async for evaluation in self._evaluations.unwanted():
            await self._artifacts.delete_evidence(evaluation)
            await self._evaluations.update(evaluation.tenant_id, evaluation.id, Evaluation.lose_content)


class Judging(Protocol):
    """A way to test a candidate, which a later attempt goes on with where an earlier one left it."""

    def suite(self, evaluation: Evaluation) -> Suite | TextSuite:
        """What it is tested by."""

    async def report(self, evaluation: Evaluation) -> Report:
        """Ask what is not answered yet, then judge.

        Raises:
            NotServed: base or candidate cannot be asked now.
            SartorError: `transient` ones may pass; others mean that it can never be tested.
        """


class Evaluate:
    """Carries one claimed evaluation through, from wherever an earlier attempt left it."""

    def __init__(
        self,
        settings: Settings,
        evaluations: Evaluations,
        answers: Answers,
        artifacts: Artifacts,
        proxy: Proxy,
        by_answers: Judging,
        by_scores: Judging,
        of_arms: Judging,
        of_generating: Judging,
    ) -> None:
        self._settings = settings
        self._evaluations = evaluations
        self._answers = answers
        self._artifacts = artifacts
        self._proxy = proxy
        self._by_answers = by_answers
        self._by_scores = by_scores
        self._of_arms = of_arms
        self._of_generating = of_generating

    async def run(self, evaluation: Evaluation) -> None:
        """Ask what is not answered yet, then judge.

        Raises:
            NotServed: base or candidate cannot be asked now.
            SartorError: `transient` ones may pass; others mean that it can never be tested.
        """
        evaluation = await self._evaluations.write(evaluation, lambda one: one.begin(now()))
        judging = self._judging(evaluation)
        if evaluation.adapter_missed_at is not None:
            for model in {answerer_of(evaluation, system).model: None for system in judging.suite(evaluation).systems}:
                await self._proxy.expect(evaluation.tenant_id, model)
        report = await judging.report(evaluation)
        await self._complete(evaluation, judging.suite(evaluation).deciding.name, report)
        await self._answers.forget(evaluation)

    async def put_back(self, evaluation: Evaluation, error: str) -> None:
        """Have another attempt made later."""
        await self._evaluations.write(evaluation, lambda one: one.put_back(error))

    async def wait(self, evaluation: Evaluation, error: NotServed) -> float:
        """Give the slot back while somebody cannot be asked: no replica holds the adapter, or the proxy is away.

        Returns:
            Seconds until the next look.

        Raises:
            GiveUp: that has been so for as long as the settings allow.
        """
        current = await self._evaluations.write(evaluation, lambda one: one.put_off(error.message, now()))
        missed = now() - (current.adapter_missed_at or now())
        if missed > self._settings.evaluator_adapter_seconds:
            raise GiveUp(f"{error.message} (after {missed} s).")
        return min(1 + missed / 4, LONGEST_LOOK_SECONDS)

    async def give_up(self, evaluation: Evaluation, reason: str) -> None:
        """End the evaluation without scores: a person decides on an adapter, and the evidence says why there are none.

        What was answered until then has its cost.
        """
        verdict = untested_arm(reason) if evaluation.arm else untested(reason)
        suite = self._judging(evaluation).suite(evaluation)
        current = await self._evaluations.get(evaluation.tenant_id, evaluation.id)
        ref = await self._artifacts.put_evidence(evaluation, opening(current, suite, verdict))
        cost = price(await self._answers.of(evaluation))
        await self._evaluations.write(
            evaluation,
            lambda one: one.complete(
                verdict=verdict.kind,
                reason=verdict.reason,
                metric=suite.deciding.name,
                metrics={},
                evidence=ref,
                cost=cost,
                at=now(),
            ),
        )
        await self._answers.forget(evaluation)

    def _judging(self, evaluation: Evaluation) -> Judging:
        if evaluation.arm:
            return self._of_generating if evaluation.generates else self._of_arms
        return self._by_scores if evaluation.method in TEXT_SUITES else self._by_answers

    async def _complete(self, evaluation: Evaluation, metric: str, report: Report) -> None:
        ref = await self._artifacts.put_evidence(evaluation, report.evidence)
        crash_point("evaluator.evidence_stored")
        verdict = report.verdict
        await self._evaluations.write(
            evaluation,
            lambda one: one.complete(
                verdict=verdict.kind,
                reason=verdict.reason,
                metric=metric,
                metrics=report.metrics,
                evidence=ref,
                earlier=report.earlier,
                usage=report.usage,
                cost=report.cost,
                beaten_by=report.beaten_by,
                below_base=report.below_base,
                cascade=report.cascade,
                at=now(),
            ),
        )
        crash_point("evaluator.completed")
        log.info("evaluation_completed", evaluation_id=evaluation.id, verdict=verdict.kind, reason=verdict.reason)
