"""Requests and tokens a minute: of a key, of whoever made it, and of its whole tenant."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chassis.errors import RateLimited

MINUTE = 60.0
MOST_BUCKETS = 100_000
FRESH_SECONDS = 0.25
"""For so long a count that was heard of the other replicas is used before they are asked again."""


@dataclass(frozen=True)
class Allowance:
    """What may be used in a minute by all who count under one name.

    Attributes:
        of: the name: the id of a key, a person or a tenant.
        requests_per_minute: on all routes of a service together.
        tokens_per_minute: read and written by models.
    """

    of: str
    requests_per_minute: int
    tokens_per_minute: int

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Allowance:
        """Read what another service or release wrote, without the fields that are not known here."""
        return cls(**{name: found[name] for name in cls.__dataclass_fields__})


@dataclass
class Bucket:
    """A token bucket: holds `limit`, refilled evenly within a minute.

    Attributes:
        limit: what it holds.
        level: what is left.
        at: when it was last refilled.
        untold: what was used and the other replicas do not know.
        heard_at: when it was last known what they have used.
    """

    limit: int
    level: float
    at: float = field(default_factory=time.monotonic)
    untold: float = 0.0
    heard_at: float = -math.inf

    def take(self, amount: float) -> None:
        """Use it, perhaps for more than it holds."""
        self.level -= amount
        self.untold += amount

    def refill(self, limit: int, now: float) -> None:
        """Add what has accrued since the last look; the limit may have changed since."""
        self.limit = limit
        self.level = min(limit, self.level + (now - self.at) * limit / MINUTE)
        self.at = now

    @property
    def seconds_to_full(self) -> float:
        """When the whole limit is there again."""
        return (self.limit - self.level) * MINUTE / self.limit


class Limiter:
    """Counts requests, or tokens, under each of a caller's allowances.

    It decides by what this process knows. The service's other replicas tell it within a moment what they let through
    (`stores.shared_limits`); what was too much until then is owed.

    Args:
        what: is counted.

    Attributes:
        used: set while something was used that the others were not told.
        stale: set while some of that was used without knowing what the others used lately.
    """

    def __init__(self, what: Literal["requests", "tokens"]) -> None:
        self.what = what
        self.used = asyncio.Event()
        self.stale = asyncio.Event()
        self._buckets: dict[str, Bucket] = {}
        self._untold: set[str] = set()

    def admit(self, allowances: Iterable[Allowance], amount: int = 1) -> None:
        """Take `amount` from each allowance; where some is left but not that much, the rest is owed.

        Raises:
            RateLimited: nothing is left of one of them for now; nothing was taken.
        """
        allowances = tuple(allowances)
        for bucket in self._of(allowances):
            if bucket.level < 1:
                wait = (1 - bucket.level) * MINUTE / bucket.limit
                raise RateLimited(
                    f"Rate limit reached: {bucket.limit} {self.what} a minute. Try again in {wait:.1f} s.",
                    retry_after=max(1.0, wait),
                )
        self.charge(allowances, amount)

    def charge(self, allowances: Iterable[Allowance], amount: int) -> None:
        """Take what was used; more than is left is owed and paid off by waiting."""
        allowances = tuple(allowances)
        buckets = self._of(allowances)
        for bucket in buckets:
            bucket.take(amount)
        if amount and allowances:
            self._untold.update(allowance.of for allowance in allowances)
            self.used.set()
            if any(bucket.at - bucket.heard_at > FRESH_SECONDS for bucket in buckets):
                self.stale.set()

    def take_untold(self) -> dict[str, tuple[int, float]]:
        """By name, the limit and what was used of it since this was last asked."""
        self.used.clear()
        self.stale.clear()
        told = {}
        for name in self._untold & self._buckets.keys():
            bucket = self._buckets[name]
            told[name] = (bucket.limit, bucket.untold)
            bucket.untold = 0.0
        self._untold.clear()
        return told

    def learn(self, left: Mapping[str, float]) -> None:
        """What all replicas together have left of some; what was used here meanwhile is not in it yet."""
        now = time.monotonic()
        for name, level in left.items():
            if bucket := self._buckets.get(name):
                bucket.level, bucket.at = level - bucket.untold, now
                bucket.heard_at = now

    def headers(self, allowances: Iterable[Allowance]) -> dict[str, str]:
        """OpenAI's rate-limit headers, of the allowance that ends first."""
        buckets = self._of(allowances)
        if not buckets:
            return {}
        tightest = min(buckets, key=lambda bucket: bucket.level)
        return {
            f"x-ratelimit-limit-{self.what}": str(tightest.limit),
            f"x-ratelimit-remaining-{self.what}": str(max(0, int(tightest.level))),
            f"x-ratelimit-reset-{self.what}": _duration(tightest.seconds_to_full),
        }

    def _of(self, allowances: Iterable[Allowance]) -> list[Bucket]:
        """The buckets, refilled; the names unused for longest are forgotten where there are too many."""
        now = time.monotonic()
        found = []
        for allowance in allowances:
            limit = allowance.requests_per_minute if self.what == "requests" else allowance.tokens_per_minute
            bucket = self._buckets.pop(allowance.of, None) or Bucket(limit, limit, now)
            bucket.refill(limit, now)
            self._buckets[allowance.of] = bucket
            found.append(bucket)
        while len(self._buckets) > MOST_BUCKETS:
            self._buckets.pop(next(iter(self._buckets)))
        return found


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
