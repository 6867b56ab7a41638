"""Judges a candidate by what text that its run held out is worth to it, beside the base model."""

from __future__ import annotations

import asyncio
from functools import partial

from evaluator.asking import Asking, answerer_of
from evaluator.domain import SEED, Evaluation, Plan, System
from evaluator.proxy import Proxy, RowRefused
from evaluator.report import Report
from evaluator.settings import Settings
from evaluator.store import Answer, Answers, Artifacts, Evaluations
from evaluator.suites import TEXT_SUITES, TextSuite
from evaluator.text_report import build_text_report
from evaluator.windows import Window, choose


class ByScores:
    """Has the systems of a suite score the same windows of text; see `Judging`."""

    def __init__(
        self,
        settings: Settings,
        evaluations: Evaluations,
        answers: Answers,
        artifacts: Artifacts,
        proxy: Proxy,
        asking: Asking,
    ) -> None:
        self._settings = settings
        self._evaluations = evaluations
        self._answers = answers
        self._artifacts = artifacts
        self._proxy = proxy
        self._asking = asking

    def suite(self, evaluation: Evaluation) -> TextSuite:
        """What it is tested by."""
        return TEXT_SUITES[evaluation.method]

    async def report(self, evaluation: Evaluation) -> Report:
        """Ask what is not scored yet, then judge; see `Judging`."""
        heldout = await self._artifacts.heldout_text(evaluation)
        windows = await self._artifacts.windows(evaluation.dataset.heldout, heldout)
        plan = evaluation.plan or await self._plan(evaluation, windows)
        answered = {(answer.system, answer.row) for answer in await self._answers.of(evaluation)}
        for system in plan.systems:
            left = [windows[place] for place in plan.rows if (system, place) not in answered]
            asked = [partial(self._ask, evaluation, system, window) for window in left]
            await self._asking.one_then_all(evaluation, asked)
        return await asyncio.to_thread(
            build_text_report,
            evaluation,
            self.suite(evaluation),
            plan,
            heldout.unit,
            windows,
            await self._answers.of(evaluation),
            min_passages=self._settings.evaluator_min_rows,
            earlier=await self._evaluations.count_earlier(evaluation),
        )

    async def _plan(self, evaluation: Evaluation, windows: list[Window]) -> Plan:
        plan = Plan(
            rows=[window.index for window in choose(windows, self._settings.evaluator_windows)],
            examples=[],
            systems=list(self.suite(evaluation).systems),
            max_tokens=0,
            stop=[],
            seed=SEED,
        )
        return (await self._evaluations.write(evaluation, lambda one: one.fix_plan(plan))).plan or plan

    async def _ask(self, evaluation: Evaluation, system: System, window: Window) -> None:
        await self._answers.keep(evaluation, await self._answer(evaluation, system, window))

    async def _answer(self, evaluation: Evaluation, system: System, window: Window) -> Answer:
        asked = answerer_of(evaluation, system)
        try:
            given, seconds = await self._proxy.score(evaluation.tenant_id, asked.model, window.text)
        except RowRefused as error:
            return Answer(system=system, row=window.index, refused=error.message)
        asked.check(given.adapter_id)
        return Answer(
            system=system,
            row=window.index,
            losses=[-logprob for logprob in given.logprobs],
            prompt_tokens=given.prompt_tokens,
            seconds=seconds,
            cost=given.cost,
        )
