"""Registers candidates and works the gate that they pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from chassis.crash import crash_point
from chassis.errors import NotFound, WriteRefused
from chassis.ids import now
from registry.domain import LoadFailure, Model, Replica, is_pinned, is_version_id
from registry.store import Models, Replicas, Tenants
from schemas import (
    AdapterEvicted,
    AdapterLoadFailed,
    AdapterResident,
    DatasetDeleted,
    EvaluationCompleted,
    FinetuneArmFitted,
    FinetuneCancelled,
    FinetuneTrained,
)
from schemas.artifacts import ArmKind

log = structlog.get_logger()


class Gate:
    """Takes models from candidate to production or away, by events and by people."""

    def __init__(self, models: Models, tenants: Tenants, replicas: Replicas) -> None:
        self._models = models
        self._tenants = tenants
        self._replicas = replicas

    async def _change(self, model: Model, change: Callable[[Model], None]) -> Model:
        """Apply `change` to the model as it is held now: only living replicas that proved its base count."""
        proven = [] if model.arm else await self._replicas.with_base(model.base_model, model.lineage.base_digest)

        def apply(model: Model) -> None:
            model.trust(one.replica_id for one in proven)
            change(model)

        return await self._models.update(model.tenant_id, model.id, apply)

    async def register(self, trained: FinetuneTrained | FinetuneArmFitted) -> Model | None:
        """Make the candidate of a job's adapter, or of its arm, once; None for a job that was cancelled.

        Where the model's name was taken back, so is the candidate: its job ends, and its files go.
        """
        if await self._models.cancelled(trained.tenant_id, trained.job_id):
            return None
        is_arm = isinstance(trained, FinetuneArmFitted)
        model = await self._models.of_kind(trained.tenant_id, trained.job_id, arm=is_arm)
        if model is None:
            slug = await self._tenants.slug(trained.tenant_id)
            if isinstance(trained, FinetuneArmFitted):
                model = await self._models.register(Model.register_arm(trained, slug, now()))
            else:
                model = await self._models.register(Model.register(trained, slug, now()))
        crash_point("registry.registered")
        by = await self._models.who_deleted(model.tenant_id, model.name)
        if by is not None:
            return await self._take_back(model, by)
        if await self._models.without_rows(trained.tenant_id, trained.dataset.dataset_id):
            model = await self._models.update(model.tenant_id, model.id, lambda one: one.lose_rows(now()))
        return model

    async def lose_rows(self, deleted: DatasetDeleted) -> None:
        """Rows are deleted: a candidate that was not tested on them yet is none any more."""
        await self._models.note_deleted_rows(deleted.tenant_id, deleted.dataset_id)
        for model in await self._models.untested_of(deleted.tenant_id, deleted.dataset_id):
            await self._models.update(model.tenant_id, model.id, lambda one: one.lose_rows(now()))

    async def judge(self, completed: EvaluationCompleted) -> Model:
        """Let the gate decide on an evaluation."""
        policy = await self._tenants.policy(completed.tenant_id)
        crash_point("registry.evaluation_read")
        found = await self._models.get(completed.tenant_id, completed.model_id)
        if completed.beaten_by and not await self._serves(found, completed.beaten_by):
            completed = completed.model_copy(update={"beaten_by": None})
        if completed.cascade and not await self._serves(found, completed.cascade.arm):
            completed = completed.model_copy(update={"cascade": None})
        if completed.below_base and (policy.gate == "approval" or not await self._may_go(found, completed.below_base)):
            completed = completed.model_copy(update={"below_base": None})
        if completed.below_base:  # it goes, so no adapter gives way to it
            completed = completed.model_copy(update={"beaten_by": None})
        model = await self._change(found, lambda model: model.judge(completed, policy.gate, now()))
        crash_point("registry.judged")
        refused = found.state == "candidate" and model.state == "rejected"
        if refused and completed.beaten_by and not await self._serves(model, completed.beaten_by):
            log.error("name_without_version", name=model.name, arm=completed.beaten_by, rejected=model.id)
        await self._withdraw_arm(model)
        return model

    async def _withdraw_arm(self, adapter: Model) -> None:
        """Retire the arm of an adapter's name where its evaluation shows that the base model is better."""
        if adapter.evaluation is None or adapter.evaluation.below_base is None:
            return
        arm = await self._models.of_kind(adapter.tenant_id, adapter.job_id, arm=True)
        if arm is not None:
            why = adapter.evaluation.superiority_of_base
            await self._models.update(arm.tenant_id, arm.id, lambda one: one.retire("gate", why, now()))

    async def hold(self, resident: AdapterResident) -> None:
        """A replica holds an adapter: promote the model that waited for that."""
        replica = Replica(
            replica_id=resident.replica_id,
            replica_url=resident.replica_url,
            fingerprint_delta=resident.fingerprint_delta,
            base_delta=resident.base_delta,
            at=now(),
        )
        for model in await self._models.with_adapter(resident.tenant_id, resident.adapter_id):
            await self._change(model, lambda one: one.hold(replica, replica.at))
            crash_point("registry.held")

    async def look_again(self, model: Model) -> None:
        """Promote a model that waited for a replica, if one that holds it lives and proved its base."""
        await self._change(model, lambda one: one.look_again(now()))

    async def note_load_failure(self, failed: AdapterLoadFailed) -> None:
        """A replica could not take an adapter: the model says so while it waits for that."""
        failure = LoadFailure(
            replica_id=failed.replica_id,
            replica_url=failed.replica_url,
            reason=failed.reason,
            permanent=failed.permanent,
            at=now(),
        )
        for model in await self._models.with_adapter(failed.tenant_id, failed.adapter_id):
            await self._models.update(model.tenant_id, model.id, lambda one: one.note_load_failure(failure))

    async def drop(self, evicted: AdapterEvicted) -> None:
        """A replica no longer holds an adapter."""
        for model in await self._models.with_adapter(evicted.tenant_id, evicted.adapter_id):
            await self._models.update(model.tenant_id, model.id, lambda one: one.drop(evicted.replica_id))

    async def cancel(self, cancelled: FinetuneCancelled) -> None:
        """The owner ended the job: its models, if it has some already, go too."""
        await self._models.note_cancelled(cancelled.tenant_id, cancelled.job_id)
        for model in await self._models.of_job(cancelled.tenant_id, cancelled.job_id):
            await self._models.update(
                model.tenant_id, model.id, lambda one: one.retire("owner", "The fine-tuning job was cancelled.", now())
            )

    async def approve(self, tenant_id: str, model_id: str, by: str, note: str) -> Model:
        """A person lets one version through; see `_one_of`."""
        found = await self._one_of(tenant_id, model_id)
        return await self._change(found, lambda model: model.approve(by, note, now()))

    async def reject(self, tenant_id: str, model_id: str, by: str, note: str) -> Model:
        """A person stops one version; see `_one_of`."""
        found = await self._one_of(tenant_id, model_id)
        return await self._models.update(tenant_id, found.id, lambda model: model.reject(by, note, now()))

    def finish_deletion(self, model: Model) -> None:
        """A model is retired because it was deleted, or its job cancelled, and nobody said that its adapter may go."""
        model.delete("operator", now())

    async def delete(self, tenant_id: str, model_id: str, by: str, where: Mapping[str, str]) -> None:
        """The owner deletes a version, or a name with every version: one in production is retired, others rejected.

        A version of the name that is registered later is taken back too: the name is remembered before its versions
        are looked for, and a registration asks for it after its write.

        Raises:
            NotFound: there is no such version that meets the conditions of `where`, or all that is named is deleted.
        """
        whole = not is_version_id(model_id)
        found = await self._models.version(tenant_id, model_id, where)
        versions = await self._models.named(tenant_id, model_id, where) if whole else [found]
        known = not whole or await self._models.who_deleted(tenant_id, model_id) is not None
        if known and all(model.deleted_at is not None for model in versions):
            raise NotFound(f"Model '{model_id}' is deleted already.", code="model_not_found")
        if not whole:
            await self._models.update(tenant_id, model_id, lambda one: one.delete(by, now()))
        else:
            await self._models.note_deleted_name(tenant_id, model_id, by)
            for model in await self._models.named(tenant_id, model_id, where):
                await self._take_back(model, by)
        crash_point("registry.deleted")

    async def _take_back(self, model: Model, by: str) -> Model:
        """Delete a version because its name is."""
        return await self._models.update(model.tenant_id, model.id, lambda one: one.delete(by, now(), one.name))

    async def _serves(self, adapter: Model, kind: ArmKind) -> bool:
        """Whether this arm of the adapter's name is in production."""
        return bool(await self._serving(adapter, kind))

    async def _may_go(self, adapter: Model, kind: ArmKind) -> bool:
        """Whether this arm of the adapter's name is in production, and no person pinned it."""
        return any(not is_pinned(one) for one in await self._serving(adapter, kind))

    async def _serving(self, adapter: Model, kind: ArmKind) -> list[Model]:
        if adapter.arm is not None:
            return []
        serving = await self._models.serving(adapter.tenant_id, [adapter.name])
        return [one for one in serving if one.arm_kind == kind]

    async def _one_of(self, tenant_id: str, model_id: str) -> Model:
        """The version of that id; of a name that has none, the only one that waits, or that there is.

        Raises:
            NotFound: there is none.
            WriteRefused: several wait, and each has a decision of its own.
        """
        named = [] if is_version_id(model_id) else await self._models.named(tenant_id, model_id)
        if not named or any(one.id == model_id for one in named):
            return await self._models.get(tenant_id, model_id)
        waiting = [one for one in named if one.waiting_for] or named
        if len(waiting) > 1:
            known = ", ".join(sorted(one.id for one in waiting))
            raise WriteRefused(f"'{model_id}' has several versions: decide on one of {known}.", code="several_versions")
        return waiting[0]
