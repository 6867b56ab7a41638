"""How an attempt at a piece of work may end: it returns, or raises one of these from anywhere in it."""

from __future__ import annotations

from typing import ClassVar

from chassis.errors import SartorError, Transient, WriteRefused
from chassis.exhaustion import EXHAUSTED_SECONDS, Exhausted
from stores.mongo import PyMongoError


class End(Exception):
    """The end of one attempt.

    Attributes:
        name: in logs and metrics.
        seconds: until somebody may go on.
    """

    name: ClassVar[str]
    seconds: float = 0.0


class Done(End):
    """Nothing is left to do."""

    name = "done"


class PutOff(End):
    """The work goes on later; the attempt counts for nothing, and what it achieved is kept.

    Args:
        seconds: until somebody may go on.
        why: for the log.
        cause: what was away, where that is the reason.
    """

    name = "put_off"

    def __init__(self, seconds: float, why: str, cause: Exception | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds
        self.cause = cause


class Failed(End):
    """The attempt counts against the work, which is tried again after a pause until the policy's number is reached."""

    name = "failed"

    def __init__(self, error: Exception) -> None:
        super().__init__(message_of(error))
        self.error = error


class GiveUp(End):
    """The work is over without a result.

    Args:
        reason: for its owner.
        code: its slug.
        error: what led to it.
    """

    name = "given_up"

    def __init__(self, reason: str, code: str = "", error: Exception | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.error = error


class OutOfAttempts(GiveUp):
    """As many attempts failed, or as many workers died in a row, as the policy allows."""

    def __init__(self, *, failures: int, deaths: int, error: Exception | None = None) -> None:
        last = message_of(error) if error else "None of its attempts succeeded."
        reason = f"{last} ({failures} attempts)." if failures else f"{deaths} workers in a row died of it."
        super().__init__(reason, error=error)
        self.failures = failures
        self.deaths = deaths


class Lost(End):
    """Another worker has the work, or nobody wants it any more: nothing is left to do here."""

    name = "lost"


def end_of(error: Exception, retry_seconds: float) -> End:
    """The end of an attempt that an error ended.

    What is away, or lacking on this machine, is no fault of the work; a write that its store refuses means that the
    work is another's or over; all else counts against it, whatever another service refuses too.
    """
    if isinstance(error, End):
        return error
    if isinstance(error, Exhausted):
        return PutOff(EXHAUSTED_SECONDS, message_of(error), error)
    if isinstance(error, (Transient, PyMongoError)):
        return PutOff(retry_seconds, message_of(error), error)
    if isinstance(error, WriteRefused):
        return Lost(message_of(error))
    return Failed(error)


def message_of(error: Exception) -> str:
    """What an error says, with its kind where it is none of ours."""
    return error.message if isinstance(error, SartorError) else f"{type(error).__name__}: {error}"
