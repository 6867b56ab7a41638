"""Which adapter, on which replica, answers for a model of a tenant. What is not proven is never served."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from chassis.auth import Principal
from chassis.believed import Believed
from chassis.errors import NotFound, Transient
from chassis.peers import Peer
from inference_proxy.bases import ArmBase, Base, Bases, ProviderBase
from inference_proxy.engines import ModelLoading, Target
from schemas import (
    AdapterEvicted,
    AdapterResident,
    ModelPinned,
    ModelPromoted,
    ModelRejected,
    ModelRetired,
    ModelUnpinned,
    ReplicaReady,
)
from schemas.artifacts import Provider
from schemas.http.registry import ArmRoute, HandOverRoute, ModelRoute, RouteReplica

log = structlog.get_logger()

BELIEVED_SECONDS = 10.0
STALE_SECONDS = 600.0
AVOIDED_SECONDS = 5.0
"""How long a replica that failed is not asked where others of a route answer too."""

EMPTY_SECONDS = 1.0
"""How long it is believed that nobody answers for a model: not asked of the registry at each request, and soon over."""

ARM_HOLDER = RouteReplica(replica_id="", replica_url="", engine="arm")
"""Who answers for every arm; its engine knows where."""

Change = ModelPromoted | ModelPinned | ModelUnpinned | ModelRejected | ModelRetired | AdapterResident | AdapterEvicted
"""What may lead a model's requests elsewhere."""

Key = tuple[str, str, Literal["production", "version"]]
"""A tenant, the name a model is asked for by, and what that name may stand for."""


@dataclass(frozen=True)
class HandOver:
    """When an arm leaves an answer to the next.

    Attributes:
        below: it does where it is less sure than this.
        to: the route to the adapter of its name; None where none is in production, and the base model is the next.
    """

    below: float
    to: Route | None


@dataclass(frozen=True)
class Route:
    """A model with what answers for it.

    Attributes:
        model: the name it was asked for by.
        adapter_id: of the adapter, or of the arm that answers in its place; None for a base model.
        replicas: by name, those that proved they hold the base, and the adapter if there is one; or who holds an arm
            that answers itself.
        base_digest: of the base model's files; empty for a provider's.
        owner: whose model it is among the tenant's people.
        provider: how the base model's provider is asked, where it is not served by us.
        name: the model's own, where it was asked for by an alias too.
        tenant_id: who asks.
        testing: whether a test asks.
        arm: what is known of the arm, where one answers.
        stands_in: whether it does only until a replica holds the adapter.
        hand_over: of an arm that leaves to the next what it is unsure of.
    """

    model: str
    base_id: str
    adapter_id: str | None
    replicas: Mapping[str, RouteReplica]
    base_digest: str = ""
    owner: str = ""
    provider: Provider | None = None
    name: str = ""
    tenant_id: str = ""
    testing: bool = False
    arm: ArmRoute | None = None
    stands_in: bool = False
    hand_over: HandOver | None = None

    @property
    def answers_by(self) -> str | None:
        """The kind of what a tenant's model answers by; None for a base model."""
        return self.arm.kind if self.arm else "adapter" if self.adapter_id else None

    @property
    def generates(self) -> bool:
        """Whether it is an arm by which the base model answers."""
        return self.arm is not None and self.arm.generates

    @property
    def both(self) -> list[Route]:
        """It, and the one to the adapter that its arm hands over to."""
        return [self, *([self.hand_over.to] if self.hand_over and self.hand_over.to else [])]

    @property
    def fingerprint(self) -> str:
        """Names the weights that answer; echoed as `system_fingerprint`."""
        return self.adapter_id or f"base-{self.base_id}"

    def without(self, replica_id: str) -> Route | None:
        """What is left of it without a replica; None if nobody is."""
        left = {name: replica for name, replica in self.replicas.items() if name != replica_id}
        return replace(self, replicas=left) if left else None

    def agree(self, base: Base | ProviderBase | ArmBase) -> None:
        """Refuse where route and base, which are believed apart, are not of one engine: it would be sent nothing.

        Raises:
            BaseReplaced: they are not.
        """
        there, here = ((one.kind if one else None) for one in (self.provider, base.provider))
        if there != here:
            log.error("base_model_replaced", base_model=self.base_id, model=self.model, route=there, base=here)
            raise BaseReplaced(self.base_id)


