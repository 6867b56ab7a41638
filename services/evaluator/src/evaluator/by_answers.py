"""Judges a candidate by its answers to held-out rows, beside those of the base model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import structlog

from chassis.errors import NotFound, SartorError
from chassis.ids import now
from chassis.peers import Peer
from evaluator.asking import Asking, answerer_of
from evaluator.domain import SEED, Evaluation, Plan, ServingArm, System
from evaluator.metrics import AwaitedMetric, Case
from evaluator.metrics.metric import within
from evaluator.prompts import choose_examples, example_text, few_shot, zero_shot
from evaluator.proxy import NotServed, NotThere, Proxy, RowRefused
from evaluator.report import Report, build_report, counted_rows
from evaluator.rows import Row, sample
from evaluator.settings import Settings
from evaluator.store import Answer, Answers, Artifacts, Evaluations
from evaluator.suites import Suite
from schemas import Task
from schemas.artifacts import BaseModelSpec, ChatMessage
from schemas.http.registry import ModelRoute

log = structlog.get_logger()

LONGEST_LOOKED_AT = 3
MARGIN_TOKENS = 4
TEMPLATE_TOKENS = 64

ARM_AWAY_SECONDS = 300
"""How long an arm is waited for that serves the name and does not answer; the test then goes on without it."""

ARM_UNTESTED_SECONDS = 600
"""How old a test may be that waits until the arm of its name is tested, beside which it is then made."""


class ArmAway(Exception):
    """The arm that serves the candidate's name cannot be asked, or is another one by now."""


