"""How answers are sent, in OpenAI's shapes: one JSON body, or server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import cached_property
from typing import Protocol

import structlog

from chassis.errors import SartorError, envelope
from chassis.streams import begun
from inference_proxy.answering import Answering
from inference_proxy.answers import Answer, chat_logprobs, text_logprobs
from inference_proxy.engines import Piece
from inference_proxy.shapes import (
    ChatAnswer,
    ChatChunk,
    ChatGrowth,
    ChatLogprobs,
    Chunk,
    Delta,
    Header,
    Sent,
    TextAnswer,
    TextChoice,
    TextLogprobs,
)

log = structlog.get_logger()

DONE = b"data: [DONE]\n\n"


class Shape(Protocol):
    """One of OpenAI's kinds of answer, for one answer."""

    def whole(self) -> ChatAnswer | TextAnswer:
        """The answer, when it is whole."""
        ...

    def chunks(self, index: int, piece: Piece, shown: str) -> Iterator[Chunk]:
        """What a stream tells when one choice has grown."""
        ...

    def last(self) -> Chunk:
        """What a stream ends with, where its usage is wanted."""
        ...


class ChatShape:
    """Chat answers.

    Args:
        answer: under way.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    @cached_property
    def _header(self) -> Header:
        return _header(self._answer)

    def whole(self) -> ChatAnswer:
        """The answer, when it is whole: choices for one prompt."""
        answer = self._answer
        return {
            **answer.header,
            "object": "chat.completion",
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": choice.text, "refusal": None},
                    "finish_reason": choice.finish_reason,
                    "logprobs": chat_logprobs(choice.shown_tokens()) if answer.wants_logprobs else None,
                }
                for index, choice in enumerate(answer.choices)
            ],
            "usage": answer.usage,
        }

    def chunks(self, index: int, piece: Piece, shown: str) -> Iterator[ChatChunk]:
        """The role once, then text, then the reason why the choice ended."""
        choice = self._answer.choices[index]
        if choice.told is None:
            choice.told = 0
            yield self._chunk(index, {"role": "assistant", "content": ""})
        if shown:
            tokens = choice.tell() if self._answer.wants_logprobs else []
            yield self._chunk(index, {"content": shown}, logprobs=chat_logprobs(tokens) if tokens else None)
        if piece.finish_reason:
            yield self._chunk(index, {}, finish_reason=piece.finish_reason)

    def last(self) -> ChatChunk:
        """The usage."""
        return {**self._header, "object": "chat.completion.chunk", "choices": [], "usage": self._answer.usage}

    def _chunk(
        self, index: int, delta: Delta, *, finish_reason: str | None = None, logprobs: ChatLogprobs | None = None
    ) -> ChatChunk:
        choice: ChatGrowth = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return {**self._header, "object": "chat.completion.chunk", "choices": [choice]}


class TextShape:
    """Legacy completions.

    Args:
        answer: under way.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    @cached_property
    def _header(self) -> Header:
        return _header(self._answer)

    def whole(self) -> TextAnswer:
        """The answer, when it is whole: the choices of all prompts, in their order."""
        answer = self._answer
        choices = [
            self._choice(
                index,
                choice.text,
                choice.finish_reason,
                text_logprobs(choice.shown_tokens()) if answer.wants_logprobs else None,
            )
            for index, choice in enumerate(answer.choices)
        ]
        return {**answer.header, "object": "text_completion", "choices": choices, "usage": answer.usage}

    def chunks(self, index: int, piece: Piece, shown: str) -> Iterator[TextAnswer]:
        """Text, and with the last of it the reason why the choice ended."""
        if not shown and not piece.finish_reason:
            return
        tokens = self._answer.choices[index].tell() if self._answer.wants_logprobs else []
        choice = self._choice(index, shown, piece.finish_reason, text_logprobs(tokens) if tokens else None)
        yield {**self._header, "object": "text_completion", "choices": [choice]}

    def last(self) -> TextAnswer:
        """The usage."""
        return {**self._header, "object": "text_completion", "choices": [], "usage": self._answer.usage}

    @staticmethod
    def _choice(index: int, text: str, finish_reason: str | None, logprobs: TextLogprobs | None) -> TextChoice:
        return {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": logprobs}


def _header(answer: Answer) -> Header:
    """What every chunk carries; known once it is settled what gives the answer."""
    return {**answer.header, "usage": None} if answer.asked.wants_usage else answer.header


async def parts(answering: Answering, answer: Answer, shape: Shape) -> AsyncGenerator[bytes, None]:
    """What is sent, part by part: a whole body, or server-sent events up to `[DONE]`."""
    if not answer.asked.stream:
        await answering.whole(answer)
        yield _written(shape.whole())
        return
    async with aclosing(answering.stream(answer)) as tokens:
        async for index, piece, shown in tokens:
            for chunk in shape.chunks(index, piece, shown):
                yield _event(chunk)
    if answer.asked.wants_usage:
        yield _event(shape.last())
    yield DONE


async def from_first(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A stream that has begun: a failure can only be told inside it, and it then has no `[DONE]`."""
    try:
        async with aclosing(begun(first, rest)) as stream:
            async for part in stream:
                yield part
    except SartorError as error:
        yield _event(envelope(error))
    except Exception as error:  # the boundary of a stream: the client must hear of it
        log.error("stream_crashed", exc_info=error)
        yield _event(envelope(SartorError("The answer broke off. Quote the x-request-id when you report it.")))


def _event(payload: Sent) -> bytes:
    return b"data: " + _written(payload) + b"\n\n"


def _written(payload: Sent) -> bytes:
    return json.dumps(payload, ensure_ascii=False).encode()
