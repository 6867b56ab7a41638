"""Tells what is served under which name, and where it is held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from chassis.errors import Forbidden, Invalid, NotFound
from registry.alias import Alias
from registry.catalogue import Base, Catalogue
from registry.domain import LOADED, Model, hands_over_below, is_pinned, is_version_id, name_of, pins_of
from registry.store import Aliases, Models, Proven, Replicas
from registry.use_cases.gate import Gate
from schemas import ReplicaReady
from schemas.artifacts import BaseModelSpec

Living = Mapping[Proven, list[ReplicaReady]]
"""Replicas by the base that they proved, its id and digest."""


@dataclass(frozen=True)
class HandOver:
    """What a pinned arm does where it is unsure.

    Attributes:
        below: the confidence below which it leaves the answer to the next.
        adapter: the one of its name in production, which is the next; None: the base model is.
        replicas: the living ones that proved to hold that adapter.
    """

    below: float
    adapter: Model | None
    replicas: list[ReplicaReady]


@dataclass(frozen=True)
class Route:
    """A model in production, or a base model; its aliases; and the living replicas that proved all it stands on.

    Attributes:
        stands_in: whether it is an arm that answers while no replica holds the adapter of its name, and only so long.
        hand_over: of an arm that leaves to the next what it is unsure of.
    """

    model: Model | BaseModelSpec
    aliases: list[str]
    replicas: list[ReplicaReady]
    stands_in: bool = False
    hand_over: HandOver | None = None


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

        A name is listed once, whichever of its versions serve.

        Args:
            tenant_id: whose.
            where: conditions that the models meet; an alias is for the whole tenant, whosever its model is.
        """
        versions = by_name(await self._models.in_production(tenant_id))
        models = {name: serving[0] for (_, name), serving in versions.items()}
        aliases = await self._aliases.all(tenant_id)
        named = [(alias, models[alias.model]) for alias in aliases if alias.model in models]
        own = [
            model for model in models.values() if all(getattr(model, name) == value for name, value in where.items())
        ]
        return self._catalogue.all(), own, named

    async def resolve(self, tenant_id: str, name: str, where: Mapping[str, str]) -> Model | Base:
        """The base model, or the tenant's model in production, that `name` or the alias `name` stands for.

        Raises:
            NotFound: `model_not_found`, saying which of the possible reasons it is.
        """
        return self._catalogue.find(name) or (await self.in_production(tenant_id, name, where))[0]

    async def in_production(self, tenant_id: str, name: str, where: Mapping[str, str] | None = None) -> list[Model]:
        """The tenant's versions in production that `name` or the alias `name` stands for, the adapter first.

        Raises:
            NotFound: as `resolve`.
        """
        alias = None if name.startswith("ft:") else await self._aliases.find(tenant_id, name)
        model_id = alias.model if alias else name
        if is_version_id(model_id):
            raise NotFound(
                f"'{name}' is one version of a model, and models are asked by name: '{name_of(model_id)}'.",
                code="model_not_found",
                param="model",
            )
        found = await self._models.named(tenant_id, model_id, {} if alias else where)
        if not found:
            raise NotFound(f"The model '{name}' does not exist or is not yours.", code="model_not_found", param="model")
        serving = [model for model in found if model.state == "production"]
        if not serving:
            through = f"The alias '{name}' points at {model_id}, which" if alias else f"The model '{model_id}'"
            state = min(found, key=_adapter_first).state
            raise NotFound(
                f"{through} is {state}, not in production; see GET /v1/registry/models/{model_id}.",
                code="model_not_found",
                param="model",
            )
        return sorted(serving, key=_adapter_first)

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
        living = await self._living(models)
        return [_route_of(versions, names.get(key, []), living) for key, versions in by_name(models).items()]

    async def route(self, tenant_id: str, name: str) -> Route:
        """The route to a base model with weights here, or to a model in production by name or alias.

        Raises:
            NotFound: as `resolve`; also for a tenant's model where `tenant_id` is empty, as a name means nothing
                without its tenant, and for another provider's.
        """
        if self._catalogue.find(name) is not None:
            base = self._catalogue.weights(name)
            return Route(base, [], await self._replicas.with_base(base.id, base.digest))
        versions = await self.in_production(tenant_id, name)
        living = await self._living(versions)
        names = [alias.name for alias in await self._aliases.all(tenant_id) if alias.model == versions[0].name]
        return _route_of(versions, names, living)

    async def arms(self, tenant_id: str, name: str) -> list[Route]:
        """The arms of this name that are in production, whether or not one serves it, or wait for their evaluation."""
        found = [model for model in await self._models.serving(tenant_id, [name]) if model.arm]
        found += await self._models.untested_arms(tenant_id, name)
        return [_route(model, [], await self._living([model])) for model in found]

    async def serves(self, tenant_id: str, models: Iterable[Model]) -> set[str]:
        """Ids of the versions that answer at the moment who asks by the names of these models."""
        asked = {model.name for model in models if model.state == "production"}
        versions = await self._models.serving(tenant_id, asked) if asked else []
        living = await self._living(versions)
        return {who_serves(one, living).id for one in by_name(versions).values()}

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
        return _route(model, [], await self._living([model]))

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

    async def _living(self, models: Iterable[Model]) -> Living:
        """The living replicas that proved what these models stand on; an arm stands on none, unless it generates."""
        standing = [model for model in models if model.arm is None or model.generates]
        return await self._replicas.with_bases([_base_of(model) for model in standing])


def by_name(models: Iterable[Model]) -> dict[tuple[str, str], list[Model]]:
    """Versions by tenant and name, in their order, the adapter first of its name."""
    found: dict[tuple[str, str], list[Model]] = {}
    for model in models:
        found.setdefault((model.tenant_id, model.name), []).append(model)
    return {key: sorted(versions, key=_adapter_first) for key, versions in found.items()}


def who_serves(versions: list[Model], living: Living) -> Model:
    """Of a name's versions in production, the adapter first, the one that answers.

    The one that a person pinned does; else the adapter, but while no living replica holds it and there is an arm.
    """
    if pinned := pins_of(versions):
        return pinned[-1]
    first, *others = versions
    return others[0] if others and not _holders(first, living) else first


def _adapter_first(model: Model) -> bool:
    return model.arm is not None


def _base_of(model: Model) -> Proven:
    return model.base_model, model.lineage.base_digest


def _holders(model: Model, living: Living) -> list[ReplicaReady]:
    """The living replicas that proved the model's base and its adapter; of an arm its base, if it generates."""
    if model.generates:
        return list(living[_base_of(model)])
    if model.arm is not None:
        return []
    proved_base = {said.replica_id: said for said in living[_base_of(model)]}
    return [proved_base[one.replica_id] for one in model.replicas if one.replica_id in proved_base]


def _route_of(versions: list[Model], aliases: list[str], living: Living) -> Route:
    """The route to a name by its versions in production, the adapter first."""
    serving = who_serves(versions, living)
    stands_in = serving is not versions[0] and not is_pinned(serving)
    hand_over = _hand_over(serving, versions[0], living)
    return replace(_route(serving, aliases, living), stands_in=stands_in, hand_over=hand_over)


def _hand_over(serving: Model, first: Model, living: Living) -> HandOver | None:
    """To whom the version that serves hands over, of a name whose first version in production is its adapter's."""
    below = hands_over_below(serving)
    if below is None:
        return None
    adapter = None if first.arm else first
    return HandOver(below, adapter, _holders(first, living))


def _route(model: Model, aliases: list[str], living: Living) -> Route:
    return Route(model=model, aliases=sorted(aliases), replicas=_holders(model, living))
