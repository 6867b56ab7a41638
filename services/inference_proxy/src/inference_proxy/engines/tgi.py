"""TGI's HTTP API through the `text-generation` client, which knows neither adapters nor kept connections.

Both are added here, and its errors become ours.
"""

from __future__ import annotations

import builtins
import codecs
import json
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Literal

import aiohttp
import structlog
from pydantic import BaseModel, JsonValue, TypeAdapter, field_validator
from pydantic import ValidationError as PydanticError
from text_generation import AsyncClient
from text_generation.errors import (
    BadRequestError,
    GenerationError,
    IncompleteGenerationError,
    NotFoundError,
    OverloadedError,
    RateLimitExceededError,
    ShardNotReadyError,
    ShardTimeoutError,
    UnknownError,
    ValidationError,
    parse_error,
)
from text_generation.types import Parameters, Request

from chassis.errors import Invalid, SartorError
from inference_proxy.engines.engine import (
    WRONG_MODELS,
    AnswerBroken,
    EngineAway,
    EngineBusy,
    EngineLate,
    ModelLoading,
    Piece,
    Prompt,
    PromptTooLong,
    Sampling,
    Scored,
    Target,
    WrongModel,
)
from schemas.http.model_server import IDENTITY, identity

log = structlog.get_logger()

FINISH_REASONS = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
LONGEST_EVENT = 1024 * 1024
CONNECT_SECONDS = 10.0
"""A machine that is gone takes no connection and refuses none."""
KEPT_SECONDS = 60.0
"""How long a connection is kept for the next question; engines keep theirs longer."""
FAILED = (GenerationError, IncompleteGenerationError, ShardNotReadyError, ShardTimeoutError, UnknownError)
BEYOND_TGI = {"presence_penalty": "presence_penalty", "logit_bias": "logit_bias", "echo_top": "score"}
"""What a request may want that TGI itself does not have, with the word by which an engine says that it has it."""


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


class LikelyToken(BaseModel):
    """A token, as TGI tells it; the bytes come from our engine alone."""

    text: str
    logprob: float | None = None
    bytes: list[int] | None = None

    @property
    def own(self) -> builtins.bytes | None:
        """What it stands for itself, where that is told."""
        return None if self.bytes is None else builtins.bytes(self.bytes)

    @property
    def likely(self) -> tuple[str, float, builtins.bytes | None]:
        """As one of a piece's likeliest."""
        return self.text, self.logprob or 0.0, self.own


class PrefillToken(LikelyToken):
    """A token of a prompt.

    Attributes:
        special: it stands before every prompt and is no part of this one; None from an engine that does not tell.
        top_tokens: the likeliest in its place.
    """

    special: bool | None = None
    top_tokens: list[LikelyToken] = []


class AnswerToken(LikelyToken):
    """A token of an answer."""

    special: bool


class Ending(BaseModel):
    """How an answer ended, with its counts."""

    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    generated_tokens: int
    input_length: int | None = None


class StreamEvent(BaseModel):
    """One event of a stream."""

    token: AnswerToken
    top_tokens: list[LikelyToken] | None = None
    details: Ending | None = None


class Token(BaseModel):
    """A token of a text."""

    id: int


TOKENS = TypeAdapter(list[Token])


