"""Training rows that a base model is shown before what is asked, where an arm answers by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chassis.errors import Invalid
from inference_proxy.engines.arms import ArmEngine
from inference_proxy.messages import ROLES
from inference_proxy.requests import ChatAsked, CompletionAsked
from inference_proxy.routing import Route, arm_of
from schemas.artifacts import ChatRow
from schemas.questions import question_of

MOST_SHOWN = 8
ANSWER_TOKENS = 256
"""Kept free for an answer whose length nobody limits."""

TEMPLATE_TOKENS = 16
"""Most that a chat template writes about a message."""

Messages = list[dict[str, str]]


class Showing:
    """Finds the rows that a base model is shown.

    Args:
        arms: asks the arm.
    """

    def __init__(self, arms: ArmEngine) -> None:
        self._arms = arms

    async def closest(self, route: Route, asked: ChatAsked | CompletionAsked) -> Sequence[ChatRow]:
        """The rows closest to what is asked, in their order; none where the base model does not answer by an arm.

        Raises:
            SartorError: the arm is not to be had.
        """
        if not route.generates or not isinstance(asked, ChatAsked):
            return ()
        return await self._arms.rows(arm_of(route), question_of(asked.plain_messages()))


def shown_before(
    messages: Messages, closest: Sequence[ChatRow], budget: int, *, context_length: int, max_tokens: int | None
) -> Messages:
    """A conversation in which rows were said earlier, after what the system says; the closest one last.

    Args:
        messages: the conversation.
        closest: rows whose questions are closest, in their order.
        budget: most bytes of rows.
        context_length: of the model, in tokens.
        max_tokens: of the answer.

    Raises:
        Invalid: not one row has room.
    """
    room = context_length - _most_tokens(messages) - (max_tokens or ANSWER_TOKENS)
    fitting = _fitting([_turns(row) for row in closest], min(budget, room))
    if not fitting:
        raise Invalid(
            "messages: this model answers by training rows that are shown to it, and beside these messages and the "
            f"answer its context of {context_length} tokens may have no room for one. Shorten messages or lower "
            "max_tokens.",
            code="context_length_exceeded",
            param="messages",
        )
    system = [one for one in messages if one["role"] == "system"]
    asked = [one for one in messages if one["role"] != "system"]
    return [*system, *(one for turns in reversed(fitting) for one in turns), *asked]


def _turns(row: ChatRow) -> Messages:
    return [{"role": ROLES[one["role"]], "content": one["content"]} for one in row["messages"]]


def _fitting(rows: Sequence[Messages], room: int) -> list[Messages]:
    """Of rows in their order, those that have room beside the ones before them."""
    fitting: list[Messages] = []
    for row in rows:
        size = _most_tokens(row)
        if size <= room and len(fitting) < MOST_SHOWN:
            fitting.append(row)
            room -= size
    return fitting


def _most_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """As many tokens as messages can have: no tokenizer makes more of a text than it has bytes."""
    return sum(len(one["content"].encode()) + TEMPLATE_TOKENS for one in messages)