class BaseReplaced(Transient):
    """A base model's folder holds another kind of model than what was routed on it."""

    def __init__(self, base_id: str) -> None:
        super().__init__(
            f"The base model '{base_id}' was replaced by one of another kind. A model that was fine-tuned on it "
            "answers when the former is back; try the base model itself again shortly.",
            code="base_model_replaced",
            retry_after=BELIEVED_SECONDS,
        )


class RouteTable:
    """Routes as the registry tells them, believed for seconds and forgotten when an event says so.

    Args:
        registry: the source of truth.
        bases: base models, which every tenant may use.
        stale_seconds: how long a route is believed while the registry cannot be asked.
    """

    def __init__(self, registry: Peer, bases: Bases, stale_seconds: float = STALE_SECONDS) -> None:
        self._registry = registry
        self._bases = bases
        self._known: Believed[Key, Route] = Believed(BELIEVED_SECONDS, stale_seconds)
        self._turn = 0
        self._avoided: dict[str, float] = {}

    async def find(self, principal: Principal, model: str) -> Route:
        """The route to one of the caller's models, an alias of the tenant, or a base model.

        Raises:
            NotFound: no such model for this caller; never answered by a base model instead.
            ModelLoading: the model is in production but no replica holds it at the moment.
        """
        key: Key = (principal.tenant_id, model, "production")
        route = await self._known.get(key, lambda deadline: self._ask(key, deadline))
        if model.startswith("ft:") and principal.only.get("owner", route.owner) != route.owner:
            raise _not_found(model)
        return self._held(key, route)

    async def version(self, principal: Principal, model: str) -> Route:
        """The route to a base model, or to any version of the tenant's that is not over: who tests it may ask it.

        Raises:
            NotFound, ModelLoading: as `find`.
        """
        key: Key = (principal.tenant_id, model, "version")
        return self._held(key, await self._known.get(key, lambda deadline: self._ask(key, deadline)))

    def _held(self, key: Key, route: Route) -> Route:
        if not route.replicas:
            self._known.shorten(key, EMPTY_SECONDS)
            raise ModelLoading
        return route

    def pick(self, route: Route) -> Target:
        """The model on one of the route's replicas, in turn, but for those that failed just now."""
        self._turn += 1
        now = time.monotonic()
        replicas = [one for one in route.replicas.values() if self._avoided.get(one.replica_id, 0.0) <= now]
        replicas = replicas or list(route.replicas.values())
        replica = replicas[self._turn % len(replicas)]
        return Target(
            base_id=route.base_id,
            url=replica.replica_url.rstrip("/"),
            adapter_id=None if route.generates else route.adapter_id,
            provider=route.provider,
            kind=replica.engine,
            base_digest=route.base_digest,
            echoes="echo" in replica.capabilities,
            replica_id=replica.replica_id,
            arm=route.arm,
            tenant_id=route.tenant_id,
            testing=route.testing,
        )

    def instead(self, route: Route, failed: Target) -> Target | None:
        """The model on another of its replicas than one that failed, which is avoided for a while; None: no other.

        Where there is no other the registry is asked again soon: an arm may answer meanwhile.
        """
        now = time.monotonic()
        self._avoided = {name: until for name, until in self._avoided.items() if until > now}
        self._avoided[failed.replica_id] = now + AVOIDED_SECONDS
        left = route.without(failed.replica_id)
        if left is None:
            self.missed(route)
            return None
        return self.pick(left)

    def missed(self, route: Route) -> None:
        """Nobody answered by a route: it is not believed much longer."""
        self._known.shorten((route.tenant_id, route.model, "version" if route.testing else "production"), EMPTY_SECONDS)

    async def _ask(self, key: Key, deadline: float | None) -> Route:
        tenant_id, model, stage = key
        base = None
        if not model.startswith("ft:"):
            with contextlib.suppress(NotFound):
                base = await self._bases.get(model, tenant_id, timeout=deadline)
        if base and base.provider:
            there = RouteReplica(replica_id="", replica_url=base.provider.url, engine=base.provider.kind)
            return Route(model, base.id, None, {"": there}, provider=base.provider)
        try:
            path = "/internal/routes/{}" if base or stage == "production" else "/internal/versions/{}"
            told = await self._registry.read(ModelRoute, path, model, tenant_id=tenant_id, timeout=deadline)
        except NotFound as error:
            raise _not_found(model) from error
        if told.tenant_id != ("" if base else tenant_id) or bool(told.adapter_id) == bool(base):
            raise _not_found(model)
        route = Route(
            model,
            told.base_model,
            told.adapter_id or None,
            _by_id([ARM_HOLDER] if told.arm and not told.arm.generates else told.replicas),
            base_digest=told.base_digest,
            owner=told.owner,
            name=told.model,
            tenant_id=tenant_id,
            testing=stage == "version",
            arm=told.arm,
            stands_in=told.stands_in,
        )
        return replace(route, hand_over=_hand_over(route, told.hand_over)) if told.hand_over else route

    async def on_change(self, event: Change) -> None:
        """The next request asks again; what serves an adapter no more is asked no more, from now on.

        What is promoted, pinned, pinned no more, or held now, may take the place of what answers for its name; and
        another is the next for its arm where the one that was is over.
        """
        if isinstance(event, (ModelRejected, ModelRetired, AdapterEvicted)):
            self._known.revise(lambda _key, route: _left(route, lambda one: _left_of(one, event)))
            self._known.doubt(lambda _key, route: event.adapter_id in [one.adapter_id for one in route.both[1:]])
        else:
            name = "" if isinstance(event, AdapterResident) else event.name
            named = (event.tenant_id, name or event.model_id)
            self._known.doubt(lambda _key, route: named == (route.tenant_id, route.name))

    async def on_replica_ready(self, event: ReplicaReady) -> None:
        """It is asked no more for models of another base, and nobody else at its address; the next request asks again.

        Who was there before may have held adapters that it lacks.
        """
        self._known.revise(lambda _key, route: _left(route, lambda one: _left_beside(one, event)))
        self._known.doubt(lambda _key, route: any(one.base_digest == event.base_digest for one in route.both))


