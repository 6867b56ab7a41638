"""What the evaluator does: queues an evaluation, plans it, asks the systems, judges, or gives it to a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import structlog

from chassis.crash import crash_point
from chassis.errors import Invalid
from chassis.ids import now
from chassis.peers import Peer
from evaluator.domain import Evaluation, Plan, System
from evaluator.metrics import AwaitedMetric, Case
from evaluator.metrics.metric import within
from evaluator.prompts import choose_examples, example_text, few_shot, zero_shot
from evaluator.proxy import NotServed, Proxy, RowRefused
from evaluator.published import PUBLISHED, PublishedSuite
from evaluator.report import Report, build_report, counted_rows, opening, price
from evaluator.rows import Message, Row, sample
from evaluator.settings import Settings
from evaluator.store import Answer, Answers, Artifacts, Evaluations
from evaluator.suites import Suite
from evaluator.verdict import untested
from schemas import DatasetDeleted, ModelDeleted, ModelRegistered, Task
from schemas.artifacts import BaseModelSpec
from work import GiveUp

log = structlog.get_logger()

SEED = 20261123
LONGEST_LOOKED_AT = 3
MARGIN_TOKENS = 4
TEMPLATE_TOKENS = 64
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


class Evaluate:
    """Carries one claimed evaluation through, from wherever an earlier attempt left it."""

    def __init__(
        self,
        settings: Settings,
        evaluations: Evaluations,
        answers: Answers,
        artifacts: Artifacts,
        proxy: Proxy,
        registry: Peer,
        suites: Mapping[Task, Suite],
    ) -> None:
        self._settings = settings
        self._evaluations = evaluations
        self._answers = answers
        self._artifacts = artifacts
        self._proxy = proxy
        self._registry = registry
        self._suites = suites
        self._places = asyncio.Semaphore(settings.evaluator_parallel)

    async def run(self, evaluation: Evaluation) -> None:
        """Ask what is not answered yet, then judge.

        Raises:
            NotServed: base or candidate cannot be asked now.
            SartorError: `transient` ones may pass; others mean that these rows can never be tested.
        """
        evaluation = await self._evaluations.write(evaluation, lambda one: one.begin(now()))
        if suite := PUBLISHED.get(evaluation.method):
            await self._judge_published(evaluation, suite)
            return
        if evaluation.adapter_missed_at is not None:
            for model in (evaluation.base_model, evaluation.model_id):
                await self._proxy.expect(evaluation.tenant_id, model)
        heldout = await self._artifacts.rows(evaluation.dataset.heldout)
        train = await self._artifacts.rows(evaluation.dataset.train)
        plan = evaluation.plan or await self._plan(evaluation, heldout, train)
        crash_point("evaluator.planned")
        answered = {(answer.system, answer.row) for answer in await self._answers.of(evaluation)}
        for system in plan.systems:
            rows = [heldout[place] for place in plan.rows if (system, place) not in answered]
            await self._ask(evaluation, plan, system, rows, [train[place] for place in plan.examples])
        await self._score(evaluation, plan, heldout)
        await self._judge(evaluation, plan, heldout, train)

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
        """End the evaluation without scores: a person decides, and the evidence says why there are none.

        What was answered until then has its cost.
        """
        verdict = untested(reason)
        suite = PUBLISHED.get(evaluation.method) or self._suites[evaluation.dataset.task]
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

    async def _plan(self, evaluation: Evaluation, heldout: Sequence[Row], train: Sequence[Row]) -> Plan:
        classified = evaluation.dataset.task == "classification"
        taught = [row for row in heldout if row.taught]
        rows = await asyncio.to_thread(
            sample, taught, self._settings.evaluator_rows, SEED, lambda row: row.label if classified else ""
        )
        max_tokens = await self._answer_tokens(evaluation, rows)
        asked = self._suites[evaluation.dataset.task].systems
        shows = bool(rows) and "few_shot" in asked
        examples = await self._examples(evaluation, train, rows, max_tokens) if shows else []
        systems = [system for system in asked if examples or system != "few_shot"]
        one_line = classified and not any("\n" in row.reference for row in [*train, *heldout])
        plan = Plan(
            rows=[row.index for row in rows],
            examples=[row.index for row in examples],
            systems=systems,
            max_tokens=max_tokens,
            stop=["\n"] if one_line else [],
            seed=SEED,
        )
        return (await self._evaluations.write(evaluation, lambda one: one.fix_plan(plan))).plan or plan

    async def _answer_tokens(self, evaluation: Evaluation, rows: Sequence[Row]) -> int:
        """Tokens of the longest reference and a little, within the limit; the longest texts stand for all."""
        longest = sorted({row.reference for row in rows}, key=len, reverse=True)[:LONGEST_LOOKED_AT]
        counts = [await self._tokens(evaluation, reference) for reference in longest]
        return min(max(counts, default=0) + MARGIN_TOKENS, self._settings.evaluator_max_tokens)

    async def _examples(
        self, evaluation: Evaluation, train: Sequence[Row], rows: Sequence[Row], max_tokens: int
    ) -> list[Row]:
        """As many examples as fit into their limit and beside the longest row into the model's context."""
        base = await self._registry.read(
            BaseModelSpec, "/internal/base_models/{}", evaluation.base_model, tenant_id=evaluation.tenant_id
        )
        longest = max(rows, key=lambda row: len(example_text(row)))
        taken = await self._tokens(evaluation, example_text(longest)) + max_tokens + TEMPLATE_TOKENS
        room = min(self._settings.evaluator_few_shot_tokens, base.context_length - taken)
        chosen = []
        limit = self._settings.evaluator_few_shot_examples
        taught = [row for row in train if row.taught]
        for row in await asyncio.to_thread(choose_examples, taught, evaluation.dataset.task, limit, SEED):
            room -= await self._tokens(evaluation, example_text(row)) + MARGIN_TOKENS
            if room < 0:
                break
            chosen.append(row)
        return chosen

    async def _tokens(self, evaluation: Evaluation, text: str) -> int:
        return await self._proxy.count_tokens(evaluation.tenant_id, evaluation.base_model, text)

    async def _ask(
        self, evaluation: Evaluation, plan: Plan, system: System, rows: Sequence[Row], examples: Sequence[Row]
    ) -> None:
        """Ask one system; the first question alone: it shows a missing adapter, and a shared prefix is read once."""
        model = evaluation.model_id if system == "candidate" else evaluation.base_model

        async def ask(row: Row) -> None:
            messages = few_shot(row, examples) if system == "few_shot" else zero_shot(row)
            await self._answers.keep(evaluation, await self._answer(evaluation, model, system, row, messages, plan))
            crash_point("evaluator.answered")

        if not rows:
            return
        await self._each(evaluation, [partial(ask, rows[0])])
        await self._each(evaluation, [partial(ask, row) for row in rows[1:]])

    async def _answer(
        self, evaluation: Evaluation, model: str, system: System, row: Row, messages: Sequence[Message], plan: Plan
    ) -> Answer:
        try:
            given, seconds = await self._proxy.answer(
                evaluation.tenant_id, model, messages, max_tokens=plan.max_tokens, stop=plan.stop
            )
        except RowRefused as error:
            return Answer(system=system, row=row.index, refused=error.message)
        if given.adapter_id != (evaluation.adapter_id if system == "candidate" else None):
            raise Invalid(f"'{model}' was answered for by '{given.adapter_id}', which is not what is tested.")
        return Answer(system=system, row=row.index, seconds=seconds, **given.model_dump(exclude={"adapter_id"}))

    async def _score(self, evaluation: Evaluation, plan: Plan, heldout: Sequence[Row]) -> None:
        """Have scored what must be waited for and was not scored by an earlier attempt."""
        awaited = [one for one in self._suites[evaluation.dataset.task].metrics if isinstance(one, AwaitedMetric)]
        if not awaited:
            return
        given = {(answer.system, answer.row): answer for answer in await self._answers.of(evaluation)}
        cases = [
            (given[system, row.index], Case(row, given[system, row.index].text))
            for row in counted_rows(plan, heldout, given)
            for system in plan.systems
        ]

        async def score(metric: AwaitedMetric, answer: Answer, case: Case) -> None:
            found = within(metric, await metric.score(case))
            await self._answers.keep_score(evaluation, answer, metric.key, found)

        await self._each(
            evaluation,
            [
                partial(score, metric, answer, case)
                for metric in awaited
                for answer, case in cases
                if metric.key not in answer.scores
            ],
        )

    async def _each(self, evaluation: Evaluation, questions: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Ask as many at a time as all evaluations of this replica may together; after one that fails none begins.

        An answer, and nothing less, ends the wait for somebody who was missed: else one question that is never
        answered would begin it anew for ever.
        """
        failed = False

        async def asked(question: Callable[[], Awaitable[None]]) -> None:
            nonlocal failed
            async with self._places:
                if failed:
                    return
                try:
                    await question()
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

    async def _judge(self, evaluation: Evaluation, plan: Plan, heldout: Sequence[Row], train: Sequence[Row]) -> None:
        answers = await self._answers.of(evaluation)
        earlier = await self._evaluations.count_earlier(evaluation)
        report = await asyncio.to_thread(
            build_report,
            evaluation,
            self._suites[evaluation.dataset.task],
            plan,
            heldout,
            train,
            answers,
            min_rows=self._settings.evaluator_min_rows,
            earlier=earlier,
        )
        await self._complete(evaluation, self._suites[evaluation.dataset.task].deciding.name, report, earlier)
        await self._answers.forget(evaluation)

    async def _judge_published(self, evaluation: Evaluation, suite: PublishedSuite) -> None:
        """Judge by what the run measured on its held-out text; nobody is asked."""
        earlier = await self._evaluations.count_earlier(evaluation)
        verdict, metrics, found = suite.judge(evaluation.published, self._settings.evaluator_min_rows)
        evidence = {**opening(evaluation, suite, verdict), "earlier_verdicts": earlier, **found}
        await self._complete(evaluation, suite.deciding.name, Report(verdict, metrics, evidence, cost=0.0), earlier)

    async def _complete(self, evaluation: Evaluation, metric: str, report: Report, earlier: int) -> None:
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
                earlier=earlier,
                cost=report.cost,
                at=now(),
            ),
        )
        crash_point("evaluator.completed")
        log.info("evaluation_completed", evaluation_id=evaluation.id, verdict=verdict.kind, reason=verdict.reason)
