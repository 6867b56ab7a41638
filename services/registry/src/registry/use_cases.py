"""What the registry does: registers candidates, works the gate, resolves names, tells what is served where."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from chassis.crash import crash_point
from chassis.errors import Forbidden, Invalid, NotFound
from chassis.ids import now
from registry.alias import Alias
from registry.catalogue import Base, Catalogue
from registry.domain import LOADED, LoadFailure, Model, Replica
from registry.store import Aliases, Models, Proven, Replicas, Tenants
from schemas import (
    AdapterEvicted,
    AdapterLoadFailed,
    AdapterResident,
    DatasetDeleted,
    EvaluationCompleted,
    FinetuneCancelled,
    FinetuneTrained,
    ReplicaReady,
)
from schemas.artifacts import BaseModelSpec

# Lower case, digits and . _ - : it can never be taken for an `ft:` name or need escaping in an address.
ALIAS_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Gate:
    """Takes models from candidate to production or away, by events and by people."""

    def __init__(self, models: Models, tenants: Tenants, replicas: Replicas) -> None:
        self._models = models
        self._tenants = tenants
        self._replicas = replicas

    async def _change(self, model: Model, change: Callable[[Model], None]) -> Model:
        """Apply `change` to the model as it is held now: only living replicas that proved its base count."""
        proven = await self._replicas.with_base(*_base_of(model))

        def apply(model: Model) -> None:
            model.trust(one.replica_id for one in proven)
            change(model)

        return await self._models.update(model.tenant_id, model.id, apply)

    async def register(self, trained: FinetuneTrained) -> Model | None:
        """Make the candidate of a job, once; None for a job that was cancelled."""
        if await self._models.cancelled(trained.tenant_id, trained.job_id):
            return None
        model = await self._models.of_job(trained.tenant_id, trained.job_id)
        if model is None:
            slug = await self._tenants.slug(trained.tenant_id)
            model = await self._models.register(Model.register(trained, slug, now()))
        crash_point("registry.registered")
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
        model = await self._change(found, lambda model: model.judge(completed, policy.gate, now()))
        crash_point("registry.judged")
        return model

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
        """The owner ended the job: its model, if it has one already, goes too."""
        await self._models.note_cancelled(cancelled.tenant_id, cancelled.job_id)
        model = await self._models.of_job(cancelled.tenant_id, cancelled.job_id)
        if model is not None:
            await self._models.update(
                model.tenant_id, model.id, lambda one: one.retire("owner", "The fine-tuning job was cancelled.", now())
            )

    async def approve(self, tenant_id: str, model_id: str, by: str, note: str) -> Model:
        """A person lets a model through."""
        found = await self._models.get(tenant_id, model_id)
        return await self._change(found, lambda model: model.approve(by, note, now()))

    async def reject(self, tenant_id: str, model_id: str, by: str, note: str) -> Model:
        """A person stops a model."""
        await self._models.get(tenant_id, model_id)
        return await self._models.update(tenant_id, model_id, lambda model: model.reject(by, note, now()))

    def finish_deletion(self, model: Model) -> None:
        """A model is retired because it was deleted, or its job cancelled, and nobody said that its adapter may go."""
        model.delete("operator", now())

    async def delete(self, tenant_id: str, model_id: str, by: str, where: Mapping[str, str]) -> Model:
        """The owner deletes a model, in whatever state: one in production is retired, one before it rejected.

        Raises:
            NotFound: there is no such model that meets the conditions of `where`, or it was deleted before.
        """
        model = await self._models.get(tenant_id, model_id, where)
        if model.deleted_at is not None:
            raise NotFound(f"Model '{model_id}' is deleted already.", code="model_not_found")
        model = await self._models.update(tenant_id, model_id, lambda one: one.delete(by, now()))
        crash_point("registry.deleted")
        return model


class Naming:
    """The tenants' aliases."""

    def __init__(self, aliases: Aliases, models: Models, catalogue: Catalogue) -> None:
        self._aliases = aliases
        self._models = models
        self._catalogue = catalogue

    async def point(self, tenant_id: str, name: str, model_id: str, by: str) -> Alias:
        """Point an alias at one of the tenant's models in production, making the alias if there is none.

        Raises:
            Invalid: the name is not allowed, or the model is not in production.
            NotFound: no such model.
        """
        if not ALIAS_NAME.fullmatch(name):
            raise Invalid(
                f"'{name}' cannot be an alias: use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit.",
                param="name",
                code="invalid_alias",
            )
        if self._catalogue.find(name) is not None:
            raise Invalid(f"'{name}' is a base model; choose another alias.", param="name", code="invalid_alias")
        model = await self._models.get(tenant_id, model_id)
        if model.state != "production":
            raise Invalid(
                f"Model {model_id} is {model.state}; an alias points at a model in production.",
                param="model",
                code="model_not_in_production",
            )
        alias = await self._aliases.put(
            Alias.create(tenant_id, name, model_id, by, now()), lambda alias: alias.point(model_id, by, now())
        )
        crash_point("registry.alias_pointed")
        return alias

    async def get(self, tenant_id: str, name: str) -> Alias:
        """The tenant's alias."""
        return await self._aliases.get(tenant_id, name)

    async def select(self, tenant_id: str, *, limit: int, after: str | None, order: str) -> list[Alias]:
        """The tenant's aliases by age."""
        return await self._aliases.select(tenant_id, limit=limit, after=after, order=order)

    async def of(self, tenant_id: str, model_id: str) -> list[str]:
        """The names of the tenant's aliases that point at a model."""
        return sorted(alias.name for alias in await self._aliases.all(tenant_id) if alias.model == model_id)

    async def delete(self, tenant_id: str, name: str) -> Alias:
        """Remove an alias; the model stays."""
        alias = await self._aliases.get(tenant_id, name)
        await self._aliases.delete(alias)
        return alias


