"""Makes tenants, and changes what they may use and how their uploads are treated."""

from __future__ import annotations

from typing import Any

from accounts.domain import NewKey, Tenant
from accounts.store import Accounts
from accounts.use_cases.keys import Keys
from chassis.errors import Conflict, Invalid, NotFound
from chassis.idempotency import request_id_for
from chassis.ids import new_id, now
from chassis.peers import Peer
from schemas import TenantPolicy

SLUG_ATTEMPTS = 8
"""The last of them tells tenants of one name apart by 72 bits."""


class Tenants:
    """Makes tenants and changes their policies."""

    def __init__(self, accounts: Accounts, keys: Keys, registry: Peer) -> None:
        self._accounts = accounts
        self._keys = keys
        self._registry = registry

    async def create(self, name: str, policy: TenantPolicy, actor: str) -> tuple[Tenant, str]:
        """A new tenant and its first owner key, which exists in clear only in this answer.

        Raises:
            Invalid: the policy names a base model that is not there.
        """
        tenant = await self.begin(name, policy, actor)
        _, secret = await self._keys.issue(tenant.id, NewKey(name="first key"), user_id=None, actor=actor)
        return tenant, secret

    async def begin(self, name: str, policy: TenantPolicy, actor: str) -> Tenant:
        """A new tenant in which nobody is yet.

        Raises:
            Invalid: the policy names a base model that is not there.
        """
        await self._check_base_model(policy.base_model)
        return await self.found(request_id_for("tenant_", new_id("tenant_")), name, policy, actor)

    async def found(self, tenant_id: str, name: str, policy: TenantPolicy, actor: str) -> Tenant:
        """The tenant of that id, made if it is not there yet."""
        tenant = Tenant.create(tenant_id, name, policy, now())
        await self._accounts.audit(tenant_id, actor, "tenant.create", tenant_id, name=tenant.name)
        for attempt in range(1, SLUG_ATTEMPTS):
            try:
                return await self._accounts.add_tenant(tenant)
            except Conflict:  # another tenant has the slug
                tenant = Tenant.create(tenant_id, name, policy, tenant.created_at, attempt)
        return await self._accounts.add_tenant(tenant)

    async def change_policy(self, tenant_id: str, changes: dict[str, Any], actor: str) -> Tenant:
        """Change some of the policy's fields.

        Raises:
            Invalid: there is no such base model.
        """
        await self._check_base_model(changes.get("base_model", ""))
        tenant = await self._accounts.tenant(tenant_id)
        if tenant.policy.model_copy(update=changes) == tenant.policy:
            return tenant

        def change(tenant: Tenant) -> None:
            tenant.change_policy(tenant.policy.model_copy(update=changes))

        await self._accounts.audit(tenant_id, actor, "tenant.policy", tenant_id, **changes)
        return await self._accounts.change_tenant(tenant_id, change)

    async def change_ceiling(self, tenant_id: str, changes: dict[str, int], actor: str) -> Tenant:
        """Change what the tenant may use in all; with no changes, the tenant as it is."""
        tenant = await self._accounts.tenant(tenant_id)
        if not changes:
            return tenant
        await self._accounts.audit(tenant_id, actor, "tenant.ceiling", tenant_id, **changes)
        return await self._accounts.change_tenant(tenant_id, lambda tenant: tenant.change_ceiling(changes))

    async def _check_base_model(self, base_model: str) -> None:
        if not base_model:
            return
        try:
            await self._registry.get("/internal/base_models/{}", base_model, tenant_id="")
        except NotFound as error:
            raise Invalid(error.message, code="model_not_found", param="base_model") from error
