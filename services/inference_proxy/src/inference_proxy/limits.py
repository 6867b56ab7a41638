"""Limits before anything is spent: requests and tokens a minute."""

from __future__ import annotations

from chassis.auth import Principal
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
