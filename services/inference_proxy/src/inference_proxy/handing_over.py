"""What an arm is too unsure of is left to the next: the adapter of its name, or else the base model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from prometheus_client import Counter

from chassis.errors import NotFound, Transient
from inference_proxy.answers import Answer, HandedOver
from inference_proxy.asking import Asking
from inference_proxy.bases import Base, Bases, ProviderBase
from inference_proxy.engines import Engine, ModelLoading, Target
from inference_proxy.engines.arms import ArmEngine
from inference_proxy.lacking import refuse_lacking
from inference_proxy.rendering import Rendering
from inference_proxy.routing import BELIEVED_SECONDS, BaseReplaced, HandOver, Route, RouteTable
from schemas.http.rag_indexer import ArmAnswer

HANDED_OVER = Counter(
    "inference_handed_over_total",
    "Answers that an arm was too unsure to give, by its kind and by what they were left to.",
    ["arm", "to"],
)


class HandingOver:
    """Settles, before anything of an answer is told, whether an arm gives it or the next.

    Args:
        arms: says how sure an arm is.
        asking: has a route answer.
        bases: base models, which the next stands on.
        rendering: makes prompts for the next.
        routes: choose who answers.
    """

    def __init__(self, arms: ArmEngine, asking: Asking, bases: Bases, rendering: Rendering, routes: RouteTable) -> None:
        self._arms = arms
        self._asking = asking
        self._bases = bases
        self._rendering = rendering
        self._routes = routes

    async def settle(self, answer: Answer) -> None:
        """Leave an answer to the next, with all its choices, where the arm is too unsure of one of its prompts.

        Raises:
            Invalid: the arm does not have what is asked for, however sure it is.
            ModelLoading: it is too unsure, and no replica holds the next.
            BaseMissing, BaseReplaced: it is too unsure, and its base model is not there any more, or not here.
            SartorError: the arm, or the next, is not to be had, or the next cannot take what is asked.
        """
        arm, hand_over = answer.route.arm, answer.route.hand_over
        if arm is None or hand_over is None:
            return
        said = await self._said(answer)
        answer.looked_seconds += sum(one.cpu_seconds for one in said.values())
        least = min(one.confidence for one in said.values())
        if least >= hand_over.below:
            answer.prompts = [
                replace(prompt, said=said[prompt.text], sure_from=hand_over.below) for prompt in answer.prompts
            ]
        else:
            await self._leave(answer, hand_over, HandedOver(arm.kind, least))

    async def _said(self, answer: Answer) -> dict[str, ArmAnswer]:
        """By question, what the arm says to it."""
        route, sampling = answer.route, answer.asked.sampling(answer.stop_tokens, 0)
        questions = list(dict.fromkeys(prompt.text for prompt in answer.prompts))

        async def say(engine: Engine, target: Target) -> AsyncGenerator[list[ArmAnswer], None]:
            scores = answer.asked.scores
            await refuse_lacking(engine, route, target, answer.prompts[0], sampling, scores=scores)
            yield await self._arms.say(target, questions, sampling)

        async with aclosing(self._asking.of(route, say)) as told:
            return dict(zip(questions, await anext(told), strict=True))

    async def _leave(self, answer: Answer, hand_over: HandOver, handed_over: HandedOver) -> None:
        try:
            to, base = await self._next(answer, hand_over)
        except Transient:
            HANDED_OVER.labels(handed_over.by, "nobody").inc()
            raise
        HANDED_OVER.labels(handed_over.by, to.answers_by or "base").inc()
        rendered = await self._rendering.of(answer.principal, base, answer.asked)
        answer.route, answer.prompts, answer.stop_tokens = to, rendered.prompts, rendered.stop_tokens
        answer.price, answer.handed_over = base.price, handed_over

    async def _next(self, answer: Answer, hand_over: HandOver) -> tuple[Route, Base | ProviderBase]:
        """The route to what an arm hands over to, and the base model that it stands on.

        Raises:
            ModelLoading: no replica holds it.
            BaseMissing: there is no such base model any more.
            BaseReplaced: another provider answers by its name now, and is told nothing.
        """
        principal, base_id = answer.principal, answer.route.base_id
        try:
            to = hand_over.to or await self._routes.find(principal, base_id)
            base = await self._bases.get(base_id, principal.tenant_id)
        except NotFound as error:
            raise BaseMissing(base_id) from error
        if base.provider is not None:
            raise BaseReplaced(base_id)
        if not to.replicas:
            self._routes.missed(answer.route)
            raise ModelLoading
        to.agree(base)
        return to, base


class BaseMissing(Transient):
    """An arm is too unsure, and the base model to which it hands over is not there any more."""

    def __init__(self, base_id: str) -> None:
        super().__init__(
            f"This model is too unsure of its answer, and the base model '{base_id}', which would give it, is not "
            "there any more. Ask again when it is back, or have the model pinned without a bound.",
            code="base_model_missing",
            retry_after=BELIEVED_SECONDS,
        )
