"""What the registry knows of tenants."""

from __future__ import annotations

from chassis.peers import Peer
from schemas import TenantPolicy
from schemas.http.accounts import TenantFacts
from stores.mongo import Collection, Document, DuplicateKeyError


class Tenants:
    """What the registry knows of tenants: learnt from events, asked of accounts only where an event was missed.

    The gate therefore works while accounts is down.
    """

    def __init__(self, collection: Collection, accounts: Peer) -> None:
        self._tenants = collection
        self._accounts = accounts

    async def learn(self, tenant_id: str, slug: str, policy: TenantPolicy) -> None:
        """Keep a tenant as first heard of; a later policy is not undone by an older message."""
        facts = {"slug": slug, "policy": policy.model_dump()}
        await self._tenants.update_one({"_id": tenant_id, "slug": {"$exists": False}}, {"$set": {"slug": slug}})
        await self._tenants.update_one({"_id": tenant_id}, {"$setOnInsert": facts}, upsert=True)

    async def change_policy(self, tenant_id: str, policy: TenantPolicy, revision: int) -> None:
        """Keep a tenant's new policy, unless a newer one is known: events may be replayed."""
        older = {"_id": tenant_id, "revision": {"$not": {"$gt": revision}}}
        try:
            await self._tenants.update_one(
                older, {"$set": {"policy": policy.model_dump(), "revision": revision}}, upsert=True
            )
        except DuplicateKeyError:
            return

    async def slug(self, tenant_id: str) -> str:
        """The tenant's short name."""
        return str((await self._known(tenant_id))["slug"])

    async def policy(self, tenant_id: str) -> TenantPolicy:
        """The tenant's policy."""
        return TenantPolicy.model_validate((await self._known(tenant_id))["policy"])

    async def _known(self, tenant_id: str) -> Document:
        document = await self._tenants.find_one({"_id": tenant_id})
        if document is None or "slug" not in document:
            tenant = await self._accounts.read(TenantFacts, "/internal/tenants/{}", tenant_id, tenant_id=tenant_id)
            await self.learn(tenant_id, tenant.slug, tenant.policy)
            document = await self._tenants.find_one({"_id": tenant_id})
        assert document is not None
        return document
