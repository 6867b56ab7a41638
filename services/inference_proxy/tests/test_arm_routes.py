"""When the route of a name leads to an arm, and which events make it lead elsewhere at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from played_arms import as_arm, handing_over
from proxy_harness import BASE, as_route

from chassis.auth import Principal
from chassis.errors import NotFound, Transient
from inference_proxy import routing
from inference_proxy.bases import Base
from inference_proxy.routing import Route, RouteTable
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
from testkit.base_models import base_spec
from testkit.stub_peer import StubPeer

TENANT, NAME, ALIAS = "tenant_a", f"ft:{BASE}:acme::1a2b3c4d", "intents"
ADAPTER = as_route(NAME, TENANT, "ad-1", [{"replica_id": "r1", "replica_url": "http://r1"}])
ARM = as_arm(ADAPTER)
ME = Principal(tenant_id=TENANT, key_id="key_1")
IDS = {"tenant_id": TENANT, "job_id": "ftjob-1", "base_model": BASE, "decided_by": "gate"}


@dataclass
class Registry(StubPeer):
    """Tells one route by every name, and keeps how often it is asked."""

    told: dict[str, Any] | None
    away: bool = False
    asked: list[str] = field(default_factory=list)

    async def get(self, path: str, *ids: str, **options: Any) -> dict[str, Any]:
        self.asked.append(f"{'version ' if path == '/internal/versions/{}' else ''}{ids[0]}")
        if self.away:
            raise Transient("it is away")
        if self.told is None:
            raise NotFound("no such model")
        return self.told


class Bases:
    async def get(self, model: str, _tenant_id: str, **_: Any) -> Base:
        if model != BASE:
            raise NotFound("no such base")
        return Base(base_spec(BASE))


def table(registry: Registry) -> RouteTable:
    return RouteTable(registry, Bases())  # type: ignore[arg-type]


async def answers_by(routes: RouteTable, name: str = NAME) -> str | None:
    return (await routes.find(ME, name)).answers_by


def promoted(**more: str) -> ModelPromoted:
    return ModelPromoted(**{**IDS, "model_id": NAME, "adapter_id": "ad-1", **more})


def evicted() -> AdapterEvicted:
    return AdapterEvicted(tenant_id=TENANT, adapter_id="ad-1", replica_id="r1")


async def test_an_arm_is_asked_with_what_is_known_of_it_and_by_whom() -> None:
    routes = table(Registry(ARM))
    for route, testing in ((await routes.find(ME, NAME), False), (await routes.version(ME, f"{NAME}@head"), True)):
        target = routes.pick(route)
        assert (target.kind, target.adapter_id, target.tenant_id) == ("arm", ARM["adapter_id"], TENANT)
        assert target.arm is not None
        assert (target.arm.model_dump(), target.testing) == ({**ARM["arm"], "generates": False}, testing)
        assert route.fingerprint == ARM["adapter_id"]
        assert routes.instead(route, target) is None


async def test_a_promoted_adapter_is_asked_for_at_once_by_the_name_and_by_its_aliases() -> None:
    registry = Registry(ARM)
    routes = table(registry)
    for name in (NAME, ALIAS):
        assert await answers_by(routes, name) == "head"
    registry.told = ADAPTER
    await routes.on_change(promoted())
    for name in (NAME, ALIAS):
        assert await answers_by(routes, name) == "adapter"
    assert registry.asked == [NAME, ALIAS] * 2


async def test_a_pinned_arm_answers_after_the_promotion_of_the_adapter_and_the_adapter_once_it_is_unpinned() -> None:
    registry = Registry({**ARM, "stands_in": False})
    routes = table(registry)
    pins = {"tenant_id": TENANT, "job_id": "ftjob-1", "model_id": f"{NAME}@head", "name": NAME, "arm": "head"}
    for name in (NAME, ALIAS):
        assert await answers_by(routes, name) == "head"
    for event in (ModelPinned(**pins, decided_by="user_1", revision=1), promoted()):
        await routes.on_change(event)
        for name in (NAME, ALIAS):
            assert await answers_by(routes, name) == "head"
    registry.told = ADAPTER
    assert await answers_by(routes) == "head", "what was told is believed until an event says so"
    await routes.on_change(ModelUnpinned(**pins, decided_by="user_1", revision=2))
    for name in (NAME, ALIAS):
        assert await answers_by(routes, name) == "adapter"
    assert registry.asked == [NAME, ALIAS] * 4


@pytest.mark.parametrize("of", ["adapter", "head"])
async def test_what_a_person_pins_is_asked_at_once(of: str) -> None:
    registry = Registry(ARM if of == "adapter" else ADAPTER)
    routes = table(registry)
    await answers_by(routes)
    registry.told = ADAPTER if of == "adapter" else ARM
    version = {"model_id": NAME} if of == "adapter" else {"model_id": f"{NAME}@head", "arm": "head"}
    ids = {"tenant_id": TENANT, "job_id": "ftjob-1", "name": NAME, "decided_by": "user_1", "revision": 1}
    await routes.on_change(ModelPinned(**{**ids, **version, "tenant_id": "tenant_b"}))
    assert await answers_by(routes) != of
    await routes.on_change(ModelPinned(**ids, **version))
    assert await answers_by(routes) == of


async def test_a_promoted_arm_is_asked_for_where_no_replica_holds_the_adapter() -> None:
    registry = Registry({**ADAPTER, "replicas": []})
    routes = table(registry)
    with pytest.raises(Transient, match="being loaded"):
        await answers_by(routes)
    registry.told = ARM
    await routes.on_change(promoted(model_id=f"{NAME}@head", adapter_id=ARM["adapter_id"], name=NAME, arm="head"))
    assert await answers_by(routes) == "head"


async def test_an_adapter_that_is_held_again_takes_the_name_back_from_its_arm() -> None:
    registry = Registry(ADAPTER)
    routes = table(registry)
    assert await answers_by(routes) == "adapter"
    registry.told = ARM
    await routes.on_change(evicted())
    assert await answers_by(routes) == "head", "that no replica was left is believed"
    registry.told = ADAPTER
    held = {"replica_id": "r1", "replica_url": "http://r1", "fingerprint_delta": 0.0, "base_delta": 1.0}
    await routes.on_change(AdapterResident(tenant_id=TENANT, adapter_id="ad-1", model_id=NAME, **held))
    assert await answers_by(routes) == "adapter"


@pytest.mark.parametrize("over", [ModelRetired, ModelRejected])
async def test_an_arm_that_is_over_is_asked_no_more_also_while_the_registry_is_away(over: type[Any]) -> None:
    registry = Registry(ARM)
    routes = table(registry)
    for ask in (routes.find, routes.version):
        await ask(ME, NAME)
    registry.away = True
    ids = {"tenant_id": TENANT, "model_id": f"{NAME}@head", "adapter_id": ARM["adapter_id"], "arm": "head"}
    await routes.on_change(over(**ids, **({} if over is ModelRetired else {"job_id": "j", "reason": "deleted"})))
    for ask in (routes.find, routes.version):
        with pytest.raises(Transient, match="away"):
            await ask(ME, NAME)


async def test_an_arm_that_may_have_been_replaced_answers_while_the_registry_is_away() -> None:
    registry = Registry(ARM)
    routes = table(registry)
    await answers_by(routes)
    registry.away = True
    await routes.on_change(promoted())
    assert await answers_by(routes) == "head"
    registry.away = False


REPLACED = ReplicaReady(
    tenant_id="", replica_id="r2", replica_url="http://r1", engine="tgi", base_model="other", base_digest="e" * 64
)


@pytest.mark.parametrize(
    "over",
    [evicted(), ModelRetired(tenant_id=TENANT, model_id=NAME, job_id="j", adapter_id="ad-1", reason="over"), REPLACED],
    ids=lambda event: event.type,
)
async def test_who_holds_the_next_no_more_is_asked_no_more_also_while_the_registry_is_away(over: Any) -> None:
    registry = Registry(handing_over(ARM, 0.5, "ad-1", ADAPTER["replicas"]))
    routes = table(registry)
    before = (await routes.find(ME, NAME)).hand_over
    assert before is not None
    assert before.to is not None
    assert (before.below, before.to.answers_by, list(before.to.replicas)) == (0.5, "adapter", ["r1"])
    registry.away = True
    await (routes.on_replica_ready if over is REPLACED else routes.on_change)(over)
    route = await routes.find(ME, NAME)
    assert route.answers_by == "head", "the arm goes on"
    assert route.hand_over is not None
    assert route.hand_over.to is not None
    assert route.hand_over.to.replicas == {}


async def test_events_of_other_names_and_of_other_tenants_ask_nothing() -> None:
    registry = Registry(ARM)
    routes = table(registry)
    await answers_by(routes)
    await routes.on_change(promoted(tenant_id="tenant_b"))
    await routes.on_change(promoted(model_id=f"{NAME[:-1]}e", adapter_id="ad-2"))
    await routes.on_change(evicted())
    await routes.on_change(ModelRetired(tenant_id=TENANT, model_id=NAME, adapter_id="ad-1"))
    await answers_by(routes)
    assert registry.asked == [NAME]


@pytest.mark.parametrize("way", ["instead", "missed"])
async def test_a_route_by_which_nobody_answers_is_believed_a_moment_only(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "EMPTY_SECONDS", 0.0)
    registry = Registry(ADAPTER)
    routes = table(registry)
    route = await routes.find(ME, NAME)
    registry.told = ARM

    def fail(route: Route) -> None:
        if way == "missed":
            routes.missed(route)
        else:
            assert routes.instead(route, routes.pick(route)) is None

    fail(route)
    assert await answers_by(routes) == "head"
