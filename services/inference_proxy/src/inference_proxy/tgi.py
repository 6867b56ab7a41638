"""The engine: TGI's HTTP API through the `text-generation` client, which knows neither adapters nor kept connections.

Both are added here, and its errors become ours. Leaving TGI means another file like this one.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import aiohttp
from pydantic import ValidationError as PydanticError
from pydantic import field_validator
from text_generation import AsyncClient
from text_generation.errors import (
    GenerationError,
    IncompleteGenerationError,
    NotFoundError,
    OverloadedError,
    RateLimitExceededError,
    ValidationError,
    parse_error,
)
from text_generation.types import Parameters, Request, StreamResponse

from chassis.errors import Invalid, RateLimited, SartorError, Transient

FINISH_REASONS = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
LONGEST_EVENT = 1024 * 1024


class LoraParameters(Parameters):  # type: ignore[misc]
    """The client's parameters with the adapter, an answer as long as there is room, and what goes beyond TGI."""

    adapter_id: str | None = None
    max_new_tokens: int | None = None
    presence_penalty: float | None = None
    logit_bias: dict[int, float] | None = None

    @field_validator("frequency_penalty")
    @classmethod
    def valid_frequency_penalty(cls, penalty: float | None) -> float | None:
        """Any, as TGI takes it from -2 to 2; the client's own check lets no negative one pass."""
        return penalty


class LoraRequest(Request):  # type: ignore[misc]
    """The client's request; without its own annotation pydantic would drop the adapter."""

    parameters: LoraParameters | None = None


@dataclass(frozen=True)
class Sampling:
    """How to generate; None leaves the engine's default, and as many tokens as the context has room for."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    top_n_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None

    @property
    def beyond_tgi(self) -> list[str]:
        """What is asked for that TGI itself does not have."""
        return [name for name in ("presence_penalty", "logit_bias") if getattr(self, name)]

    def parameters(self, adapter_id: str | None) -> LoraParameters:
        """For TGI: greedy unless a temperature above zero is asked for."""
        sample = self.temperature is None or self.temperature > 0
        return LoraParameters(
            adapter_id=adapter_id,
            max_new_tokens=self.max_new_tokens,
            do_sample=sample,
            temperature=self.temperature if sample and self.temperature != 1 else None,
            top_p=self.top_p if sample and self.top_p is not None and self.top_p < 1 else None,
            seed=self.seed,
            stop=self.stop,
            top_n_tokens=self.top_n_tokens,
            frequency_penalty=self.frequency_penalty or None,
            presence_penalty=self.presence_penalty or None,
            logit_bias=dict(self.logit_bias) if self.logit_bias else None,
        )


@dataclass(frozen=True)
class Piece:
    """One generated token. `finish_reason` is set on the last one, with the counts of the whole answer.

    Attributes:
        text: what became whole with it.
        bytes: what it stands for itself; None from an engine that does not tell.
        top: the likeliest tokens: text, log-probability, bytes.
    """

    text: str
    token_id: int
    logprob: float | None
    special: bool
    bytes: builtins.bytes | None = None
    top: list[tuple[str, float, builtins.bytes | None]] = field(default_factory=list)
    finish_reason: str | None = None
    generated_tokens: int = 0
    prompt_tokens: int = 0


class TGIClient(AsyncClient):  # type: ignore[misc]
    """The client with a pooled session and adapters.

    Args:
        seconds: longest an answer may take.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("", timeout=int(seconds))
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session, inside the running event loop."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self.timeout, read_bufsize=LONGEST_EVENT)

    async def close(self) -> None:
        """Close the session."""
        if self._session:
            await self._session.close()

    async def stream(
        self, url: str, prompt: str, sampling: Sampling, adapter_id: str | None, param: str
    ) -> AsyncGenerator[Piece, None]:
        """Generate on the replica at `url`, token by token; leaving the iterator cancels the generation.

        Args:
            url: the replica's.
            prompt: as the model reads it.
            sampling: how to generate.
            adapter_id: whose answer; the base model's if None.
            param: the field of the request that holds the prompt.

        Raises:
            Invalid: the prompt does not fit the model's context, or the engine lacks what is asked for.
            RateLimited: the engine's queue is full.
            Transient: the engine is away, or does not hold the adapter (yet).
        """
        assert self._session is not None, "open() was not called"
        try:
            request = LoraRequest(inputs=prompt, stream=True, parameters=sampling.parameters(adapter_id))
            await self._refuse_lacking(url, sampling.beyond_tgi)
            body = json.dumps(request.model_dump(), ensure_ascii=False).encode()
            headers = {"content-type": "application/json"}
            async with self._session.post(f"{url}/generate_stream", data=body, headers=headers) as answer:
                if answer.status == 413:
                    raise _too_long("its body is too large", param)
                if answer.status != 200:
                    raise parse_error(answer.status, await answer.json())
                prompt_tokens = int(answer.headers.get("x-prompt-tokens", 0))
                whole = False
                async for line in answer.content:
                    if line.startswith(b"data:"):
                        piece = _piece(json.loads(line[5:]), prompt_tokens)
                        whole = piece.finish_reason is not None
                        yield piece
                if not whole:
                    raise IncompleteGenerationError("the stream ended before the answer did")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Transient("The model is not reachable at the moment; try again shortly.", retry_after=1) from error
        except Exception as error:  # whatever the client library raises is one of our kinds outside this file
            raise _ours(error, param) from error

    async def _refuse_lacking(self, url: str, wanted: list[str]) -> None:
        """Refuse what an engine does not say it has: it would ignore it."""
        if not wanted:
            return
        assert self._session is not None, "open() was not called"
        async with self._session.get(f"{url}/info") as answer:
            has = (await answer.json()).get("beyond_tgi", []) if answer.status == 200 else []
        for name in wanted:
            if name not in has:
                raise Invalid(f"{name}: the engine of this model does not have it. Leave it out.", param=name)


