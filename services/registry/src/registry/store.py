"""The registry's documents, in its own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from chassis.errors import Conflict, NotFound
from chassis.ids import SERVER_MS
from chassis.peers import Peer
from eventbus import AggregateStore
from registry.alias import Alias, alias_id
from registry.domain import LOADED, Model, State, is_version_id, versions_of
from schemas import ReplicaReady, TenantPolicy
from schemas.http.accounts import TenantFacts
from stores.mongo import ASCENDING, DESCENDING, Collection, Document, DuplicateKeyError, Query, drop_index, ensure_index

WAITING: dict[str, Query] = {
    "evaluation": {"state": "candidate", "promotion": None},
    "approval": {"state": "awaiting_approval", "promotion": None},
    "replica": {"state": {"$in": ["candidate", "awaiting_approval"]}, "promotion": {"$ne": None}},
}
"""What models wait for (see `Model.waiting_for`), with the query for those that do."""

LEFT_BEHIND: Query = {"state": "retired", "deleted_at": None}
"""Taken out of use under a release that did not say that its adapter and evidence may go."""


class Models:
    """Model versions, and what ends those that are yet to come: cancelled jobs, deleted names, deleted datasets."""

    def __init__(
        self,
        aggregates: AggregateStore[Model],
        cancelled: Collection,
        deleted_names: Collection,
        deleted_datasets: Collection,
    ) -> None:
        self._models = aggregates
        self._cancelled = cancelled
        self._deleted_names = deleted_names
        self._deleted_datasets = deleted_datasets

    async def note_cancelled(self, tenant_id: str, job_id: str) -> None:
        """Remember that a job was cancelled."""
        await self._cancelled.update_one({"_id": job_id}, {"$set": {"tenant_id": tenant_id}}, upsert=True)

    async def cancelled(self, tenant_id: str, job_id: str) -> bool:
        """Whether a job was cancelled."""
        return await self._cancelled.find_one({"_id": job_id, "tenant_id": tenant_id}) is not None

    async def note_deleted_name(self, tenant_id: str, name: str, by: str) -> None:
        """Remember that a name was taken back, and who did."""
        facts = {"tenant_id": tenant_id, "by": by}
        await self._deleted_names.update_one({"_id": name}, {"$set": facts}, upsert=True)

    async def who_deleted(self, tenant_id: str, name: str) -> str | None:
        """Who took a name back; None where nobody did."""
        noted = await self._deleted_names.find_one({"_id": name, "tenant_id": tenant_id})
        return str(noted["by"]) if noted else None

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
        """Create the indexes; the first is what keeps one job from having two adapters, or two arms of a kind.

        It takes the place of that on `job_id` alone, under which a job had one model.
        """
        of_job = [("job_id", ASCENDING), ("arm.kind", ASCENDING)]
        await ensure_index(self._models.collection, of_job, unique=True)
        await drop_index(self._models.collection, "job_id_1")
        await ensure_index(self._models.collection, [("adapter_id", ASCENDING)])
        await ensure_index(self._models.collection, [("tenant_id", ASCENDING), ("lineage.dataset_id", ASCENDING)])
        await ensure_index(self._models.collection, [("state", ASCENDING), ("waiting_since", ASCENDING)])
        await ensure_index(self._models.collection, [("state", ASCENDING), ("base_model", ASCENDING)])

    async def register(self, model: Model) -> Model:
        """Add a candidate of a job, or return the one the job has."""
        try:
            await self._models.add(model)
        except Conflict:
            existing = await self.of_kind(model.tenant_id, model.job_id, arm=model.arm is not None)
            if existing is None:
                raise
            return existing
        return model

    async def get(self, tenant_id: str, model_id: str, where: Mapping[str, str] | None = None) -> Model:
        """The tenant's model, in any state, if it meets the further conditions of `where`.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        model = await self._models.find_one(tenant_id, {**(where or {}), "_id": model_id})
        if model is None:
            raise NotFound(f"There is no model '{model_id}', or it is not yours.", code="model_not_found")
        return model

    async def find(self, tenant_id: str, model_id: str, where: Mapping[str, str] | None = None) -> Model | None:
        """The tenant's model, in any state, if there is one that meets the further conditions of `where`."""
        return await self._models.find_one(tenant_id, {**(where or {}), "_id": model_id})

    async def version(self, tenant_id: str, model_id: str, where: Mapping[str, str] | None = None) -> Model:
        """The tenant's model of that id, in any state, else the one that has that name: the one in production first.

        Raises:
            NotFound: as `get`.
        """
        found = await self.named(tenant_id, model_id, where) if not is_version_id(model_id) else []
        if found:
            return min(found, key=lambda one: (one.id != model_id, one.state != "production"))
        return await self.get(tenant_id, model_id, where)

    async def named(self, tenant_id: str, name: str, where: Mapping[str, str] | None = None) -> list[Model]:
        """The tenant's versions of a name, in any state, if they meet the further conditions of `where`."""
        return await self._models.find(tenant_id, {**(where or {}), "_id": {"$in": versions_of(name)}})

    async def of_job(self, tenant_id: str, job_id: str) -> list[Model]:
        """The versions that a job made."""
        return await self._models.find(tenant_id, {"job_id": job_id})

    async def of_kind(self, tenant_id: str, job_id: str, *, arm: bool) -> Model | None:
        """The arm that a job made, or its adapter, if it made one."""
        made = [model for model in await self.of_job(tenant_id, job_id) if (model.arm is not None) == arm]
        return made[0] if made else None

    async def with_adapter(self, tenant_id: str, adapter_id: str) -> list[Model]:
        """The tenant's models that use an adapter."""
        return await self._models.find(tenant_id, {"adapter_id": adapter_id, "arm": None})

    async def page_of(
        self,
        tenant_id: str,
        where: Mapping[str, str],
        *,
        state: State | None,
        base_model: str | None,
        name: str | None,
        limit: int,
        after: str | None,
        newest_first: bool,
    ) -> list[Model]:
        """The tenant's models that meet the further conditions of `where`, in one state, of one base model or name."""
        versions = {"$in": versions_of(name)} if name is not None else None
        wanted = {"state": state, "base_model": base_model, "_id": versions}
        query = {**where, **{field: value for field, value in wanted.items() if value is not None}}
        return await self._models.find(tenant_id, query, limit=limit, after=after, newest_first=newest_first)

    async def in_production(self, tenant_id: str) -> list[Model]:
        """Models that can be asked: one tenant's, newest first, or all tenants' where `tenant_id` is empty."""
        if tenant_id:
            return await self._models.find(tenant_id, {"state": "production"})
        return [model async for model in self._models.for_service({"state": "production"})]

    async def untested_arms(self, tenant_id: str, name: str) -> list[Model]:
        """The arms of a name that wait for their evaluation."""
        query: Query = {"_id": {"$in": versions_of(name)}, "arm": {"$ne": None}, **WAITING["evaluation"]}
        return await self._models.find(tenant_id, query)

    async def serving(self, tenant_id: str, names: Iterable[str]) -> list[Model]:
        """The tenant's versions in production that have these names."""
        ids = [version for name in sorted(set(names)) for version in versions_of(name)]
        return await self._models.find(tenant_id, {"_id": {"$in": ids}, "state": "production"})

    async def to_load(self, tenant_id: str, base_model: str) -> list[Model]:
        """Models whose adapter a replica of `base_model` must hold; all tenants' where `tenant_id` is empty."""
        query: Query = {"state": {"$in": list(LOADED)}, "base_model": base_model, "arm": None}
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

    async def select(self, tenant_id: str, *, limit: int, after: str | None, order: str) -> list[Alias]:
        """The tenant's aliases by age."""
        return await self._aliases.find(tenant_id, limit=limit, after=after, newest_first=order == "desc")

    async def all(self, tenant_id: str) -> list[Alias]:
        """One tenant's aliases, or all tenants' where `tenant_id` is empty."""
        if tenant_id:
            return await self._aliases.find(tenant_id)
        return [alias async for alias in self._aliases.for_service({})]

    async def count(self, tenant_id: str, most: int) -> int:
        """How many aliases the tenant has; counted to `most`."""
        return int(await self._aliases.collection.count_documents({"tenant_id": tenant_id}, limit=most))

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


