"""Arms, which answer by the vectors of questions: `rag_indexer` holds them, and is asked for one answer at a time.

An answer is one token. It is the likeliest one unless a temperature is asked for: then it is drawn from the likeliest
twenty, by their confidences.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, Collection, Sequence

import structlog
from pydantic import JsonValue

from chassis.errors import Conflict, Forbidden, Invalid, NotFound, RateLimited, SartorError, Transient
from chassis.peers import LONGEST_CALL_SECONDS, Peer
from inference_proxy.engines.engine import (
    WRONG_MODELS,
    Accepted,
    AnswerBroken,
    ArmGone,
    EngineAway,
    EngineBusy,
    Piece,
    Prompt,
    Sampling,
    Scored,
    Target,
    WrongModel,
)
from schemas.artifacts import BadRow, ChatRow, read_chat_row
from schemas.http.rag_indexer import QUESTION_CHARACTERS, ArmAnswer, ArmAnswers, ArmAsked, Likely
from schemas.http.registry import ArmRoute

log = structlog.get_logger()

HONOURED = frozenset({"messages", "prompt", "temperature", "top_p", "seed", "stop", "logprobs"})
DRAWN_FROM = 20
MOST_ROWS = 16
"""Closest rows that are looked at; those of them that have room are shown."""

LEAST_LOGPROB = -9999.0
"""Of an answer without any confidence, as OpenAI's API has it for what is not among the likeliest."""


class ArmEngine:
    """Asks the arms of all tenants.

    Args:
        rag_indexer: the service that holds them.
        seconds: longest an answer may take; a call between services ends sooner.
    """

    def __init__(self, rag_indexer: Peer, seconds: float) -> None:
        self._rag_indexer = rag_indexer
        self._seconds = min(seconds, LONGEST_CALL_SECONDS)

    async def open(self) -> None:
        """Nothing is its own: calls between services have a client."""

    async def close(self) -> None:
        """Nothing is open; see `open`."""

    async def generate(
        self, target: Target, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Accepted | Piece, None]:
        """Answer, in one piece; see `Engine`."""
        said = prompt.said or (await self.say(target, [prompt.text], sampling))[0]
        chosen = _drawn(said, sampling, prompt.sure_from)
        yield Piece(
            text=chosen.answer,
            logprob=_logprob(chosen),
            bytes=chosen.answer.encode(),
            top=[(one.answer, _logprob(one), one.answer.encode()) for one in said.top[: sampling.top_logprobs or 0]],
            finish_reason="stop",
            generated_tokens=1,
            prompt_tokens=said.tokens,
            cpu_seconds=0.0 if prompt.said else said.cpu_seconds,
            confidence=chosen.confidence,
        )

    async def score(self, target: Target, prompt: Prompt, top: int) -> AsyncGenerator[Accepted | Scored, None]:  # noqa: ARG002 - as every engine's
        """No text is worth anything to an arm; see `Engine`."""
        raise Invalid(f"'{target.base_id}' is answered for by an arm, which does not tell what a text is worth.")
        yield  # what it raises is raised by a generator, as every engine's

    async def tokenize(self, target: Target, text: str) -> list[int]:  # noqa: ARG002 - as every engine's
        """An arm has no tokens; see `Engine`."""
        raise Invalid(
            f"This model is answered for by an arm, which splits no text into tokens; ask its base '{target.base_id}'."
        )

    async def capabilities(self, target: Target, wanted: Collection[str]) -> Collection[str]:  # noqa: ARG002 - as every engine's
        """What has a meaning for an answer that is one token."""
        return HONOURED.intersection(wanted)

    async def say(self, target: Target, questions: Sequence[str], sampling: Sampling) -> list[ArmAnswer]:
        """What the arm of the route says to each question, and nobody else, with what is needed to draw an answer.

        Raises:
            WrongModel, EngineBusy, EngineAway, AnswerBroken: as `Engine.generate`.
        """
        return await self._ask(target, questions, DRAWN_FROM if sampling.temperature else sampling.top_logprobs or 0)

    async def rows(self, target: Target, question: str) -> tuple[list[ChatRow], float]:
        """The rows whose questions are closest, of the arm of the route, which generates; the closest first.

        Returns:
            The rows, and the processor time that finding them took.

        Raises:
            WrongModel, EngineBusy, EngineAway, AnswerBroken: as `Engine.generate`.
        """
        [said] = await self._ask(target, [question], MOST_ROWS)
        if not said.top:
            raise AnswerBroken("it found no row.")
        try:
            return [read_chat_row(one.answer) for one in said.top], said.cpu_seconds
        except BadRow as error:
            raise _wrong_model(target, "another", error=str(error)) from error

    async def _ask(self, target: Target, questions: Sequence[str], top: int) -> list[ArmAnswer]:
        arm = _arm(target)
        asked = ArmAsked(
            arm_id=target.adapter_id or "",
            manifest=arm.manifest,
            questions=[one[-QUESTION_CHARACTERS:] for one in questions],
            top=top,
            generates=arm.generates,
            testing=target.testing,
        )
        try:
            told = await self._rag_indexer.read(
                ArmAnswers,
                "/internal/arms/answers",
                tenant_id=target.tenant_id,
                json=asked.model_dump(mode="json"),
                timeout=self._seconds,
            )
        except SartorError as error:
            raise _ours(error, target) from error
        _check_arm(target, arm, told)
        if len(told.answers) != len(questions):
            raise AnswerBroken(f"it gave {len(told.answers)} answers to {len(questions)} questions.")
        return told.answers


