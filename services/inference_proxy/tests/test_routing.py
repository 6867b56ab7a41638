"""Which replicas are asked, and how often the registry is, as events come."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.auth import Principal
from chassis.errors import NotFound, Transient
from inference_proxy import routing
from inference_proxy.bases import Base, ProviderBase
from inference_proxy.routing import BaseReplaced, Route, RouteTable
from schemas import AdapterEvicted, AdapterResident, ModelRetired, ReplicaReady
from schemas.artifacts import ProviderModelSpec
from testkit.base_models import base_spec
from testkit.stub_peer import StubPeer

TENANT, MODEL, ADAPTER, DIGEST = "tenant_a", "ft:tiny:a", "ad-1", "d" * 64
ME = Principal(tenant_id=TENANT, key_id="key_1")


@dataclass
class StubPeers:
    """The registry and the base models: what they tell, and how often they are asked."""

    replicas: dict[str, list[str]] = field(default_factory=lambda: {MODEL: ["r1", "r2"], "tiny": ["r1"]})
    asked: list[str] = field(default_factory=list)

    def table(self) -> RouteTable:
        registry, bases = Registry(self), Bases(self)
        return RouteTable(registry, bases)  # type: ignore[arg-type]


@dataclass
class Registry(StubPeer):
    stubs: StubPeers

    async def get(self, path: str, *ids: str, tenant_id: str, **options: Any) -> dict[str, Any]:
        [model] = ids
        self.stubs.asked.append(model if path == "/internal/routes/{}" else f"version {model}")
        held = [{"replica_id": name, "replica_url": f"http://{name}/"} for name in self.stubs.replicas[model]]
        base = {"base_model": "tiny", "base_digest": DIGEST, "state": "production", "replicas": held}
        names = {"model": model, "aliases": [], "owner": ""}
        if model == "tiny":
            return {**names, **base, "tenant_id": "", "adapter_id": ""}
        return {**names, **base, "tenant_id": tenant_id, "adapter_id": ADAPTER}


@dataclass
class Bases:
    stubs: StubPeers

    async def get(self, model: str, _tenant_id: str, **_: Any) -> Base:
        if model != "tiny":
            raise NotFound("no such base")
        return Base(base_spec("tiny"))


def urls(table: RouteTable, route: Route) -> set[str]:
    return {table.pick(route).url for _ in range(4)}


def evicted(replica_id: str) -> AdapterEvicted:
    return AdapterEvicted(tenant_id=TENANT, adapter_id=ADAPTER, replica_id=replica_id)


async def test_a_replica_without_the_adapter_is_asked_no_more_and_the_others_are() -> None:
    stubs = StubPeers()
    table = stubs.table()
    assert urls(table, await table.find(ME, MODEL)) == {"http://r1", "http://r2"}
    await table.on_change(evicted("r1"))
    assert urls(table, await table.find(ME, MODEL)) == {"http://r2"}
    await table.on_change(evicted("r9"))
    assert urls(table, await table.find(ME, MODEL)) == {"http://r2"}
    assert stubs.asked == [MODEL]
    stubs.replicas[MODEL] = []
    await table.on_change(evicted("r2"))
    with pytest.raises(Transient, match="being loaded"):
        await table.find(ME, MODEL)


async def test_a_replica_more_is_asked_for_and_a_model_that_ended_is_forgotten() -> None:
    stubs = StubPeers({MODEL: ["r1"]})
    table = stubs.table()
    await table.find(ME, MODEL)
    stubs.replicas[MODEL] = ["r1", "r3"]
    resident = {"replica_id": "r3", "replica_url": "http://r3", "fingerprint_delta": 0.0, "base_delta": 1.0}
    await table.on_change(AdapterResident(tenant_id=TENANT, adapter_id=ADAPTER, model_id=MODEL, **resident))
    assert urls(table, await table.find(ME, MODEL)) == {"http://r1", "http://r3"}
    await table.on_change(ModelRetired(tenant_id=TENANT, adapter_id=ADAPTER, model_id=MODEL))
    await table.find(ME, MODEL)
    assert stubs.asked == [MODEL] * 3


async def test_no_event_of_an_adapter_makes_a_base_be_asked_for() -> None:
    stubs = StubPeers()
    table = stubs.table()
    for event in (evicted("r1"), ModelRetired(tenant_id=TENANT, adapter_id=ADAPTER, model_id=MODEL)):
        await table.find(ME, "tiny")
        await table.on_change(event)
    await table.find(ME, "tiny")
    assert stubs.asked == ["tiny"]


async def test_a_route_to_a_provider_does_not_fit_a_base_that_has_weights_now() -> None:
    spec = {"id": "tiny", "engine": {"kind": "openai", "url": "http://far/v1", "model": "m"}, "context_length": 9}
    far, here = ProviderBase(ProviderModelSpec.model_validate(spec)), Base(base_spec("tiny"))
    to_provider, to_us = Route("tiny", "tiny", None, {}, provider=far.provider), Route("tiny", "tiny", None, {})
    to_provider.agree(far)
    to_us.agree(here)
    for route, base in ((to_provider, here), (to_us, far)):
        with pytest.raises(BaseReplaced, match="'tiny' was replaced"):
            route.agree(base)


async def test_what_is_known_of_a_version_is_never_told_of_what_is_served() -> None:
    stubs = StubPeers()
    table = stubs.table()
    for _ in range(2):
        await table.version(ME, MODEL)
        await table.find(ME, MODEL)
    assert stubs.asked == [f"version {MODEL}", MODEL]
    await table.on_change(evicted("r1"))
    assert urls(table, await table.version(ME, MODEL)) == {"http://r2"}
    stubs.replicas[MODEL] = []
    await table.on_change(evicted("r2"))
    with pytest.raises(Transient, match="being loaded"):
        await table.version(ME, MODEL)


def ready(replica_id: str, digest: str = DIGEST, url: str = "") -> ReplicaReady:
    facts = {"replica_id": replica_id, "replica_url": url or f"http://{replica_id}", "engine": "tgi"}
    return ReplicaReady(tenant_id="", base_model="tiny", base_digest=digest, **facts)


async def test_a_replica_that_has_another_base_now_is_asked_no_more() -> None:
    stubs = StubPeers({MODEL: ["r1", "r2"], "tiny": ["r1", "r2"]})
    table = stubs.table()
    for model in (MODEL, "tiny"):
        assert urls(table, await table.find(ME, model)) == {"http://r1", "http://r2"}
    await table.on_replica_ready(ready("r1", "e" * 64))
    for model in (MODEL, "tiny"):
        assert urls(table, await table.find(ME, model)) == {"http://r2"}
    assert stubs.asked == [MODEL, "tiny"]


@pytest.mark.parametrize("digest", ["e" * 64, DIGEST])
async def test_who_had_the_address_of_a_new_replica_is_asked_no_more(digest: str) -> None:
    """It may lack the adapters that the one before had, and an engine that cannot echo answers with its base then."""
    stubs = StubPeers()
    table = stubs.table()
    await table.find(ME, MODEL)
    stubs.replicas[MODEL] = ["r2"]
    await table.on_replica_ready(ready("new", digest, "http://r1"))
    assert urls(table, await table.find(ME, MODEL)) == {"http://r2"}
    await table.on_replica_ready(ready("newer", digest, "http://r2/"))
    stubs.replicas[MODEL] = []
    with pytest.raises(Transient, match="being loaded"):
        await table.find(ME, MODEL)


@pytest.mark.parametrize("news", ["ready", "resident"])
async def test_that_nobody_answers_is_asked_once_a_second_and_over_with_the_first_that_does(
    news: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs = StubPeers({MODEL: []})
    table = stubs.table()

    async def ask() -> None:
        with pytest.raises(Transient, match="being loaded"):
            await table.find(ME, MODEL)

    for _ in range(5):
        await ask()
    assert stubs.asked == [MODEL]
    stubs.replicas[MODEL] = ["r1"]
    resident = {"replica_id": "r1", "replica_url": "http://r1", "fingerprint_delta": 0.0, "base_delta": 1.0}
    if news == "ready":
        await table.on_replica_ready(ready("r1"))
    else:
        await table.on_change(AdapterResident(tenant_id=TENANT, adapter_id=ADAPTER, model_id=MODEL, **resident))
    assert urls(table, await table.find(ME, MODEL)) == {"http://r1"}
    stubs.replicas[MODEL] = []
    await table.on_change(evicted("r1"))
    await ask()
    stubs.replicas[MODEL] = ["r1"]
    monkeypatch.setattr(routing, "EMPTY_SECONDS", 0.0)
    await ask()
    assert urls(table, await table.find(ME, MODEL)) == {"http://r1"}


async def test_a_replica_more_of_a_base_is_asked_for_and_one_less_is_no_other_base() -> None:
    stubs = StubPeers({"tiny": ["r1"]})
    table = stubs.table()
    await table.find(ME, "tiny")
    stubs.replicas["tiny"] = ["r1", "r3"]
    await table.on_replica_ready(ready("r3"))
    assert urls(table, await table.find(ME, "tiny")) == {"http://r1", "http://r3"}
    stubs.replicas["tiny"] = []
    await table.on_replica_ready(ready("r3"))
    with pytest.raises(Transient, match="being loaded"):
        await table.find(ME, "tiny")
    stubs.replicas["tiny"] = ["r1"]
    await table.on_replica_ready(ready("r1"))
    assert urls(table, await table.find(ME, "tiny")) == {"http://r1"}


async def test_a_base_is_no_answer_to_who_asks_for_a_model_of_theirs() -> None:
    class Wrong(Registry):
        async def get(self, path: str, *ids: str, tenant_id: str, **options: Any) -> dict[str, Any]:
            told = await super().get(path, *ids, tenant_id=tenant_id, **options)
            return {**told, "tenant_id": "", "adapter_id": ""}

    stubs = StubPeers()
    table = RouteTable(Wrong(stubs), Bases(stubs))  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await table.find(ME, MODEL)


async def test_a_replica_that_failed_is_left_alone_for_a_while_where_another_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(routing, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    table = StubPeers({MODEL: ["r1", "r2"], "tiny": ["r1"]}).table()
    tuned, base = await table.find(ME, MODEL), await table.find(ME, "tiny")
    failed = next(one for one in (table.pick(tuned), table.pick(tuned)) if one.replica_id == "r1")
    other = table.instead(tuned, failed)
    assert other is not None
    assert other.url == "http://r2"
    assert urls(table, tuned) == {"http://r2"}
    assert urls(table, base) == {"http://r1"}, "nobody else holds it"
    assert table.instead(base, failed) is None
    clock[0] += routing.AVOIDED_SECONDS
    assert urls(table, tuned) == {"http://r1", "http://r2"}
