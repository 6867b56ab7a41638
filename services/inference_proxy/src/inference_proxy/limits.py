"""Limits before anything is spent: requests and tokens a minute per key, and how many at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from chassis.auth import Principal
from chassis.errors import Invalid, RateLimited

MINUTE = 60.0
MOST_KEYS = 50_000


@dataclass
class Bucket:
    """A token bucket: holds `limit`, refilled evenly within a minute."""

    limit: int
    level: float
    at: float = field(default_factory=time.monotonic)

    def refill(self, now: float) -> None:
        """Add what has accrued since the last look."""
        self.level = min(self.limit, self.level + (now - self.at) * self.limit / MINUTE)
        self.at = now

    @property
    def seconds_to_full(self) -> float:
        """When the whole limit is there again."""
        return (self.limit - self.level) * MINUTE / self.limit


class Limiter:
    """Per key: requests and tokens a minute. One process's view; each replica grants the limit for itself."""

    def __init__(self, requests_per_minute: int, tokens_per_minute: int) -> None:
        self._defaults = (requests_per_minute, tokens_per_minute)
        self._buckets: dict[str, tuple[Bucket, Bucket]] = {}

    def _of(self, principal: Principal) -> tuple[Bucket, Bucket]:
        key = f"{principal.tenant_id}/{principal.key_id}"
        if key not in self._buckets:
            if len(self._buckets) >= MOST_KEYS:
                self._buckets.pop(next(iter(self._buckets)))
            requests = principal.requests_per_minute or self._defaults[0]
            tokens = principal.tokens_per_minute or self._defaults[1]
            self._buckets[key] = (Bucket(requests, requests), Bucket(tokens, tokens))
        now = time.monotonic()
        for bucket in self._buckets[key]:
            bucket.refill(now)
        return self._buckets[key]

    def admit(self, principal: Principal, prompts: int = 1) -> None:
        """Take a request for each prompt; where some are left but not that many, the rest is owed.

        Raises:
            RateLimited: no request, or no token, is left for now.
        """
        requests, tokens = self._of(principal)
        for bucket, what in ((requests, "requests"), (tokens, "tokens")):
            if bucket.level < 1:
                wait = (1 - bucket.level) * MINUTE / bucket.limit
                raise RateLimited(
                    f"Rate limit reached: {bucket.limit} {what} a minute. Try again in {wait:.1f} s.",
                    retry_after=max(1.0, wait),
                )
        requests.level -= prompts

    def charge(self, principal: Principal, tokens: int) -> None:
        """Take the tokens of an answer; a long one is owed and paid off by waiting."""
        self._of(principal)[1].level -= tokens

    def headers(self, principal: Principal) -> dict[str, str]:
        """OpenAI's rate-limit headers."""
        headers = {}
        for bucket, what in zip(self._of(principal), ("requests", "tokens"), strict=True):
            headers[f"x-ratelimit-limit-{what}"] = str(bucket.limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, int(bucket.level)))
            headers[f"x-ratelimit-reset-{what}"] = _duration(bucket.seconds_to_full)
        return headers


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class InFlight:
    """How many answers are being generated, in all and by tenant."""

    def __init__(self, most: int, most_of_a_tenant: int) -> None:
        self._most = most
        self._most_of_a_tenant = most_of_a_tenant
        self._by_tenant: dict[str, int] = {}

    @contextmanager
    def entered(self, tenant_id: str, places: int = 1) -> Iterator[None]:
        """Be counted while the context lasts.

        Args:
            tenant_id: whose.
            places: answers generated at the same time.

        Raises:
            Invalid: that many places are never free.
            RateLimited: there are too many.
        """
        if places > min(self._most, self._most_of_a_tenant):
            raise Invalid(f"n: at most {min(self._most, self._most_of_a_tenant)} answers in a request.", param="n")
        mine = self._by_tenant.get(tenant_id, 0)
        if sum(self._by_tenant.values()) + places > self._most or mine + places > self._most_of_a_tenant:
            raise RateLimited("Too many requests at the same time; try again shortly.", retry_after=1)
        self._by_tenant[tenant_id] = mine + places
        try:
            yield
        finally:
            self._by_tenant[tenant_id] -= places
            if not self._by_tenant[tenant_id]:
                del self._by_tenant[tenant_id]
