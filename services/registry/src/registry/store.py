"""The registry's documents, in its own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from chassis.errors import Conflict, NotFound
from chassis.ids import SERVER_MS
from chassis.peers import Peer
from eventbus.outbox import AggregateStore
from registry.alias import Alias, alias_id
from registry.domain import LOADED, Model, State
from schemas import ReplicaReady, TenantPolicy
from schemas.http.accounts import TenantFacts
from stores.mongo import ASCENDING, Collection, Document, DuplicateKeyError, Query, ensure_index

WAITING: dict[str, Query] = {
    "evaluation": {"state": "candidate", "promotion": None},
    "approval": {"state": "awaiting_approval", "promotion": None},
    "replica": {"state": {"$in": ["candidate", "awaiting_approval"]}, "promotion": {"$ne": None}},
}
"""What models wait for (see `Model.waiting_for`), with the query for those that do."""

LEFT_BEHIND: Query = {"state": "retired", "deleted_at": None}
"""Taken out of use under a release that did not say that its adapter and evidence may go."""


class Models:
    """Model versions, the jobs that were cancelled and must not get one any more, and the datasets that are deleted."""

    def __init__(self, aggregates: AggregateStore[Model], cancelled: Collection, deleted_datasets: Collection) -> None:
        self._models = aggregates
        self._cancelled = cancelled
        self._deleted_datasets = deleted_datasets

    async def note_cancelled(self, tenant_id: str, job_id: str) -> None:
        """Remember that a job was cancelled."""
        await self._cancelled.update_one({"_id": job_id}, {"$set": {"tenant_id": tenant_id}}, upsert=True)

    async def cancelled(self, tenant_id: str, job_id: str) -> bool:
        """Whether a job was cancelled."""
        return await self._cancelled.find_one({"_id": job_id, "tenant_id": tenant_id}) is not None

    async def note_deleted_rows(self, tenant_id: str, dataset_id: str) -> None:
        """Remember that a dataset version was deleted."""
        await self._deleted_datasets.update_one({"_id": dataset_id}, {"$set": {"tenant_id": tenant_id}}, upsert=True)

    async def without_rows(self, tenant_id: str, dataset_id: str) -> bool:
        """Whether a dataset version was deleted."""
        return await self._deleted_datasets.find_one({"_id": dataset_id, "tenant_id": tenant_id}) is not None

    async def untested_of(self, tenant_id: str, dataset_id: str) -> list[Model]:
        """The tenant's candidates that were made from a dataset version and are not tested yet."""
        query = {"lineage.dataset_id": dataset_id, "state": "candidate", "evaluation": None}
        return await self._models.find(tenant_id, query)

    async def prepare(self) -> None:
        """Create the indexes; that on `job_id` is what keeps one job from having two models."""
        await ensure_index(self._models.collection, [("job_id", ASCENDING)], unique=True)
        await ensure_index(self._models.collection, [("adapter_id", ASCENDING)])
        await ensure_index(self._models.collection, [("tenant_id", ASCENDING), ("lineage.dataset_id", ASCENDING)])
        await ensure_index(self._models.collection, [("state", ASCENDING), ("waiting_since", ASCENDING)])
        await ensure_index(self._models.collection, [("state", ASCENDING), ("base_model", ASCENDING)])

    async def register(self, model: Model) -> Model:
        """Add the candidate of a job, or return the one the job has."""
        try:
            await self._models.add(model)
        except Conflict:
            existing = await self.of_job(model.tenant_id, model.job_id)
            if existing is None:
                raise
            return existing
        return model

    async def get(self, tenant_id: str, model_id: str, where: Mapping[str, Any] | None = None) -> Model:
        """The tenant's model, in any state, if it meets the further conditions of `where`.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        model = await self._models.find_one(tenant_id, {**(where or {}), "_id": model_id})
        if model is None:
            raise NotFound(f"There is no model '{model_id}', or it is not yours.", code="model_not_found")
        return model

    async def find(self, tenant_id: str, model_id: str, where: Mapping[str, Any] | None = None) -> Model | None:
        """The tenant's model, in any state, if there is one that meets the further conditions of `where`."""
        return await self._models.find_one(tenant_id, {**(where or {}), "_id": model_id})

    async def of_job(self, tenant_id: str, job_id: str) -> Model | None:
        """The model a job made, if it made one."""
        return await self._models.find_one(tenant_id, {"job_id": job_id})

    async def with_adapter(self, tenant_id: str, adapter_id: str) -> list[Model]:
        """The tenant's models that use an adapter."""
        return await self._models.find(tenant_id, {"adapter_id": adapter_id})

    async def page_of(
        self,
        tenant_id: str,
        where: Mapping[str, Any],
        *,
        state: State | None,
        base_model: str | None,
        limit: int,
        after: str | None,
        newest_first: bool,
    ) -> list[Model]:
        """The tenant's models that meet the further conditions of `where`, in one state, or of one base model."""
        wanted = {"state": state, "base_model": base_model}
        query = {**where, **{name: value for name, value in wanted.items() if value is not None}}
        return await self._models.find(tenant_id, query, limit=limit, after=after, newest_first=newest_first)

    async def in_production(self, tenant_id: str) -> list[Model]:
        """Models that can be asked: one tenant's, newest first, or all tenants' where `tenant_id` is empty."""
        if tenant_id:
            return await self._models.find(tenant_id, {"state": "production"})
        return [model async for model in self._models.for_service({"state": "production"})]

    async def to_load(self, tenant_id: str, base_model: str) -> list[Model]:
        """Models whose adapter a replica of `base_model` must hold; all tenants' where `tenant_id` is empty."""
        query: Query = {"state": {"$in": list(LOADED)}, "base_model": base_model}
        if tenant_id:
            return await self._models.find(tenant_id, query)
        return [model async for model in self._models.for_service(query)]

    async def update(self, tenant_id: str, model_id: str, change: Callable[[Model], None]) -> Model:
        """Load, apply `change`, save; see `AggregateStore.update`."""
        return await self._models.update(tenant_id, model_id, change)


