"""What bounds every use case, and who is written down as its actor."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.domain import Ceiling
from chassis.auth import Principal
from chassis.limits import Allowance


@dataclass(frozen=True)
class Limits:
    """What a key may use that names no limits, a tenant that the operator set none, and what strangers may."""

    usual_key: Allowance
    usual_tenant: Ceiling
    sign_in_attempts: int
    sign_in_attempts_anywhere: int
    sign_up: bool
    sign_ups_per_hour: int
    sign_ups_per_hour_each: int


def actor_of(principal: Principal) -> str:
    """Who acts, for the audit trail."""
    return principal.user_id or principal.key_id
