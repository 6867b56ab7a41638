"""What becomes of one attempt at a message, and how a message that is given up says why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from eventbus.parking import Record

REPLAY_FOR = "x-replay-for"
"""Header of a replayed dead letter: the one consumer it is for."""

CUT_FROM = "x-cut-from"
"""Header of a dead letter too large to be kept whole: how many bytes the message had."""


class Outcome(Enum):
    """What an attempt came to where the message is not given up."""

    HANDLED = "handled"
    FAILED = "failed"


@dataclass(frozen=True)
class Letter:
    """Why a message is given up.

    Attributes:
        code: stable slug of the reason.
        reason: the error's message.
        attempts: how often it was tried.
    """

    code: str
    reason: str
    attempts: int

    def headers(self, record: Record, consumer: str) -> dict[str, str]:
        """Those of the dead letter: the message's own, and ours.

        Args:
            record: the message.
            consumer: the service that gives it up.
        """
        return record.headers | {
            "x-error-code": self.code,
            "x-error": self.reason[:2000],
            "x-attempts": str(self.attempts),
            "x-consumer": consumer,
            "x-original-topic": record.topic,
            "x-original-partition": str(record.partition),
            "x-original-offset": str(record.offset),
        }