class TGIEngine(AsyncClient):  # type: ignore[misc]
    """The client with a pooled session and adapters.

    Args:
        seconds: longest an answer may take.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("")
        self._seconds = seconds
        self._opened: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session, inside the running event loop."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS)
        timeout = aiohttp.ClientTimeout(total=self._seconds, sock_connect=CONNECT_SECONDS)
        self._opened = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=LONGEST_EVENT)

    async def close(self) -> None:
        """Close the session."""
        if self._opened:
            await self._opened.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._opened is not None, "open() was not called"
        return self._opened

    async def generate(self, target: Target, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Answer token by token; see `Engine`."""
        with _our_kinds(prompt.param):
            request = LoraRequest(inputs=prompt.text, stream=True, parameters=_parameters(sampling, target.adapter_id))
            async with self._asked(target, "/generate_stream", request.model_dump(), prompt.param) as answer:
                prompt_tokens = int(answer.headers.get("x-prompt-tokens", 0))
                whole = False
                async for line in answer.content:
                    if line.startswith(b"data:"):
                        piece = _piece(json.loads(line[5:]), prompt_tokens)
                        whole = piece.finish_reason is not None
                        yield piece
                if not whole:
                    raise IncompleteGenerationError("the stream ended before the answer did")

    async def score(self, target: Target, prompt: Prompt, top: int) -> AsyncGenerator[Scored, None]:
        """What TGI tells of a prompt before it answers; of its one token of an answer nothing is told; see `Engine`."""
        with _our_kinds(prompt.param):
            parameters: dict[str, JsonValue] = {
                "adapter_id": target.adapter_id,
                "details": True,
                "decoder_input_details": True,
                "max_new_tokens": 0 if "score" in await self._beyond_tgi(target) else 1,
                "top_n_tokens": top or None,
            }
            body: dict[str, JsonValue] = {"inputs": prompt.text, "parameters": parameters}
            async with self._asked(target, "/generate", body, prompt.param) as answer:
                told = await answer.json()
            yield _scored(prompt.text, [PrefillToken.model_validate(one) for one in told["details"]["prefill"]])

    async def tokenize(self, target: Target, text: str) -> list[int]:
        """The base model's tokens of a text, whatever is on top of it; see `Engine`."""
        body: dict[str, JsonValue] = {"inputs": text, "add_special_tokens": False}
        with _our_kinds("text"):
            async with self._asked(replace(target, adapter_id=None), "/tokenize", body, "text") as answer:
                return [token.id for token in TOKENS.validate_python(await answer.json())]

    @asynccontextmanager
    async def _asked(
        self, target: Target, path: str, body: Mapping[str, JsonValue], param: str
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """An answer of the model that was asked; none else, and no refusal, is read any further."""
        sent = json.dumps(body, ensure_ascii=False).encode()
        headers = {"content-type": "application/json", **_names(target)}
        async with self._session.post(f"{target.url}{path}", data=sent, headers=headers) as answer:
            if answer.status == 413:
                raise PromptTooLong("its body is too large", param)
            if answer.status != 200:
                raise _refusal(target, answer.status, await answer.json())
            _check_echo(target, answer)
            yield answer

    async def capabilities(self, target: Target, wanted: Collection[str]) -> Collection[str]:
        """What TGI has, and what goes beyond it where the engine says so; it is asked only for that."""
        plain = [name for name in wanted if name not in BEYOND_TGI]
        if len(plain) == len(wanted):
            return plain
        beyond = await self._beyond_tgi(target)
        return [*plain, *(name for name, word in BEYOND_TGI.items() if word in beyond)]

    async def _beyond_tgi(self, target: Target) -> Collection[JsonValue]:
        """What the engine says that it has besides what TGI has."""
        with _our_kinds(""):
            async with self._session.get(f"{target.url}/info") as answer:
                said = await answer.json() if answer.status == 200 else None
        return (said.get("beyond_tgi") or []) if isinstance(said, dict) else []


def _names(target: Target) -> dict[str, str]:
    """The header that names the model asked; an engine that has another base refuses, TGI does not look at it."""
    return {IDENTITY: identity(target.base_digest, target.adapter_id)} if target.base_digest else {}


def _check_echo(target: Target, answer: aiohttp.ClientResponse) -> None:
    """Before anything of an answer is read: it must be the model's that was asked.

    Raises:
        WrongModel: it names another, or none though this engine declares that it does.
    """
    wanted, echoed = identity(target.base_digest, target.adapter_id), answer.headers.get(IDENTITY)
    if echoed == wanted or (echoed is None and not target.echoes):
        return
    raise _wrong_model(target, "unnamed" if echoed is None else "another", echoed)


def _wrong_model(target: Target, why: str, echoed: str | None) -> WrongModel:
    WRONG_MODELS.labels(why).inc()
    wanted = identity(target.base_digest, target.adapter_id)
    log.error("wrong_model", why=why, url=target.url, base_model=target.base_id, wanted=wanted, echoed=echoed)
    return WrongModel()


def _refusal(target: Target, status: int, body: JsonValue) -> Exception:
    if not isinstance(body, dict):
        return AnswerBroken(f"it answered {status}.")
    if body.get("error_type") == "base_not_found":
        return _wrong_model(target, "refused", None)
    if body.get("error_type") == "base_not_proven":
        return ModelLoading()
    error: Exception = parse_error(status, body)
    return error


def _parameters(sampling: Sampling, adapter_id: str | None) -> LoraParameters:
    """For TGI: greedy unless a temperature above zero is asked for."""
    sample = sampling.temperature is None or sampling.temperature > 0
    return LoraParameters(
        adapter_id=adapter_id,
        max_new_tokens=sampling.max_tokens,
        do_sample=sample,
        temperature=sampling.temperature if sample and sampling.temperature != 1 else None,
        top_p=sampling.top_p if sample and sampling.top_p is not None and sampling.top_p < 1 else None,
        seed=sampling.seed,
        stop=sampling.stop,
        top_n_tokens=sampling.top_logprobs,
        frequency_penalty=sampling.frequency_penalty or None,
        presence_penalty=sampling.presence_penalty or None,
        logit_bias=dict(sampling.logit_bias) if sampling.logit_bias else None,
    )


def _piece(payload: JsonValue, prompt_tokens: int) -> Piece:
    try:
        event = StreamEvent.model_validate(payload)
    except PydanticError:
        raise parse_error(200, payload) from None
    token, ending = event.token, event.details
    return Piece(
        text=token.text,
        logprob=token.logprob,
        special=token.special,
        bytes=token.own,
        top=[one.likely for one in event.top_tokens or []],
        finish_reason=FINISH_REASONS[ending.finish_reason] if ending else None,
        generated_tokens=ending.generated_tokens if ending else 0,
        prompt_tokens=prompt_tokens or (ending.input_length or 0 if ending else 0),
    )


def _scored(text: str, told: list[PrefillToken]) -> Scored:
    """The tokens of a text, without those that stand before every one: TGI does not mark its begin-of-text token."""
    begins = 0
    for token in told:
        unmarked = begins == 0 and token.special is None and token.logprob is None
        if not (token.special or (unmarked and not text.startswith(token.text.lstrip()))):
            break
        begins += 1
    characters = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [
        Piece(
            text=token.text if token.own is None else characters.decode(token.own),
            logprob=token.logprob,
            bytes=token.own,
            top=[one.likely for one in token.top_tokens],
        )
        for token in told[begins:]
    ]
    return Scored(pieces, prompt_tokens=len(told))


@contextmanager
def _our_kinds(param: str) -> Iterator[None]:
    """Whatever the client library raises, or an engine brings about, is one of our kinds outside this file."""
    try:
        yield
    except SartorError:
        raise
    except aiohttp.ClientError as error:
        raise EngineAway from error
    except TimeoutError as error:
        raise EngineLate from error
    except Exception as error:  # the boundary of the client library, whose errors have no common kind
        raise _ours(error, param) from error


def _ours(error: Exception, param: str) -> Exception:
    """The error a client of Sartor gets for one of TGI's."""
    if isinstance(error, ValidationError):
        message = str(error)
        return PromptTooLong(message, param) if "tokens" in message else Invalid(message)
    if isinstance(error, (OverloadedError, RateLimitExceededError)):
        return EngineBusy()
    if isinstance(error, NotFoundError):
        return ModelLoading()
    if isinstance(error, BadRequestError):
        return Invalid(str(error))
    if isinstance(error, FAILED):
        return AnswerBroken(str(error))
    if isinstance(error, (ValueError, KeyError, TypeError)):
        log.warning("engine_answer_unknown", exc_info=error)
        return AnswerBroken("it sent something else than what was asked for.")
    return error
