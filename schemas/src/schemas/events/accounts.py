"""Tenants, their policies, and API keys that end."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Event
from schemas.refs import Id, Label


class TenantPolicy(BaseModel):
    """What a tenant lets happen by itself."""

    model_config = ConfigDict(frozen=True)

    tune_on_upload: bool = Field(True, description="Fine-tune by itself when a `user_data` dataset is ready.")
    gate: Literal["auto", "approval", "advisory"] = Field(
        "auto",
        description="auto: promote on a pass; approval: wait for a person; advisory: promote whatever the result.",
    )
    base_model: Id = Field("", description="Base model of automatic fine-tunes; the installation's default if empty.")


class TenantCreated(Event):
    """A tenant exists and may be used."""

    type, topic, key = "tenant.created.v1", "accounts", "tenant_id"

    name: Label = Field(description="Display name.")
    slug: Id = Field(description="Short name used in `ft:` model names.")
    policy: TenantPolicy = Field(description="The tenant's policy.")


class TenantPolicyChanged(Event):
    """A tenant's policy is now this one."""

    type, topic, key = "tenant.policy_changed.v1", "accounts", "tenant_id"

    policy: TenantPolicy = Field(description="The policy from now on.")
    revision: int = Field(0, description="Rises with every change of the tenant's policy; an older one is not taken.")


class KeyRevoked(Event):
    """An API key must not be believed any more."""

    type, topic, key = "key.revoked.v1", "accounts", "tenant_id"

    key_id: Id = Field(description="Id of the key.")
    key_hash: Id = Field(description="SHA-256 of the key: what caches are keyed by.")


class KeyRotated(Event):
    """A secret of an API key was replaced by another one, and must not be believed from a time on."""

    type, topic, key = "key.rotated.v1", "accounts", "tenant_id"

    key_id: Id = Field(description="Id of the key, which stays.")
    key_hash: Id = Field(description="SHA-256 of the secret that was replaced: what caches are keyed by.")
    ends_at: int = Field(description="When it ends (unix seconds); said again where that comes nearer.")