Proven = tuple[str, str]
"""A base model that a replica proved: its id and the digest of its files."""

FORGOTTEN_SECONDS = 3600
"""A replica that was silent so long is dead for good: its document goes."""


class Replicas:
    """What each replica said of itself, and when it last asked what it must hold: a dead one is not routed to.

    While the registry was down nobody could be heard: until this process has listened as long as a replica may be
    silent, who was heard shortly before the last one heard then is no more silent than that one. The clock is the
    database's, as those of the registry's replicas may differ.

    Args:
        collection: one document for each replica.
        seconds: how long a replica may be silent.
    """

    def __init__(self, collection: Collection, seconds: float) -> None:
        self._replicas = collection
        self._silent_ms = int(1000 * seconds)
        self._listened_at = time.monotonic() + seconds
        self._last_heard_ms: int | None = None

    async def prepare(self) -> None:
        """Create the indexes, and read when the last replica was heard before this process listened."""
        await ensure_index(self._replicas, [("ready.base_model", ASCENDING), ("ready.base_digest", ASCENDING)])
        await ensure_index(self._replicas, [("ready.replica_url", ASCENDING)])
        await ensure_index(self._replicas, [("heard_ms", ASCENDING)])
        last = await self._replicas.find_one({"heard_ms": {"$gt": 0}}, sort=[("heard_ms", DESCENDING)])
        self._last_heard_ms = int(last["heard_ms"]) if last else None

    async def heard(self, replica_id: str, base_model: str, base_digest: str) -> None:
        """A replica asked: it lives, and what it proved of another base than this one it holds no more.

        Args:
            replica_id: who asked.
            base_model: it asked for.
            base_digest: of that base as it lies there; empty from a replica of an earlier release.
        """
        other: list[Query] = [{"ready.base_model": {"$ne": base_model}}]
        if base_digest:
            other.append({"ready.base_digest": {"$ne": base_digest}})
        moved = {"_id": replica_id, "ready": {"$ne": None}, "$or": other}
        await self._replicas.update_one(moved, {"$set": {"ready": None}})
        await self._replicas.update_one({"_id": replica_id}, [{"$set": {"heard_ms": SERVER_MS}}], upsert=True)

    async def ready(self, said: ReplicaReady) -> None:
        """A replica proved its base; it holds no other any more.

        That it lives shows when it asks: an event may be handed over again long after its replica died. The dead go:
        those that had its address, and those that were silent very long.
        """
        own = {"_id": said.replica_id}
        # When it spoke comes first: a document without that is a dead one's, and goes with the next who speaks.
        await self._replicas.update_one(own, [{"$set": {"said_ms": SERVER_MS}}], upsert=True)
        await self._replicas.update_one(own, {"$set": {"ready": said.model_dump()}}, upsert=True)
        if time.monotonic() >= self._listened_at:
            here = {"_id": {"$ne": said.replica_id}, "ready.replica_url": said.replica_url}
            await self._replicas.delete_many({**here, **_before(self._silent_ms)})
            await self._replicas.delete_many(_before(1000 * FORGOTTEN_SECONDS))

    async def with_bases(self, bases: Iterable[Proven]) -> dict[Proven, list[ReplicaReady]]:
        """Of these bases, what the living replicas that proved them said of themselves.

        An address is its last replica's, the one that said so last. Where living ones proved several bases at one
        address, it cannot be told who answers there: nobody is routed to.
        """
        found: dict[Proven, list[ReplicaReady]] = {base: [] for base in bases}
        if not found:
            return found
        ids, digests = (sorted({base[part] for base in found}) for part in (0, 1))
        named = {"ready.base_model": {"$in": ids}, "ready.base_digest": {"$in": digests}}
        urls = {one["ready"]["replica_url"] async for one in self._replicas.find({**named, **self._living})}
        there = self._replicas.find({"ready.replica_url": {"$in": sorted(urls)}, **self._living})
        at: dict[str, list[ReplicaReady]] = {}
        for one in sorted([document async for document in there], key=lambda document: document.get("said_ms", 0)):
            at.setdefault(one["ready"]["replica_url"], []).append(ReplicaReady.model_validate(one["ready"]))
        for said in at.values():
            proven = {(one.base_model, one.base_digest) for one in said}
            if len(proven) == 1 and (base := proven.pop()) in found:
                found[base].append(said[-1])
        return found

    async def with_base(self, base_model: str, base_digest: str) -> list[ReplicaReady]:
        """Those of one base; see `with_bases`."""
        base = (base_model, base_digest)
        return (await self.with_bases([base]))[base]

    @property
    def _living(self) -> Query:
        """Those that were heard lately."""
        since: Query | int = {"$add": [SERVER_MS, -self._silent_ms]}
        if self._last_heard_ms is not None and time.monotonic() < self._listened_at:
            since = self._last_heard_ms - self._silent_ms
        return {"$expr": {"$lt": [since, "$heard_ms"]}}


def _before(ms: int) -> Query:
    """The condition for replicas of which nothing was heard for so long."""
    long_ago = {"$add": [SERVER_MS, -ms]}
    return {"$and": [{"$expr": {"$lt": ["$heard_ms", long_ago]}}, {"$expr": {"$lt": ["$said_ms", long_ago]}}]}


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
