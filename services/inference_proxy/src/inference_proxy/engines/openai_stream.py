"""A streamed answer of OpenAI's API as it comes in, told as pieces."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated

import httpx2
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from chassis.errors import Invalid
from inference_proxy.engines.engine import AnswerBroken, Piece, Sampling

LONGEST_EVENT = 1024 * 1024
LONGEST_STREAM = 64 * 1024 * 1024
"""Bytes of a whole answer: about 250,000 tokens at an event each, far more than any model writes."""
MOST_CHARACTERS = 1_000_000
"""Of an answer's text: about as many tokens."""
MOST_TOKENS = 10_000_000
"""Of a prompt or an answer: more than any model's context has, so that nobody is charged for nonsense."""
Count = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Byte = Annotated[int, Field(ge=0, le=255)]
FINISH_REASONS = {"stop": "stop", "eos": "stop", "length": "length", "content_filter": "content_filter"}


class Told(BaseModel):
    """What a provider tells: a null is read as absent, and a number that is none is refused."""

    model_config = ConfigDict(allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, told: JsonValue) -> JsonValue:
        return {name: value for name, value in told.items() if value is not None} if isinstance(told, dict) else told


class Usage(Told):
    """What the whole answer took."""

    prompt_tokens: Count
    completion_tokens: Count


class LikelyToken(Told):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[Byte] | None = None


class ChatToken(LikelyToken):
    """A token of a chat answer."""

    top_logprobs: list[LikelyToken] = []


class Logprobs(Told):
    """Log-probabilities: `content` of a chat, the lists of a raw completion."""

    content: list[ChatToken] | None = None
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class Delta(Told):
    """What a chat answer has grown by."""

    content: str | None = None
    refusal: str | None = None


class Choice(Told):
    """What one answer has grown by: `delta` of a chat, `text` of a raw completion."""

    delta: Delta = Delta()
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class StreamEvent(Told):
    """One event of a stream."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: JsonValue = None


async def events(response: httpx2.Response, deadline: float) -> AsyncGenerator[StreamEvent, None]:
    """The events of a stream, until it says that it is done or ends.

    Args:
        response: open, its body unread.
        deadline: of the whole, on the event loop's clock.

    Raises:
        AnswerBroken: something else came, or more than any answer is.
        TimeoutError: the deadline passed.
    """
    async with aclosing(_lines(response, deadline)) as lines:
        async for line in lines:
            data = line.removeprefix(b"data:").strip()
            if not line.startswith(b"data:"):
                continue
            if data == b"[DONE]":
                return
            try:
                yield StreamEvent.model_validate_json(data)
            except ValidationError as error:
                raise AnswerBroken("its provider sent something else than an answer.") from error


async def _lines(response: httpx2.Response, deadline: float) -> AsyncGenerator[bytes, None]:
    left, size = b"", 0
    chunks = response.aiter_raw()
    while True:
        async with asyncio.timeout_at(deadline):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        size += len(chunk)
        if size > LONGEST_STREAM:
            raise AnswerBroken("its provider did not stop.")
        *lines, left = (left + chunk).split(b"\n")
        if len(left) > LONGEST_EVENT:
            raise AnswerBroken("its provider sent an event without an end.")
        for line in lines:
            yield line


class IncomingAnswer:
    """What is known so far of one answer.

    Args:
        sampling: as it was asked for.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._length = 0
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def take(self, event: StreamEvent) -> Iterator[Piece]:
        """The pieces of an event.

        Raises:
            AnswerBroken: it says that the answer failed, ends it in a way that is not known here, or is too much.
            Invalid: it has no log-probabilities, which were asked for.
        """
        if event.error:
            raise AnswerBroken("its provider broke off.")
        self._usage = event.usage or self._usage
        for choice in event.choices:
            text = choice.text or choice.delta.content or choice.delta.refusal or ""
            self._length += len(text)
            if self._length > MOST_CHARACTERS:
                raise AnswerBroken(f"it is longer than {MOST_CHARACTERS} characters.")
            yield from self._pieces(text, choice.logprobs)
            if choice.finish_reason:
                self._finish_reason = FINISH_REASONS.get(choice.finish_reason)
                if self._finish_reason is None:
                    raise AnswerBroken("its provider ended it for a reason that is not known here.")

    def last(self) -> Piece:
        """The end of the answer, with its counts.

        Raises:
            AnswerBroken: it has no end, or the provider has not told what it took.
        """
        if self._finish_reason is None:
            raise AnswerBroken("the stream ended before the answer did.")
        if self._usage is None:
            raise AnswerBroken("its provider told no usage, so nobody knows what it took.")
        return Piece(
            text="",
            special=True,
            finish_reason=self._finish_reason,
            generated_tokens=self._usage.completion_tokens,
            prompt_tokens=self._usage.prompt_tokens,
        )

    def _pieces(self, text: str, logprobs: Logprobs | None) -> Iterator[Piece]:
        if not self._sampling.logprobs:
            if text:
                yield Piece(text)
            return
        tokens = self._tokens(logprobs) if logprobs else []
        if text and not tokens:
            raise Invalid("logprobs: the provider of this model does not tell them. Leave it out.", param="logprobs")
        texts = [token.text for token in tokens]
        if "".join(texts) != text:  # tokens end inside characters and nobody told their bytes: the text is right
            texts = [""] * (len(tokens) - 1) + [text]
        for token, own in zip(tokens, texts, strict=True):
            yield replace(token, text=own)

    def _tokens(self, logprobs: Logprobs) -> list[Piece]:
        """The tokens with their own texts."""
        if logprobs.content is not None:
            return [
                Piece(
                    token.token if token.bytes is None else self._characters.decode(bytes(token.bytes)),
                    token.logprob,
                    bytes=_bytes(token),
                    top=[(one.token, one.logprob, _bytes(one)) for one in token.top_logprobs],
                )
                for token in logprobs.content
            ]
        tops = logprobs.top_logprobs or [None] * len(logprobs.tokens)
        if not len(logprobs.tokens) == len(logprobs.token_logprobs) == len(tops):
            raise AnswerBroken("its provider sent something else than an answer.")
        return [
            Piece(token, logprob, top=[(text, likely, None) for text, likely in (top or {}).items()])
            for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, tops, strict=True)
        ]


def _bytes(token: LikelyToken) -> bytes | None:
    return None if token.bytes is None else bytes(token.bytes)
