"""How much is under way in a replica at the same time: in all, and of each tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chassis.errors import RateLimited


class InFlight:
    """Counts what is under way, and refuses the next where no place is left for it.

    Args:
        what: takes a place: a noun in the plural, for people.
        most: places in all.
        most_each: of one tenant.
        retry_after: seconds after which it is worth trying again.
        for_newcomers: of all places, those kept for tenants that have none: few who are slow leave room for others.
    """

    def __init__(self, what: str, *, most: int, most_each: int, retry_after: float, for_newcomers: int = 0) -> None:
        self._what = what
        self._most = most
        self._most_each = most_each
        self._retry_after = retry_after
        self._for_newcomers = for_newcomers
        self._taken: Counter[str] = Counter()

    @property
    def most_at_once(self) -> int:
        """Places that one may ever take."""
        return min(self._most, self._most_each)

    @property
    def tenants(self) -> list[str]:
        """Those who have something under way."""
        return list(self._taken)

    @contextmanager
    def entered(self, tenant_id: str, places: int = 1) -> Iterator[None]:
        """Take places while the context lasts.

        Args:
            tenant_id: whose.
            places: how many.

        Raises:
            RateLimited: they are not free, or the tenant has its share.
        """
        if refusal := self._refusal(tenant_id, places):
            raise RateLimited(refusal, retry_after=self._retry_after)
        self._taken[tenant_id] += places
        try:
            yield
        finally:
            self._taken[tenant_id] -= places
            if not self._taken[tenant_id]:
                del self._taken[tenant_id]

    def _refusal(self, tenant_id: str, places: int) -> str:
        mine, after = self._taken.get(tenant_id, 0), self._taken.total() + places
        if after > self._most:
            return f"Too many {self._what} at the moment. Try again in a few seconds."
        if mine + places > self._most_each:
            return f"{mine} of your {self._what} are under way. Wait until one is done."
        if mine and after > self._most - self._for_newcomers:
            return f"Many {self._what} are under way. Wait until yours is done."
        return ""