def _piece(payload: dict[str, object], prompt_tokens: int) -> Piece:
    try:
        event = StreamResponse.model_validate(payload)
    except PydanticError:
        raise parse_error(200, payload) from None
    token, top = payload.get("token"), payload.get("top_tokens")
    details = payload.get("details")
    counts = details if isinstance(details, dict) else {}
    return Piece(
        text=event.token.text,
        token_id=event.token.id,
        logprob=event.token.logprob,
        special=event.token.special,
        bytes=_own_bytes(token),
        top=[
            (one.text, one.logprob or 0.0, _own_bytes(raw))
            for one, raw in zip(event.top_tokens or [], top if isinstance(top, list) else [], strict=True)
        ],
        finish_reason=FINISH_REASONS[event.details.finish_reason.value] if event.details else None,
        generated_tokens=event.details.generated_tokens if event.details else 0,
        prompt_tokens=prompt_tokens or int(counts.get("input_length") or 0),
    )


def _own_bytes(token: object) -> bytes | None:
    own = token.get("bytes") if isinstance(token, dict) else None
    return None if own is None else bytes(own)


def _too_long(why: str, param: str) -> Invalid:
    return Invalid(
        f"This model's context is too short for the prompt and the answer together: {why}. "
        f"Shorten {param} or lower max_tokens.",
        code="context_length_exceeded",
        param=param,
    )


def _ours(error: Exception, param: str) -> Exception:
    """The error a client of Sartor gets for one of TGI's."""
    if isinstance(error, SartorError):
        return error
    if isinstance(error, ValidationError):
        message = str(error)
        if "tokens" in message:
            return _too_long(message, param)
        return Invalid(message)
    if isinstance(error, (OverloadedError, RateLimitExceededError)):
        return RateLimited("The model has too many requests at the moment; try again shortly.", retry_after=1)
    if isinstance(error, NotFoundError):
        return Transient("The model is being loaded; try again in a few seconds.", code="model_loading", retry_after=2)
    if isinstance(error, (GenerationError, IncompleteGenerationError)):
        return Transient(f"The model failed to answer: {error}", code="generation_failed", retry_after=1)
    return error