Living = Mapping[Proven, list[ReplicaReady]]
"""Replicas by the base that they proved, its id and digest."""


@dataclass(frozen=True)
class Route:
    """A model in production, or a base model; its aliases; and the living replicas that proved all it stands on."""

    model: Model | BaseModelSpec
    aliases: list[str]
    replicas: list[ReplicaReady]


class Serving:
    """What can be asked by whom, and where it is held."""

    def __init__(self, models: Models, aliases: Aliases, replicas: Replicas, catalogue: Catalogue, gate: Gate) -> None:
        self._models = models
        self._aliases = aliases
        self._replicas = replicas
        self._catalogue = catalogue
        self._gate = gate

    async def visible(
        self, tenant_id: str, where: Mapping[str, str]
    ) -> tuple[list[Base], list[Model], list[tuple[Alias, Model]]]:
        """All that may be named in a request: base models, the tenant's models in production, and its aliases of those.

        Args:
            tenant_id: whose.
            where: conditions that the models meet; an alias is for the whole tenant, whosever its model is.
        """
        models = await self._models.in_production(tenant_id)
        by_id = {model.id: model for model in models}
        aliases = await self._aliases.all(tenant_id)
        named = [(alias, by_id[alias.model]) for alias in aliases if alias.model in by_id]
        own = [model for model in models if all(getattr(model, name) == value for name, value in where.items())]
        return self._catalogue.all(), own, named

    async def resolve(self, tenant_id: str, name: str, where: Mapping[str, str]) -> Model | Base:
        """The base model, or the tenant's model in production, that `name` or the alias `name` stands for.

        Raises:
            NotFound: `model_not_found`, saying which of the possible reasons it is.
        """
        return self._catalogue.find(name) or await self.in_production(tenant_id, name, where)

    async def in_production(self, tenant_id: str, name: str, where: Mapping[str, str] | None = None) -> Model:
        """The tenant's model in production that `name` or the alias `name` stands for; see `visible`.

        Raises:
            NotFound: as `resolve`.
        """
        alias = None if name.startswith("ft:") else await self._aliases.find(tenant_id, name)
        model_id = alias.model if alias else name
        model = await self._models.find(tenant_id, model_id, {} if alias else where)
        if model is None:
            raise NotFound(f"The model '{name}' does not exist or is not yours.", code="model_not_found", param="model")
        if model.state != "production":
            through = f"The alias '{name}' points at {model_id}, which" if alias else f"The model '{model_id}'"
            raise NotFound(
                f"{through} is {model.state}, not in production; see GET /v1/registry/models/{model_id}.",
                code="model_not_found",
                param="model",
            )
        return model

    async def refuse_delete_of_others(self, tenant_id: str, name: str) -> None:
        """Check that `name` is something a tenant can delete as a model.

        Raises:
            Forbidden: a base model belongs to the installation.
            Invalid: an alias is deleted elsewhere.
        """
        if self._catalogue.find(name) is not None:
            raise Forbidden(f"'{name}' is a base model of this installation; tenants cannot delete it.")
        if await self._aliases.find(tenant_id, name) is not None:
            raise Invalid(f"'{name}' is an alias. Remove it with DELETE /v1/registry/aliases/{name}.", param="model")

    async def routes(self, tenant_id: str) -> list[Route]:
        """Routes to models in production: the tenant's, or all tenants' where `tenant_id` is empty."""
        models = await self._models.in_production(tenant_id)
        names: dict[tuple[str, str], list[str]] = {}
        for alias in await self._aliases.all(tenant_id):
            names.setdefault((alias.tenant_id, alias.model), []).append(alias.name)
        living = await self._replicas.with_bases(map(_base_of, models))
        return [_route(model, names.get((model.tenant_id, model.id), []), living) for model in models]

    async def route(self, tenant_id: str, name: str) -> Route:
        """The route to a base model with weights here, or to a model in production by name or alias.

        Raises:
            NotFound: as `resolve`; also for a tenant's model where `tenant_id` is empty, as a name means nothing
                without its tenant, and for another provider's.
        """
        if self._catalogue.find(name) is not None:
            base = self._catalogue.weights(name)
            return Route(base, [], await self._replicas.with_base(base.id, base.digest))
        model = await self.in_production(tenant_id, name)
        names = [alias.name for alias in await self._aliases.all(tenant_id) if alias.model == model.id]
        return _route(model, names, await self._replicas.with_bases([_base_of(model)]))

    async def held(self, bases: Iterable[Base]) -> dict[str, int]:
        """By id, how many living replicas answer as each of these base models; without those of another provider."""
        own = {base.id: base.spec.digest for base in bases if isinstance(base.spec, BaseModelSpec)}
        living = await self._replicas.with_bases(own.items())
        return {base_id: len(replicas) for (base_id, _), replicas in living.items()}

    async def version(self, tenant_id: str, model_id: str) -> Route:
        """The route to a model version that is not over, also one that is only tested yet.

        Raises:
            NotFound: the tenant has none of that id.
        """
        model = await self._models.find(tenant_id, model_id)
        if model is None or model.state not in LOADED:
            raise NotFound(f"No version '{model_id}' to be tested.", code="model_not_found", param="model")
        return _route(model, [], await self._replicas.with_bases([_base_of(model)]))

    async def to_load(
        self, tenant_id: str, base_model: str, replica_id: str = "", base_digest: str = "", *, lives: bool = True
    ) -> list[Model]:
        """Models whose adapter a replica of `base_model` must hold.

        Args:
            tenant_id: whose; all tenants' if empty.
            base_model: its id.
            replica_id: who asks.
            base_digest: of its base; see `Replicas.heard`.
            lives: it may be routed to from now on; it may not before it said what it holds no more.
        """
        if replica_id and lives:
            await self._replicas.heard(replica_id, base_model, base_digest)
        models = await self._models.to_load(tenant_id, base_model)
        for model in models:
            if model.waiting_for == "replica" and model.is_held_by(replica_id):
                await self._gate.look_again(model)
        return models


def _base_of(model: Model) -> Proven:
    return model.base_model, model.lineage.base_digest


def _route(model: Model, aliases: list[str], living: Living) -> Route:
    proved_base = {said.replica_id: said for said in living[_base_of(model)]}
    both = [proved_base[one.replica_id] for one in model.replicas if one.replica_id in proved_base]
    return Route(model=model, aliases=sorted(aliases), replicas=both)
