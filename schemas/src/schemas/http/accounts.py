"""What `accounts` answers other services."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from schemas.events import TenantPolicy


class TenantFacts(BaseModel):
    """`GET /internal/tenants/{tenant_id}`: a tenant, as far as other services need to know it."""

    model_config = ConfigDict(frozen=True)

    tenant_id: str = Field(description="Id of the tenant.")
    slug: str = Field(description="Short name used in `ft:` model names.")
    policy: TenantPolicy = Field(description="What the tenant lets happen by itself.")