def arm_of(route: Route) -> Target:
    """Who is asked for the rows that the base model of a route is shown."""
    return Target(
        base_id=route.base_id,
        url=ARM_HOLDER.replica_url,
        adapter_id=route.adapter_id,
        kind=ARM_HOLDER.engine,
        arm=route.arm,
        tenant_id=route.tenant_id,
        testing=route.testing,
    )


def _by_id(replicas: Iterable[RouteReplica]) -> dict[str, RouteReplica]:
    return {replica.replica_id: replica for replica in replicas}


def _hand_over(route: Route, told: HandOverRoute) -> HandOver:
    """What the arm of a route does where it is unsure."""
    if not told.adapter_id:
        return HandOver(told.below, None)
    replicas = _by_id(told.replicas)
    to = replace(route, adapter_id=told.adapter_id, base_digest=told.base_digest, replicas=replicas, arm=None)
    return HandOver(told.below, to)


def _left(route: Route, leave: Callable[[Route], Route | None]) -> Route | None:
    """What is left of a route, and of the next that its arm hands over to: an arm answers though the next is away."""
    left, hand_over = leave(route), route.hand_over
    if left is None or hand_over is None or hand_over.to is None:
        return left
    to = leave(hand_over.to) or replace(hand_over.to, replicas={})
    return replace(left, hand_over=replace(hand_over, to=to))


def _left_of(route: Route, event: ModelRejected | ModelRetired | AdapterEvicted) -> Route | None:
    if route.adapter_id != event.adapter_id:
        return route
    return route.without(event.replica_id) if isinstance(event, AdapterEvicted) else None


def _left_beside(route: Route, event: ReplicaReady) -> Route | None:
    same_base, url = route.base_digest == event.base_digest, event.replica_url.rstrip("/")
    left: Route | None = route
    for name, replica in route.replicas.items():
        stays = same_base if name == event.replica_id else replica.replica_url.rstrip("/") != url
        if left and not stays:
            left = left.without(name)
    return left


def _not_found(model: str) -> NotFound:
    return NotFound(
        f"The model `{model[:200]}` does not exist or you do not have access to it.",
        code="model_not_found",
        param="model",
    )
