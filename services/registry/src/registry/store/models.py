"""Model versions, in the registry's words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from chassis.errors import Conflict, NotFound
from eventbus import AggregateStore
from registry.domain import LOADED, Model, State, is_version_id, versions_of
from stores.mongo import ASCENDING, Collection, Query, drop_index, ensure_index

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
