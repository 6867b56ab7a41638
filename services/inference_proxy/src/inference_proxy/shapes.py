"""OpenAI's answers as they are sent, key by key."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class NamedToken(TypedDict):
    """A token, and its bytes where they are known."""

    token: str
    bytes: list[int] | None


class LikelyToken(NamedToken):
    """A token that might have come."""

    logprob: float


class ChatToken(LikelyToken):
    """A token of a chat answer."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(TypedDict):
    """Log-probabilities of a chat answer."""

    content: list[ChatToken]
    refusal: None


class TextLogprobs(TypedDict):
    """Log-probabilities of a legacy completion, in lists that are as long as each other."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Usage(TypedDict):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Source(TypedDict):
    """A document whose excerpt stands in the prompt."""

    file_id: str
    filename: str
    score: float


class Sartor(TypedDict):
    """What OpenAI's answers do not have."""

    retrieved: list[Source]


class Header(TypedDict):
    """What every answer and every chunk of one carries."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    sartor: NotRequired[Sartor]
    usage: NotRequired[Usage | None]


class Message(TypedDict):
    """What was said."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """One whole answer of a chat."""

    index: int
    message: Message
    finish_reason: str
    logprobs: ChatLogprobs | None


class ChatAnswer(Header):
    """A chat's whole answer."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Delta(TypedDict, total=False):
    """What a message has grown by."""

    role: Literal["assistant"]
    content: str


class ChatGrowth(TypedDict):
    """What one answer of a chat has grown by."""

    index: int
    delta: Delta
    finish_reason: str | None
    logprobs: ChatLogprobs | None


class ChatChunk(Header):
    """A part of a chat's stream."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatGrowth]


class TextChoice(TypedDict):
    """One legacy completion, whole or what it has grown by."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: TextLogprobs | None


class TextAnswer(Header):
    """Legacy completions, whole or a part of their stream."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


Chunk = ChatChunk | TextAnswer
"""A part of a stream."""

Sent = ChatAnswer | Chunk | dict[str, dict[str, str | None]]
"""A whole answer, a part of a stream, or the error that ends one."""
