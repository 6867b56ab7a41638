"""Training rows that a base model is shown before what is asked, where an arm answers by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chassis.auth import Principal
from chassis.errors import Forbidden, Invalid
from inference_proxy.engines import EngineAway, ModelLoading, WrongModel
from inference_proxy.engines.arms import ArmEngine
from inference_proxy.messages import ROLES
from inference_proxy.requests import ChatAsked, CompletionAsked
from inference_proxy.routing import Route, RouteTable, arm_of
from schemas.artifacts import ChatRow
from schemas.questions import question_of

MOST_SHOWN = 8
ANSWER_TOKENS = 256
"""Kept free for an answer whose length nobody limits."""

TEMPLATE_TOKENS = 16
"""Most that a chat template writes about a message."""

READS_ROWS = "files:read"
"""Scope without which nobody is shown rows, nor answered by who was: they can be asked for word by word."""

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Closest:
    """Rows that a base model is shown, as far as they have room.

    Attributes:
        rows: the closest first.
        cpu_seconds: processor time that finding them took.
        budget: most bytes of them, but for the first that has room.
        stands_in: whether the adapter, which needs none of them, is only away for a while.
    """

    rows: Sequence[ChatRow]
    cpu_seconds: float
    budget: int
    stands_in: bool


class Showing:
    """Finds the rows that a base model is shown.

    Args:
        arms: asks the arm.
        routes: hears of an arm that does not answer.
        budget: most bytes of rows in a prompt, but for the first that has room.
    """

    def __init__(self, arms: ArmEngine, routes: RouteTable, budget: int) -> None:
        self._arms = arms
        self._routes = routes
        self._budget = budget

    async def closest(self, principal: Principal, route: Route, asked: ChatAsked | CompletionAsked) -> Closest | None:
        """The rows closest to what is asked; None where the base model does not answer by an arm.

        Raises:
            Forbidden: whoever asks may not read rows.
            ModelLoading: nor need they, as the adapter is only away for a while.
            SartorError: the arm is not to be had.
        """
        if not route.generates or not isinstance(asked, ChatAsked):
            return None
        if not route.testing and not principal.may(READS_ROWS):
            if route.stands_in:
                raise ModelLoading
            raise Forbidden(
                "This model answers by training rows that are shown to it at the moment, and this key may not read "
                f"rows ('{READS_ROWS}'). Use one that may, or wait until the model's adapter serves."
            )
        try:
            rows, cpu_seconds = await self._arms.rows(arm_of(route), question_of(asked.plain_messages()))
        except (EngineAway, WrongModel):
            self._routes.missed(route)
            raise
        return Closest(rows, cpu_seconds, self._budget, route.stands_in)


def shown_before(messages: Messages, closest: Closest, *, context_length: int, max_tokens: int | None) -> Messages:
    """A conversation in which rows were said earlier, after what the system says first; the closest one last.

    Args:
        messages: the conversation.
        closest: rows.
        context_length: of the model, in tokens.
        max_tokens: of the answer.

    Raises:
        ModelLoading: not one row has room, and the adapter is only away for a while.
        Invalid: not one row has room.
    """
    room = context_length - _most_tokens(messages) - (max_tokens or ANSWER_TOKENS)
    fitting = _fitting([_turns(row) for row in closest.rows], closest.budget, room)
    if not fitting and closest.stands_in:
        raise ModelLoading
    if not fitting:
        raise Invalid(
            "messages: this model answers by training rows that are shown to it at the moment, and beside these "
            f"messages and the answer its context of {context_length} tokens may have no room for one. Shorten "
            "messages or lower max_tokens.",
            code="context_length_exceeded",
            param="messages",
        )
    system = next((at for at, one in enumerate(messages) if one["role"] != "system"), len(messages))
    return [*messages[:system], *(one for turns in reversed(fitting) for one in turns), *messages[system:]]


def _turns(row: ChatRow) -> Messages:
    return [{"role": ROLES[one["role"]], "content": one["content"]} for one in row["messages"]]


def _fitting(rows: Sequence[Messages], budget: int, room: int) -> list[Messages]:
    """Of rows in their order, those that have room beside the ones before them; the first one whatever the budget."""
    fitting: list[Messages] = []
    for row in rows:
        size = _most_tokens(row)
        if size <= (min(budget, room) if fitting else room) and len(fitting) < MOST_SHOWN:
            fitting.append(row)
            room, budget = room - size, budget - size
    return fitting


def _most_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """As many tokens as messages can have: no tokenizer makes more of a text than it has bytes."""
    return sum(len(one["content"].encode()) + TEMPLATE_TOKENS for one in messages)
