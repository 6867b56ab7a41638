"""Asks inference_proxy, by a signed call that may name candidates: what is judged is what would be served."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from chassis.errors import Invalid, NotFound, RateLimited, SartorError, TooLarge, Transient, Unprocessable
from chassis.peers import Peer, Unreachable
from schemas.artifacts import ChatMessage
from schemas.http.inference_proxy import UNSUPPORTED, EvaluationAnswer, TextScore, TokenCount

TRIES = 3
BACKOFF_SECONDS = 0.5
BROKEN = "generation_failed"
"""Code of the error of an engine that was asked and failed: it is worth another try at once."""
LOADING = "model_loading"
"""Code of the error where no replica holds the model: nobody was asked."""
FOR_GOOD = frozenset({"wrong_model", "arm_gone"})
"""Codes of the errors where an arm is not what was fitted, is of another embedder, or has lost its files."""

A = TypeVar("A")


class NotServed(Transient):
    """The question was put to no engine: no replica holds the model, or there is no proxy, or one that is busy."""

    default_code = "not_served"


class NotThere(NotServed):
    """There is no such model for who asks, or it is over."""


class RowRefused(Invalid):
    """The question cannot be answered, however often it is asked; too long a prompt, for example."""

    default_code = "row_refused"


class NotScored(Invalid):
    """No text can be scored by the engine of this model."""

    default_code = "not_scored"


class Proxy:
    """A client of inference_proxy.

    Args:
        peer: the service.
        answer_seconds: deadline of one answer.
    """

    def __init__(self, peer: Peer, *, answer_seconds: float) -> None:
        self._peer = peer
        self._deadline = answer_seconds

    async def answer(
        self, tenant_id: str, model: str, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str]
    ) -> tuple[EvaluationAnswer, float]:
        """The greedy answer of a base model, or of a version of one of the tenant's models; and its seconds.

        Args:
            tenant_id: whose test it is.
            model: who is asked.
            messages: the conversation.
            max_tokens: of the answer.
            stop: strings that end it.

        Raises:
            RowRefused: the question itself is refused.
            NotServed: nobody can be asked at the moment; nobody waits for it here.
            Transient: it was asked and not answered, or not in time; this question may be why.
        """
        body = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "stop": list(stop)}

        async def asked() -> tuple[EvaluationAnswer, float]:
            began = time.perf_counter()
            found = await self._peer.read(
                EvaluationAnswer,
                "/internal/evaluation/answers",
                tenant_id=tenant_id,
                json=body,
                timeout=self._deadline,
            )
            return found, time.perf_counter() - began

        return await _patiently(asked)

    async def score(self, tenant_id: str, model: str, text: str) -> tuple[TextScore, float]:
        """What a text is worth to a base model, or to a version of one of the tenant's models; and the seconds.

        Raises:
            NotScored: the engine of the model does not tell.
            RowRefused: the text is refused.
            NotServed, Transient: as `answer`.
        """

        async def asked() -> tuple[TextScore, float]:
            began = time.perf_counter()
            body = {"model": model, "text": text}
            path = "/internal/evaluation/scores"
            found = await self._peer.read(TextScore, path, tenant_id=tenant_id, json=body, timeout=self._deadline)
            return found, time.perf_counter() - began

        try:
            return await _patiently(asked)
        except RowRefused as error:
            if error.code != UNSUPPORTED:
                raise
            raise NotScored(f"'{model}' cannot be asked what a text is worth to it. {error.message}") from error

    async def expect(self, tenant_id: str, model: str) -> None:
        """Check, by the shortest of questions, that a model answers.

        Raises:
            NotServed, Transient: as `answer`.
        """
        with contextlib.suppress(RowRefused):
            await self.answer(tenant_id, model, [{"role": "user", "content": "."}], max_tokens=1, stop=[])

    async def count_tokens(self, tenant_id: str, model: str, text: str) -> int:
        """How many tokens a base model's tokenizer makes of a text.

        Raises:
            NotServed, Transient: as `answer`.
        """
        counted = await _patiently(
            lambda: self._peer.read(
                TokenCount,
                "/internal/evaluation/token_counts",
                tenant_id=tenant_id,
                json={"model": model, "text": text},
                timeout=self._deadline,
            )
        )
        return counted.tokens


async def _patiently(ask: Callable[[], Awaitable[A]]) -> A:
    """What was asked for, also where the first answers were that the proxy is busy or the engine broke off.

    Raises:
        RowRefused: the question itself is refused.
        NotThere: there is nothing of that name to ask.
        NotServed: it was put to no engine.
        Transient: whatever else may pass.
    """
    failure: SartorError
    for attempt in range(TRIES):
        try:
            return await ask()
        except (RateLimited, Transient) as error:
            failure = error
            if isinstance(error, Transient) and error.code != BROKEN:
                break
        except NotFound as error:
            failure = error
            break
        except (Invalid, TooLarge, Unprocessable) as error:
            raise RowRefused(f"The question was refused: {error.message}", code=error.code) from error
        if attempt < TRIES - 1:
            jitter = random.uniform(0.5, 1.5)  # noqa: S311
            await asyncio.sleep(BACKOFF_SECONDS * 2**attempt * jitter)
    if isinstance(failure, NotFound):
        raise NotThere(f"It cannot be asked now: {failure.message}") from failure
    if isinstance(failure, (RateLimited, Unreachable)) or failure.code == LOADING:
        raise NotServed(f"It cannot be asked now: {failure.message}") from failure
    raise failure