def _arm(target: Target) -> ArmRoute:
    assert target.arm is not None, f"{target.base_id} is not answered for by an arm"
    return target.arm


def _check_arm(target: Target, arm: ArmRoute, told: ArmAnswers) -> None:
    """Before anything of an answer is told: arm and embedder must be those of the route.

    Raises:
        WrongModel: they are not.
    """
    answered, wanted = (told.arm_id, told.kind, told.embedder), (target.adapter_id, arm.kind, arm.embedder)
    if answered != wanted:
        raise _wrong_model(target, "another", answered=told.arm_id, embedder=told.embedder.model_dump())


def _wrong_model(target: Target, why: str, **facts: JsonValue) -> WrongModel:
    WRONG_MODELS.labels(why).inc()
    log.error("wrong_model", why=why, arm_id=target.adapter_id, tenant_id=target.tenant_id, **facts)
    return WrongModel()


def _ours(error: SartorError, target: Target) -> SartorError:
    """The error a client of Sartor gets for one of `rag_indexer`; what concerns the operator is only logged."""
    if isinstance(error, RateLimited):
        return EngineBusy()
    if isinstance(error, (Conflict, Forbidden)):
        return _wrong_model(target, "refused", code=error.code, error=error.message)
    facts = {"arm_id": target.adapter_id, "tenant_id": target.tenant_id, "code": error.code, "error": error.message}
    if isinstance(error, Transient):
        log.warning("arm_away", **facts)
        return EngineAway()
    log.error("arm_refused", **facts)
    if isinstance(error, NotFound):
        return ArmGone()
    return AnswerBroken("what it was asked is refused where it is held.")


def _drawn(said: ArmAnswer, sampling: Sampling, sure_from: float) -> Likely:
    """The answer that is given: the likeliest, or with a temperature one of the likeliest, in the order of `top_p`.

    None is drawn whose confidence is less than `sure_from`.
    """
    likeliest = Likely(answer=said.answer, confidence=said.confidence)
    ranked = sorted((one for one in said.top if one.confidence >= sure_from), key=lambda one: -one.confidence)
    if not sampling.temperature or not ranked or not ranked[0].confidence:
        return likeliest
    weights = [(one.confidence / ranked[0].confidence) ** (1 / sampling.temperature) for one in ranked]
    kept, most = 0.0, (1.0 if sampling.top_p is None else sampling.top_p) * sum(weights)
    places = 0
    while places < len(weights) and kept < most:
        kept += weights[places]
        places += 1
    [one] = random.Random(sampling.seed).choices(ranked[:places], weights[:places])  # noqa: S311 - no secret
    return one


def _logprob(one: Likely) -> float:
    return math.log(one.confidence) if one.confidence else LEAST_LOGPROB
