"""Limits before anything is spent: tokens a minute, and how many answers at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chassis.auth import Principal
from chassis.errors import Invalid, RateLimited
from chassis.limits import Allowance, Limiter


class Spending:
    """Requests and tokens a minute of whoever wants an answer.

    Each request of a key was counted when the key was read; people who come through another service are counted here.

    Args:
        requests: the service's own, which counts each request of a key.
        tokens: counts what models read and write.
        usual: what a person may use who comes without a key; what they use counts for their tenant too.
    """

    def __init__(self, requests: Limiter, tokens: Limiter, usual: Allowance) -> None:
        self._requests = requests
        self._tokens = tokens
        self._usual = usual

    def admit(self, principal: Principal, prompts: int = 1) -> None:
        """Take a request for each prompt; where some are left but not that many, the rest is owed.

        Raises:
            RateLimited: no request, or no token, is left for now.
        """
        allowances = self._of(principal)
        self._tokens.admit(allowances, 0)
        if principal.caller is None:
            self._requests.charge(allowances, prompts - 1)
        else:
            self._requests.admit(allowances, prompts)

    def charge(self, principal: Principal, tokens: int) -> None:
        """Take the tokens of an answer; a long one is owed and paid off by waiting."""
        self._tokens.charge(self._of(principal), tokens)

    def _of(self, principal: Principal) -> tuple[Allowance, ...]:
        if principal.caller is None:
            return principal.allowances
        name = f"{principal.tenant_id}/{principal.user_id or principal.key_id}"
        own = Allowance(name, self._usual.requests_per_minute, self._usual.tokens_per_minute)
        return (own, *principal.allowances)


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
