"""How long a message is tried, and the pauses between."""

from __future__ import annotations

import random
from dataclasses import dataclass

BACKOFF_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_IN_PLACE_SECONDS = 5.0


@dataclass(frozen=True)
class RetryPolicy:
    """How long and how often a message is tried.

    Attributes:
        attempts_in_place: before a message is parked: most trouble is over within a second.
        seconds_in_place: the same in time: a handler that hangs holds up the commits of its partition.
        attempts: before it is dead-lettered.
        attempts_while_away: the same where a peer or the database is away: about three hours.
        handler_seconds: deadline of one attempt.
    """

    attempts_in_place: int = 3
    seconds_in_place: float = 5.0
    attempts: int = 8
    attempts_while_away: int = 200
    handler_seconds: float = 30.0

    def is_over(self, attempts: int, seconds: float) -> bool:
        """Whether a message had its attempts in place, of which it has at least one."""
        return attempts >= self.attempts_in_place or (attempts > 0 and seconds >= self.seconds_in_place)

    def pause(self, attempts: int) -> float:
        """Seconds before the next attempt: exponential, with jitter so that many do not come back together."""
        longest = min(LONGEST_PAUSE_SECONDS, BACKOFF_SECONDS * 2.0 ** min(attempts, 30))
        return longest * random.uniform(0.5, 1.5)  # noqa: S311 - jitter

    def pause_in_place(self, attempts: int) -> float:
        """The same where the partition's commits wait for it."""
        return min(self.pause(attempts), LONGEST_PAUSE_IN_PLACE_SECONDS)
