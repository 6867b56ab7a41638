"""What an arm is too unsure of is left to the next: the adapter of its name, or else the base model."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import Counter

from inference_proxy.answers import Answer, HandedOver
from inference_proxy.bases import Bases
from inference_proxy.engines import EngineAway, ModelLoading, WrongModel
from inference_proxy.engines.arms import ArmEngine
from inference_proxy.lacking import refuse_lacking
from inference_proxy.rendering import Rendering
from inference_proxy.routing import HandOver, RouteTable
from schemas.http.rag_indexer import ArmAnswer

HANDED_OVER = Counter(
    "inference_handed_over_total",
    "Answers that an arm was too unsure to give, by its kind and by what gave them instead.",
    ["arm", "to"],
)


class HandingOver:
    """Settles, before anything of an answer is told, whether an arm gives it or the next.

    Args:
        arms: says how sure an arm is.
        bases: base models, which the next stands on.
        rendering: makes prompts for the next.
        routes: choose who answers.
    """

    def __init__(self, arms: ArmEngine, bases: Bases, rendering: Rendering, routes: RouteTable) -> None:
        self._arms = arms
        self._bases = bases
        self._rendering = rendering
        self._routes = routes

    async def settle(self, answer: Answer) -> None:
        """Leave an answer to the next, with all its choices, where the arm is too unsure of one of its prompts.

        Raises:
            Invalid: the arm does not have what is asked for, however sure it is.
            ModelLoading: it is too unsure, and no replica holds the next.
            SartorError: the arm, or the next, is not to be had.
        """
        arm, hand_over = answer.route.arm, answer.route.hand_over
        if arm is None or hand_over is None or answer.asked.max_tokens == 0:
            return
        said = await self._said(answer)
        least = min(one.confidence for one in said.values())
        if least >= hand_over.below:
            answer.prompts = [replace(prompt, said=said[prompt.text]) for prompt in answer.prompts]
        else:
            await self._leave(answer, hand_over, HandedOver(arm.kind, least))

    async def _said(self, answer: Answer) -> dict[str, ArmAnswer]:
        """By question, what the arm says to it."""
        route, sampling = answer.route, answer.asked.sampling(answer.stop_tokens, 0)
        target = self._routes.pick(route)
        await refuse_lacking(self._arms, route, target, answer.prompts[0], sampling, scores=answer.asked.scores)
        questions = list(dict.fromkeys(prompt.text for prompt in answer.prompts))
        try:
            said = await self._arms.say(target, questions, sampling)
        except (EngineAway, WrongModel):
            self._routes.missed(route)
            raise
        return dict(zip(questions, said, strict=True))

    async def _leave(self, answer: Answer, hand_over: HandOver, handed_over: HandedOver) -> None:
        former, principal = answer.route, answer.principal
        to = hand_over.to or await self._routes.find(principal, former.base_id)
        if not to.replicas:
            self._routes.missed(former)
            raise ModelLoading
        base = await self._bases.get(former.base_id, principal.tenant_id)
        to.agree(base)
        rendered = await self._rendering.of(principal, base, answer.asked)
        answer.route, answer.prompts, answer.stop_tokens = to, rendered.prompts, rendered.stop_tokens
        answer.price, answer.handed_over = base.price, handed_over
        HANDED_OVER.labels(handed_over.by, to.answers_by or "base").inc()
