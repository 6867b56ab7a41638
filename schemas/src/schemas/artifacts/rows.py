"""The rows of datasets, a JSON object on each line: conversations whose answers are learned, and texts without answers.

They are typed dictionaries: a file has up to a million of them, and chat templates take their messages as they are.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired, TypeVar, final

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

T = TypeVar("T")

ChatRole = Literal["system", "developer", "user", "assistant", "tool"]


@final
class ChatMessage(TypedDict):
    """One message of a conversation."""

    role: Annotated[ChatRole, Field(description="Who says it.")]
    content: Annotated[str, Field(description="What is said, as one text.")]
    weight: NotRequired[
        Annotated[int, Field(ge=0, le=1, description="0 of an answer that is not to be learned; 1 where it is absent.")]
    ]


@final
class ChatRow(TypedDict):
    """A line of `train.jsonl`, `validation.jsonl`, `heldout.jsonl`, and of what labeling publishes."""

    messages: Annotated[
        list[ChatMessage], Field(min_length=1, description="The conversation; the last message is the answer.")
    ]


@final
class TextRow(TypedDict):
    """A line of a file of rows that have no answers: people label them, or `pretrain` learns them."""

    text: Annotated[str, Field(description="The text.")]


class BadRow(ValueError):
    """A line holds no such row; the message names the field and quotes nothing of the line."""


_chat_row = TypeAdapter(ChatRow)
_text_row = TypeAdapter(TextRow)
_encode = json.JSONEncoder(ensure_ascii=False).encode


def read_chat_row(line: str | bytes) -> ChatRow:
    """The conversation that a line holds; fields that nobody knows are left out.

    Raises:
        BadRow: it holds none.
    """
    return _read(_chat_row, line)


def read_text_row(line: str | bytes) -> TextRow:
    """The text that a line holds; fields that nobody knows are left out.

    Raises:
        BadRow: it holds none.
    """
    return _read(_text_row, line)


def write_row(row: ChatRow | TextRow) -> str:
    """The line of a row, without its end. Rows of different files are compared by the bytes of their lines."""
    return _encode(row)


def is_learned(message: ChatMessage) -> bool:
    """Whether a message is an answer to learn."""
    return message["role"] == "assistant" and message.get("weight") != 0


def _read(row: TypeAdapter[T], line: str | bytes) -> T:
    try:
        return row.validate_json(line)
    except ValidationError as error:
        raise BadRow(_said(error)) from None  # the error itself shows the text


def _said(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])
