"""The messages of a chat request, as role and text: what a base model's template can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from chassis.bodies import Body
from chassis.errors import Invalid
from chassis.text import quoted

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "user"}
PARTS = ("text", "refusal")
MOST_PARTS = 1_000

Name = Annotated[str, Field(max_length=256)]
Text = Annotated[str, Field(max_length=8 * 1024 * 1024)]


class Part(Body):
    """A part of a message's content."""

    ADVICE: ClassVar[frozenset[str]] = frozenset({"prompt_cache_breakpoint"})

    type: Name
    text: Text | None = None
    refusal: Text | None = None

    def said(self) -> str | None:
        """Its text; None where it is not one."""
        return {"text": self.text, "refusal": self.refusal}.get(self.type)


class Function(Body):
    """What an assistant called."""

    name: Name
    arguments: Text = ""


class Call(Body):
    """A call that an assistant made earlier in the conversation."""

    id: Name
    type: Literal["function"] = "function"
    function: Function


class Message(Body):
    """A message: who says what. Calls of tools and their answers are shown to the model as text."""

    UNASKED: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"annotations": ([],)}

    role: Name
    content: Text | Annotated[list[Part], Field(max_length=MOST_PARTS)] | None = None
    refusal: Text | None = None
    name: Name | None = None
    tool_calls: list[Call] | None = Field(None, max_length=128)
    tool_call_id: Name | None = None


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages as role and text; a name stands before its text, and calls stand after theirs.

    Raises:
        Invalid: an unknown role, content that is not text, or an answer to a call that nobody made.
    """
    called: dict[str, str] = {}
    shown = []
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if message.role not in ROLES:
            raise Invalid(
                f"{at}.role: {quoted(message.role, 40)} is not one of {', '.join(ROLES)}.", param=f"{at}.role"
            )
        calls = message.tool_calls or []
        called |= {call.id: call.function.name for call in calls}
        answers = message.tool_call_id
        if answers is not None and answers not in called:
            raise Invalid(
                f"{at}.tool_call_id: no message before has the call {quoted(answers)}.", param=f"{at}.tool_call_id"
            )
        texts = [
            _content(message, at),
            message.refusal,
            *(f"{one.function.name}({one.function.arguments})" for one in calls),
        ]
        name = message.name or called.get(answers or "")
        text = "\n".join(text for text in texts if text)
        shown.append({"role": ROLES[message.role], "content": f"{name}: {text}" if name else text})
    return shown


def _content(message: Message, at: str) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    said = [part.said() for part in message.content]
    if None in said:
        raise Invalid(f"{at}.content: only text is understood.", param=f"{at}.content")
    return "".join(text for text in said if text)
