"""How tenants, keys and people are shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import Response

from accounts.domain import ApiKey, Ceiling, Tenant, User
from chassis.ids import now


def tenant_view(tenant: Tenant, usual: Ceiling) -> dict[str, Any]:
    """A tenant as shown."""
    return {
        "object": "organization.tenant",
        "id": tenant.id,
        "tenant_id": tenant.id,
        "created_at": tenant.created_at,
        "name": tenant.name,
        "slug": tenant.slug,
        "policy": tenant.policy.model_dump(),
        "limits": tenant.ceiling(usual).model_dump(),
    }


def key_view(key: ApiKey) -> dict[str, Any]:
    """A key as shown: never the key itself."""
    unseen = {"tenant_id", "version", "sent", "lease", "key_hash", "makers", "replaced", "rotation"}
    holding = [secret for secret in key.replaced if secret.ends_at > now()]
    replaced = [{"hint": secret.hint, "ends_at": secret.ends_at} for secret in holding]
    return {"object": "organization.api_key", **key.model_dump(exclude=unseen), "replaced": replaced}


def user_view(user: User) -> dict[str, Any]:
    """A person as shown."""
    shown = user.model_dump(include={"id", "email", "role", "disabled", "created_at"})
    return {"object": "organization.user", **shown, "status": user.status}


def invited_view(user: User, code: str, response: Response) -> dict[str, Any]:
    """A person as shown, with the code by which they choose a password, which is shown only now."""
    response.headers["cache-control"] = "no-store"
    invitation = {"code": code, "path": f"/join#{code}", "expires_at": user.code_expires_at}
    return {**user_view(user), "invitation": invitation}


def person_view(user: User, tenant: Tenant, usual: Ceiling) -> dict[str, Any]:
    """A person, for the console's session."""
    return {
        "tenant_id": tenant.id,
        "user_id": user.id,
        "role": user.role,
        "email": user.email,
        "organization": tenant.slug,
        "name": tenant.name,
        "disabled": user.disabled,
        "password_changed_at": user.password_changed_at,
        "allowances": [asdict(tenant.allowance(usual))],
    }
