"""Any provider with OpenAI's HTTP API: it renders conversations itself, has no adapters, and is asked with a key.

What it is sent: https://platform.openai.com/docs/api-reference/chat/create, always as a stream with its usage.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from pathlib import Path

import httpx2
import structlog
from prometheus_client import Counter
from pydantic import JsonValue

from chassis.errors import Invalid, SartorError
from inference_proxy.engines.engine import (
    Accepted,
    AnswerBroken,
    EngineAway,
    EngineBusy,
    Piece,
    Prompt,
    PromptTooLong,
    Sampling,
    Scored,
    Target,
)
from inference_proxy.engines.openai_stream import IncomingAnswer, events
from schemas.artifacts import Provider

log = structlog.get_logger()

FAILURES = Counter("provider_failures_total", "Answers that a provider refused or broke off.", ["base_model", "why"])

REFUSED_US = {401: "key_refused", 402: "unpaid", 403: "key_refused", 404: "unknown_there"}
"""By status, what a provider has against this installation; users can do nothing about it."""
UNPAID = {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"}
"""What OpenAI's API says, under 429 above all, where an account is not paid: waiting does not help."""
FOR_THE_OPERATOR = ("no_key", *REFUSED_US.values())
SENT = ("temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty", "logit_bias")

CONNECT_SECONDS = 10.0
MOST_ERROR_BYTES = 64 * 1024
MOST_SAID = 500
"""Characters of what a provider says of a request; it goes into an answer."""
MOST_RETRY_SECONDS = 3600.0
CHARACTERS_PER_TOKEN = 4
"""About so many in English: prompts of answers that nobody waited for are charged by it, as no usage is told then."""


class OpenAIEngine:
    """Asks providers.

    Args:
        seconds: longest an answer may take.
        keys_dir: folder of the files that hold the providers' keys.
    """

    def __init__(self, seconds: float, keys_dir: Path | None) -> None:
        self._seconds = seconds
        self._keys_dir = keys_dir
        self._client: httpx2.AsyncClient | None = None

    async def open(self) -> None:
        """Make the client; places are counted elsewhere, so it has as many connections as there are."""
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(self._seconds, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close the client."""
        if self._client:
            await self._client.aclose()

    async def generate(
        self, target: Target, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Accepted | Piece, None]:
        """Answer piece by piece; see `Engine`."""
        route, body = _request(_provider(target), prompt, sampling)
        async with aclosing(self._answer(target, prompt, sampling, route, body)) as pieces:
            async for piece in pieces:
                yield piece

    async def score(self, target: Target, prompt: Prompt, top: int) -> AsyncGenerator[Accepted | Scored, None]:
        """By an answer of no tokens that begins with the prompt; see `Engine`."""
        sampling = Sampling(max_tokens=0, logprobs=True, top_logprobs=top)
        route, body = _request(_provider(target), prompt, sampling)
        pieces = []
        async with aclosing(self._answer(target, prompt, sampling, route, {**body, "echo": True})) as answer:
            async for piece in answer:
                if isinstance(piece, Accepted):
                    yield piece
                else:
                    pieces.append(piece)
        if "".join(piece.text for piece in pieces) != prompt.text:
            raise AnswerBroken("its provider gave back another text than the prompt.")
        yield Scored(pieces[:-1], pieces[-1].prompt_tokens)

    async def _answer(
        self, target: Target, prompt: Prompt, sampling: Sampling, route: str, body: dict[str, JsonValue]
    ) -> AsyncGenerator[Accepted | Piece, None]:
        """The pieces of what a provider answers to a body; the last one has its counts."""
        key = self._key(target, _provider(target))
        deadline = asyncio.get_running_loop().time() + self._seconds
        answer = IncomingAnswer(sampling)
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._send(f"{target.url}{route}", key, body)
            try:
                if response.status_code != 200:
                    async with asyncio.timeout_at(deadline):
                        raise _refusal(target, prompt, response, await _error_of(response), key)
                yield Accepted(max(1, _characters(prompt) // CHARACTERS_PER_TOKEN))
                async with aclosing(events(response, deadline)) as told:
                    async for event in told:
                        for piece in answer.take(event):
                            yield piece
                yield answer.last()
            finally:
                await response.aclose()
        except (httpx2.HTTPError, TimeoutError) as error:
            _note(target, "unreachable", error=type(error).__name__)
            raise EngineAway from error
        except AnswerBroken as error:
            _note(target, "broken", error=_without(key, error.message))
            raise

    async def tokenize(self, target: Target, text: str) -> list[int]:  # noqa: ARG002 - as every engine's
        """No provider tells; see `Engine`."""
        raise Invalid(f"The provider of '{target.base_id}' does not tell how it splits texts into tokens.")

    async def capabilities(self, target: Target, wanted: Collection[str]) -> Collection[str]:
        """All but what its description says that it lacks."""
        provider = _provider(target)
        lacks = {*provider.lacks, *(() if provider.completions else ("prompt",))}
        lacks |= set() if provider.scores else {"echo", "echo_top"}
        return [name for name in wanted if name not in lacks]

    async def _send(self, url: str, key: str, body: dict[str, JsonValue]) -> httpx2.Response:
        assert self._client is not None, "open() was not called"
        headers = {"accept": "text/event-stream", "accept-encoding": "identity"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        request = self._client.build_request("POST", url, json=body, headers=headers)
        return await self._client.send(request, stream=True)

    def _key(self, target: Target, provider: Provider) -> str:
        """The provider's key, read anew each time so that it can be changed; empty where none is needed."""
        if provider.key_file is None:
            return ""
        try:
            if self._keys_dir is None:
                raise FileNotFoundError("SARTOR_INFERENCE_KEYS_DIR is not set")
            key = (self._keys_dir / provider.key_file).read_text().strip()
            if not key or not key.isascii() or not key.isprintable():
                raise ValueError("it holds no key")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            _note(target, "no_key", error=why)
            raise EngineAway(retry_after=None) from None
        return key


def _provider(target: Target) -> Provider:
    assert target.provider is not None, f"{target.base_id} is no provider's model"
    return target.provider


def _request(provider: Provider, prompt: Prompt, sampling: Sampling) -> tuple[str, dict[str, JsonValue]]:
    """Path and body of what the provider is sent: what was asked for, and nothing that it lacks."""
    body: dict[str, JsonValue] = {"model": provider.model, "stream": True, "stream_options": {"include_usage": True}}
    for name in SENT:
        value = getattr(sampling, name)
        if value not in (None, [], {}) and name not in provider.lacks:
            body[name] = value
    if prompt.messages:
        body["messages"] = [{**message} for message in prompt.messages]
        if sampling.max_tokens is not None:
            body[provider.max_tokens_field] = sampling.max_tokens
        if sampling.logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs or 0}
        return "/chat/completions", body
    if sampling.max_tokens is None:
        raise Invalid("max_tokens: this model's provider needs one for a raw completion.", param="max_tokens")
    body |= {"prompt": prompt.text, "max_tokens": sampling.max_tokens}
    if sampling.logprobs:
        body["logprobs"] = sampling.top_logprobs or 0
    return "/completions", body


