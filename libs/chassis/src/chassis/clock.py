"""What time it is: by the machine, or by the clock that a service was built with."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Says the time in Unix seconds."""

CLOCK: ContextVar[Clock | None] = ContextVar("clock", default=None)
"""By which tasks go; by the machine's where there is none."""


def wall() -> float:
    """The Unix time in seconds."""
    clock = CLOCK.get()
    return time.time() if clock is None else clock()


def utc_now() -> datetime:
    """The same as a moment in UTC, as envelopes and MongoDB's dates have it."""
    return datetime.fromtimestamp(wall(), UTC)
