"""Asks the model server, which speaks TGI's HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from chassis.errors import Invalid, SartorError, Transient
from evaluator.rows import Message

TRIES = 5
BACKOFF_SECONDS = 0.5


class AdapterNotFound(Transient):
    """The replica that was asked does not hold the adapter yet."""

    default_code = "adapter_not_found"


class RowRefused(Invalid):
    """The engine cannot answer this question, however often it is asked; too long a prompt, for example."""

    default_code = "row_refused"


@dataclass(frozen=True)
class Completion:
    """One answer with its cost; `seconds` from the request to the whole answer."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    seconds: float


class Engine:
    """A client of the model server that asks a bounded number of questions at a time.

    Args:
        url: where the model server answers.
        client: shared HTTP client.
        parallel: most questions at a time.
        answer_seconds: deadline of one answer.
    """

    def __init__(self, url: str, client: httpx2.AsyncClient, *, parallel: int, answer_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._client = client
        self._gate = asyncio.Semaphore(parallel)
        self._deadline = answer_seconds

    async def complete(
        self, model: str, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str]
    ) -> Completion:
        """The greedy answer of `model`, a base model's or an adapter's id.

        Args:
            model: who is asked.
            messages: the conversation.
            max_tokens: of the answer.
            stop: strings that end it.

        Raises:
            RowRefused: the engine refuses the question itself.
            AdapterNotFound: the adapter is not there; nobody waits for it here.
            Transient: the engine is down, overloaded or broken, also after some tries.
        """
        body = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0, "stream": False}
        if stop:
            body["stop"] = list(stop)
        async with self._gate:
            asked = time.perf_counter()
            answer = await self._post("/v1/chat/completions", body)
            seconds = time.perf_counter() - asked
        return _completion(answer, seconds)

    async def expect(self, model: str) -> None:
        """Check, by the shortest of questions, that a model answers.

        Raises:
            AdapterNotFound, Transient: as `complete`.
        """
        with contextlib.suppress(RowRefused):
            await self.complete(model, [{"role": "user", "content": "."}], max_tokens=1, stop=[])

    async def count_tokens(self, text: str) -> int:
        """How many tokens the base model's tokenizer makes of `text`.

        Raises:
            Transient: the engine is down or answers something else.
        """
        answer = await self._post("/tokenize", {"inputs": text, "add_special_tokens": False})
        if not isinstance(answer, list):
            raise Transient("The model server's /tokenize did not answer a list of tokens.")
        return len(answer)

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        for attempt in range(1, TRIES + 1):
            try:
                response = await self._client.post(f"{self._url}{path}", json=body, timeout=self._deadline)
                if response.is_success:
                    return response.json()
                raise _meaning(response)
            except httpx2.HTTPError as error:
                failure: SartorError = Transient(f"The model server cannot be reached ({type(error).__name__}).")
            except (AdapterNotFound, RowRefused):
                raise
            except Transient as error:
                failure = error
            if attempt < TRIES:
                jitter = random.uniform(0.5, 1.5)  # noqa: S311
                await asyncio.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1) * jitter)
        raise failure


def _completion(answer: Any, seconds: float) -> Completion:
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        text = choice["message"].get("content") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Transient(f"The model server answered no chat completion ({type(error).__name__}).") from error
    return Completion(
        text=text,
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        completion_tokens=int(usage.get("completion_tokens", 0)),
        finish_reason=str(choice.get("finish_reason") or ""),
        seconds=seconds,
    )


def _meaning(response: httpx2.Response) -> SartorError:
    """The error a refusal stands for; TGI's body is `{"error": text, "error_type": slug}`."""
    try:
        body = response.json()
        message, kind = str(body.get("error", "")), str(body.get("error_type", ""))
    except (ValueError, AttributeError):
        message, kind = response.text[:200], ""
    if response.status_code == 404 and kind == "adapter_not_found":
        return AdapterNotFound(f"The model server does not hold the adapter: {message}")
    if response.status_code in (400, 413, 422):
        return RowRefused(f"The model server refused the question: {message}")
    return Transient(f"The model server answered {response.status_code} {kind}: {message}")
