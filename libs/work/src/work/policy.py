"""How long work is held, and how often it is tried."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """What a kind of work is allowed.

    Attributes:
        lease_seconds: a dead worker's work is taken over after it.
        most_failures: failed attempts, since the work last got further, after which it is given up.
        most_deaths: workers that may die of it, one after the other.
        retry_seconds: wait before another attempt.
        retry_growth: that wait grows with each failed attempt, to so many times itself.
        idle_seconds: between looks for work.
        slice_seconds: how long work goes on while another tenant waits; a kind whose work can be halted asks for that.
    """

    lease_seconds: float
    most_failures: int
    most_deaths: int
    retry_seconds: float
    retry_growth: int = 1
    idle_seconds: float = 1.0
    slice_seconds: float = math.inf

    def pause(self, failures: int) -> float:
        """The wait after so many failed attempts."""
        return self.retry_seconds * max(1, min(failures, self.retry_growth))
