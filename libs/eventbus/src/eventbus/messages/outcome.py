"""What became of one attempt at a message, and how a message that is given up says why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from prometheus_client import Counter

from eventbus.messages.message import Message

CONSUMED = Counter("events_consumed_total", "Events by outcome.", ["type", "outcome"])

REPLAY_FOR = "x-replay-for"
"""Header of a replayed dead letter: the one consumer it is for."""

CUT_FROM = "x-cut-from"
"""Header of a dead letter too large to be kept whole: how many bytes the message had."""


class Outcome(Enum):
    """What an attempt came to where the message is not given up."""

    HANDLED = "handled"
    FAILED = "failed"


@dataclass(frozen=True)
class GiveUp:
    """Why a message is given up.

    Attributes:
        code: stable slug of the reason.
        reason: the error's message.
        attempts: how often it was tried.
    """

    code: str
    reason: str
    attempts: int

    def headers(self, message: Message, consumer: str) -> dict[str, str]:
        """Those of the dead letter: the message's own, and ours.

        Args:
            message: that is given up.
            consumer: the service that gives it up.
        """
        return message.headers | {
            "x-error-code": self.code,
            "x-error": self.reason[:2000],
            "x-attempts": str(self.attempts),
            "x-consumer": consumer,
            "x-original-topic": message.topic,
            "x-original-partition": str(message.partition),
            "x-original-offset": str(message.offset),
        }