class ByAnswers:
    """Asks the systems of a suite the same rows; see `Judging`."""

    def __init__(
        self,
        settings: Settings,
        evaluations: Evaluations,
        answers: Answers,
        artifacts: Artifacts,
        proxy: Proxy,
        registry: Peer,
        suites: Mapping[Task, Suite],
        asking: Asking,
    ) -> None:
        self._settings = settings
        self._evaluations = evaluations
        self._answers = answers
        self._artifacts = artifacts
        self._proxy = proxy
        self._registry = registry
        self._suites = suites
        self._asking = asking

    def suite(self, evaluation: Evaluation) -> Suite:
        """What it is tested by."""
        return self._suites[evaluation.dataset.task]

    async def report(self, evaluation: Evaluation) -> Report:
        """Ask what is not answered yet, then judge; see `Judging`."""
        heldout = await self._artifacts.rows(evaluation.dataset.heldout)
        train = await self._artifacts.rows(evaluation.dataset.train)
        plan = evaluation.plan or await self._plan(evaluation, heldout, train)
        answered = {(answer.system, answer.row) for answer in await self._answers.of(evaluation)}
        for system in plan.systems:
            rows = [heldout[place] for place in plan.rows if (system, place) not in answered]
            try:
                await self._ask(evaluation, plan, system, rows, [train[place] for place in plan.examples])
            except ArmAway as error:
                plan = await self._go_on_without_arm(evaluation, plan, str(error))
        await self._score(evaluation, plan, heldout)
        return await asyncio.to_thread(
            build_report,
            evaluation,
            self.suite(evaluation),
            plan,
            heldout,
            train,
            await self._answers.of(evaluation),
            min_rows=self._settings.evaluator_min_rows,
            earlier=await self._evaluations.count_earlier(evaluation),
        )

    async def _plan(self, evaluation: Evaluation, heldout: Sequence[Row], train: Sequence[Row]) -> Plan:
        classified = evaluation.dataset.task == "classification"
        taught = [row for row in heldout if row.taught]
        most = self._settings.evaluator_rows
        if evaluation.generates:
            most = min(most, self._settings.evaluator_generating_rows)
        rows = await asyncio.to_thread(sample, taught, most, SEED, lambda row: row.label if classified else "")
        arm = await self._serving_arm(evaluation) if rows and evaluation.arm is None else None
        asked = self.suite(evaluation).systems
        of_base = "base" in asked
        max_tokens = await self._answer_tokens(evaluation, rows) if of_base else self._settings.evaluator_max_tokens
        shows = bool(rows) and "few_shot" in asked
        examples = await self._examples(evaluation, train, rows, max_tokens) if shows else []
        systems: list[System] = [system for system in asked if examples or system != "few_shot"]
        if arm is not None:
            systems.append(arm.kind)
        one_line = classified and not any("\n" in row.reference for row in [*train, *heldout])
        plan = Plan(
            rows=[row.index for row in rows],
            examples=[row.index for row in examples],
            systems=systems,
            max_tokens=max_tokens,
            stop=["\n"] if one_line else [],
            seed=SEED,
            arm=arm,
        )
        return (await self._evaluations.write(evaluation, lambda one: one.fix_plan(plan))).plan or plan

    async def _serving_arm(self, evaluation: Evaluation) -> ServingArm | None:
        """What serves the adapter's name at the moment, where an arm does.

        Raises:
            NotServed: the name's arm is tested itself at the moment.
        """
        try:
            found = await self._registry.read(
                list[ModelRoute], "/internal/arms/{}", evaluation.model_id, tenant_id=evaluation.tenant_id
            )
        except NotFound:
            return None
        for route in found:
            if route.arm is not None and route.state == "production":
                return ServingArm(
                    kind=route.arm.kind,
                    version=route.version or route.model,
                    arm_id=route.adapter_id or "",
                    generates=route.arm.generates,
                )
        if now() < evaluation.created_at + ARM_UNTESTED_SECONDS:
            for route in found:
                if route.arm is not None and route.state == "candidate":
                    raise NotServed(f"'{route.version}', beside which it may be tested, is tested itself first.")
        return None

    async def _go_on_without_arm(self, evaluation: Evaluation, plan: Plan, why: str) -> Plan:
        """A test neither fails nor waits because of the arm beside which it is made."""
        log.warning("arm_not_asked", model_id=evaluation.model_id, reason=why)
        left = await self._evaluations.write(evaluation, lambda one: one.go_on_without_arm(why))
        return left.plan or plan.without_arm(why)

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
        async def ask(row: Row) -> None:
            messages = few_shot(row, examples) if system == "few_shot" else zero_shot(row)
            by_arm = plan.arm is not None and system == plan.arm.kind
            answering = self._answer_of_arm if by_arm else self._answer
            await self._answers.keep(evaluation, await answering(evaluation, system, row, messages, plan))

        await self._asking.one_then_all(evaluation, [partial(ask, row) for row in rows])

    async def _answer(
        self, evaluation: Evaluation, system: System, row: Row, messages: Sequence[ChatMessage], plan: Plan
    ) -> Answer:
        asked = answerer_of(evaluation, system, plan.arm)
        try:
            given, seconds = await self._proxy.answer(
                evaluation.tenant_id, asked.model, messages, max_tokens=plan.max_tokens, stop=plan.stop
            )
        except RowRefused as error:
            return Answer(system=system, row=row.index, refused=error.message)
        asked.check(given.adapter_id)
        return Answer(system=system, row=row.index, seconds=seconds, **given.model_dump(exclude={"adapter_id"}))

    async def _answer_of_arm(
        self, evaluation: Evaluation, system: System, row: Row, messages: Sequence[ChatMessage], plan: Plan
    ) -> Answer:
        """As `_answer`, of the arm beside which an adapter is tested: where it generates, a row may be too long for it.

        Raises:
            NotServed: it did not answer, which may pass.
            ArmAway: it never will, or has not for as long as it is waited for.
        """
        try:
            answer = await self._answer(evaluation, system, row, messages, plan)
        except SartorError as error:
            missed = now() - (evaluation.adapter_missed_at or now())
            if error.transient and not isinstance(error, NotThere) and missed <= ARM_AWAY_SECONDS:
                raise NotServed(f"'{plan.arm.version if plan.arm else system}': {error.message}") from error
            raise ArmAway(error.message) from error
        if answer.refused is not None and not (plan.arm and plan.arm.generates):
            raise ArmAway(answer.refused)
        return answer

    async def _score(self, evaluation: Evaluation, plan: Plan, heldout: Sequence[Row]) -> None:
        """Have scored what must be waited for and was not scored by an earlier attempt."""
        awaited = [one for one in self.suite(evaluation).metrics if isinstance(one, AwaitedMetric)]
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

        await self._asking.each(
            evaluation,
            [
                partial(score, metric, answer, case)
                for metric in awaited
                for answer, case in cases
                if metric.key not in answer.scores
            ],
        )
