"""Tenants, people, keys and the audit trail: their rules and the only functions that change them."""

from accounts.domain.audit import AuditEntry, Chain
from accounts.domain.keys import KEY_PREFIX, ApiKey, NewKey, check_event_types, check_grant
from accounts.domain.tenants import Ceiling, Tenant, make_slug
from accounts.domain.users import (
    INVITATION_SECONDS,
    RESET_SECONDS,
    User,
    checked_email,
    checked_password,
    known_role,
)

__all__ = [
    "INVITATION_SECONDS",
    "KEY_PREFIX",
    "RESET_SECONDS",
    "ApiKey",
    "AuditEntry",
    "Ceiling",
    "Chain",
    "NewKey",
    "Tenant",
    "User",
    "check_event_types",
    "check_grant",
    "checked_email",
    "checked_password",
    "known_role",
    "make_slug",
]