def _characters(prompt: Prompt) -> int:
    return len(prompt.text) + sum(len(message["content"]) for message in prompt.messages)


async def _error_of(response: httpx2.Response) -> dict[str, JsonValue]:
    """What the provider says went wrong, in OpenAI's shape or one like it; empty where it says nothing readable."""
    read = b""
    async for chunk in response.aiter_raw():
        read += chunk
        if len(read) > MOST_ERROR_BYTES:
            return {}
    try:
        said = json.loads(read)
    except ValueError:
        return {}
    error = said.get("error", said) if isinstance(said, dict) else {}
    return error if isinstance(error, dict) else {"message": error}


def _refusal(
    target: Target, prompt: Prompt, response: httpx2.Response, said: dict[str, JsonValue], key: str
) -> SartorError:
    """The error a client of Sartor gets for a provider's; what concerns the operator alone is only logged."""
    status, names = response.status_code, ("code", "type", "message", "param")
    code, kind, message, param = (_without(key, str(said.get(name) or ""))[:MOST_SAID] for name in names)
    against_us = "unpaid" if UNPAID & {code, kind} else REFUSED_US.get(status)
    if against_us:
        _note(target, against_us, status=status, code=code)
        return EngineAway(retry_after=None)
    if status == 413 or code == "context_length_exceeded":
        return PromptTooLong(message or "its provider says so", prompt.param)
    if status in (400, 422):
        return Invalid(f"The provider of this model refuses the request: {message}", param=param or None)
    if status == 429:
        _note(target, "busy", status=status, code=code)
        return EngineBusy(_retry_after(response))
    return AnswerBroken(f"its provider answered {status}.", retry_after=_retry_after(response))


def _retry_after(response: httpx2.Response) -> float:
    """Seconds after which the provider wants to be asked again; one where it names none."""
    try:
        seconds = float(response.headers.get("retry-after", 1))
    except ValueError:  # a date, which OpenAI's API does not send
        return 1.0
    return min(seconds, MOST_RETRY_SECONDS) if seconds > 1 else 1.0


def _note(target: Target, why: str, **facts: str | int) -> None:
    FAILURES.labels(target.base_id, why).inc()
    note = log.error if why in FOR_THE_OPERATOR else log.warning
    note("provider_failed", base_model=target.base_id, why=why, **facts)


def _without(key: str, text: str) -> str:
    return text.replace(key, "[key]") if key else text