class Aliases:
    """The tenants' own names for their models."""

    def __init__(self, aggregates: AggregateStore[Alias]) -> None:
        self._aliases = aggregates

    async def find(self, tenant_id: str, name: str) -> Alias | None:
        """The tenant's alias of that name, if there is one."""
        return await self._aliases.find_one(tenant_id, {"_id": alias_id(tenant_id, name)})

    async def get(self, tenant_id: str, name: str) -> Alias:
        """The tenant's alias of that name.

        Raises:
            NotFound: there is none.
        """
        alias = await self.find(tenant_id, name)
        if alias is None:
            raise NotFound(f"There is no alias '{name}'.", code="alias_not_found")
        return alias

    async def select(
        self, tenant_id: str, *, limit: int = 0, after: str | None = None, order: str = "desc"
    ) -> list[Alias]:
        """The tenant's aliases by age."""
        return await self._aliases.find(tenant_id, limit=limit, after=after, newest_first=order == "desc")

    async def all(self, tenant_id: str) -> list[Alias]:
        """One tenant's aliases, or all tenants' where `tenant_id` is empty."""
        if tenant_id:
            return await self._aliases.find(tenant_id)
        return [alias async for alias in self._aliases.for_service({})]

    async def put(self, alias: Alias, change: Callable[[Alias], None]) -> Alias:
        """Add the alias, or apply `change` to the one of that name."""
        try:
            await self._aliases.add(alias)
        except Conflict:
            return await self._aliases.update(alias.tenant_id, alias.id, change)
        return alias

    async def delete(self, alias: Alias) -> None:
        """Remove an alias."""
        await self._aliases.collection.delete_one({"_id": alias.id, "tenant_id": alias.tenant_id})


class Replicas:
    """What each replica said of itself, and when it last asked what it must hold: a dead one is not routed to.

    Nobody is called silent before this process has listened as long as that itself: while the registry was down,
    nobody could be heard. The clock is the database's, as those of the registry's replicas may differ.

    Args:
        collection: one document for each replica.
        seconds: how long a replica may be silent.
    """

    def __init__(self, collection: Collection, seconds: float) -> None:
        self._replicas = collection
        self._seconds = seconds
        self._listening_since = time.monotonic()

    async def heard(self, replica_id: str) -> None:
        """A replica asked."""
        await self._replicas.update_one({"_id": replica_id}, [{"$set": {"heard_ms": SERVER_MS}}], upsert=True)

    async def ready(self, said: ReplicaReady) -> None:
        """A replica proved its base; it holds no other any more."""
        await self._replicas.update_one({"_id": said.replica_id}, {"$set": {"ready": said.model_dump()}}, upsert=True)
        await self.heard(said.replica_id)

    async def with_base(self, base_model: str, base_digest: str) -> list[ReplicaReady]:
        """What the living replicas that proved this base said of themselves.

        Where living ones proved several bases at one address, it cannot be told who answers there: nobody is routed to.
        """
        lately = {} if self._just_listening else {"$expr": {"$lt": [self._since, "$heard_ms"]}}
        living = self._replicas.find({"ready": {"$exists": True}, **lately})
        found = [ReplicaReady.model_validate(one["ready"]) async for one in living]
        bases: dict[str, set[tuple[str, str]]] = {}
        for said in found:
            bases.setdefault(said.replica_url, set()).add((said.base_model, said.base_digest))
        return [said for said in found if bases[said.replica_url] == {(base_model, base_digest)}]

    async def silent(self) -> set[str]:
        """Ids of the replicas that asked once and have been silent too long."""
        if self._just_listening:
            return set()
        found = self._replicas.find({"$expr": {"$lt": ["$heard_ms", self._since]}}, {"_id": 1})
        return {str(document["_id"]) async for document in found}

    @property
    def _just_listening(self) -> bool:
        return time.monotonic() < self._listening_since + self._seconds

    @property
    def _since(self) -> dict[str, Any]:
        """The time, on the database's clock, since which a living replica was heard."""
        return {"$add": [SERVER_MS, int(-1000 * self._seconds)]}


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
