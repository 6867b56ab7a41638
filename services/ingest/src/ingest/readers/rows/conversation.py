"""Rows that are conversations: OpenAI's `messages`, and ShareGPT's `conversations`."""

from __future__ import annotations

from typing import get_args

from pydantic import JsonValue

from chassis.text import quoted
from ingest.readers.faults import FormatError
from ingest.readers.parsed import Fields, Unread, says_something, unread_of
from ingest.readers.rows.content import blank, content
from schemas.artifacts import ChatMessage, ChatRole, ChatRow

ROLES: dict[str, ChatRole] = {role: role for role in get_args(ChatRole)}
SHAREGPT_ROLES: dict[str, ChatRole] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
CALLS = ("tool_calls", "function_call")

NO_CALLS = (
    "a tool call cannot be learned yet. Write the answer as text, or have such rows left out (on_bad_rows: skip)."
)


def read_chat(record: Fields, number: int) -> tuple[ChatRow, Unread]:
    """The row of `{"messages": [{"role": …, "content": …}]}`, and what it says beside.

    Raises:
        FormatError: it is no conversation to learn an answer from.
    """
    unread = unread_of(record, {"messages"})
    messages = [
        _message(message, f"messages[{index}]", number, unread)
        for index, message in enumerate(_items(record["messages"], "messages", number))
    ]
    _check(messages, "messages", number)
    return {"messages": messages}, unread


def read_sharegpt(record: Fields, number: int) -> tuple[ChatRow, Unread]:
    """The row of `{"conversations": [{"from": "human", "value": …}]}`, perhaps with `system`, and what it says beside.

    Raises:
        FormatError: it is no conversation to learn an answer from.
    """
    unread = unread_of(record, {"conversations", "system"})
    messages = [
        _turn(turn, f"conversations[{index}]", number, unread)
        for index, turn in enumerate(_items(record["conversations"], "conversations", number))
    ]
    if not blank(record.get("system")):
        messages.insert(0, {"role": "system", "content": content(record["system"], "system", number)})
    _check(messages, "conversations", number)
    return {"messages": messages}, unread


def _items(value: JsonValue, where: str, number: int) -> list[JsonValue]:
    if not isinstance(value, list) or not value:
        raise FormatError("no_messages", f"{where}: must be a list with at least a user and an assistant.", number)
    return value


def _check(messages: list[ChatMessage], where: str, number: int) -> None:
    roles = [message["role"] for message in messages]
    if "user" not in roles:
        raise FormatError("no_user", f"{where}: there is no user message.", number)
    if roles[-1] != "assistant":
        raise FormatError(
            "no_assistant", f"{where}: the last one must be the assistant's, the answer to learn.", number
        )


def _message(message: JsonValue, where: str, number: int, unread: Unread) -> ChatMessage:
    if not isinstance(message, dict):
        raise FormatError("bad_message", f"{where}: must be an object with role and content.", number)
    named = message.get("role")
    role = ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise FormatError("wrong_role", f"{where}.role: {quoted(named)} is not one of {', '.join(ROLES)}.", number)
    _refuse_calls(message, where, number)
    read: ChatMessage = {"role": role, "content": content(message.get("content"), f"{where}.content", number)}
    _add_weight(read, message, where, number)
    unread += unread_of(message, {"role", "content", "weight"}, f"{where}.")
    parts = message["content"]
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        unread += unread_of(part if isinstance(part, dict) else {}, {"type", "text"}, f"{where}.content[{index}].")
    return read


def _turn(turn: JsonValue, where: str, number: int, unread: Unread) -> ChatMessage:
    if not isinstance(turn, dict):
        raise FormatError("bad_message", f"{where}: must be an object with from and value.", number)
    speaker, text = ("from", "value") if "from" in turn else ("role", "content")
    named = turn.get(speaker)
    if named == "function_call":
        raise FormatError("tool_calls", f"{where}.{speaker}: {NO_CALLS}", number)
    role = SHAREGPT_ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        known = ", ".join(SHAREGPT_ROLES)
        raise FormatError("wrong_role", f"{where}.{speaker}: {quoted(named)} is not one of {known}.", number)
    _refuse_calls(turn, where, number)
    read: ChatMessage = {"role": role, "content": content(turn.get(text), f"{where}.{text}", number)}
    _add_weight(read, turn, where, number)
    unread += unread_of(turn, {speaker, text, "weight"}, f"{where}.")
    return read


def _refuse_calls(message: Fields, where: str, number: int) -> None:
    for name in CALLS:
        if says_something(message.get(name)):
            raise FormatError("tool_calls", f"{where}.{name}: {NO_CALLS}", number)


def _add_weight(read: ChatMessage, message: Fields, where: str, number: int) -> None:
    weight = message.get("weight")
    if weight is None:
        return
    if read["role"] != "assistant" or isinstance(weight, bool) or weight not in (0, 1):
        raise FormatError("bad_weight", f"{where}.weight: 0 or 1, on assistant messages only.", number)
    if weight == 0:
        read["weight"] = 0
