"""Which replicas are routed to: as they speak, fall silent, take an address over, and are lost; alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from registry_harness import BASE, Harness
from test_use_cases import Lonely, folder, registry

from registry.settings import Settings
from registry.store import FORGOTTEN_SECONDS, Replicas
from schemas import Event, ReplicaReady
from serving import Downloads, Proof, Residency, announcing
from stores.objects import Objects
from testkit.base_models import base_spec
from testkit.simulated_documents import Documents
from testkit.stub_peer import StubPeer

__all__ = ["folder", "registry"]

FIRST, SECOND = (BASE, "d" * 64), ("second", "e" * 64)
SILENT_SECONDS = 60.0


class Life:
    """Replicas as the registry keeps them, through its restarts, on a clock that a test moves on."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0
        self.documents = Documents(lambda: self.seconds)

    async def registry(self, *, listened: bool = False) -> Replicas:
        """A registry that has just begun to listen, or has listened for long."""
        made = Replicas(self.documents.as_database()["replicas"], SILENT_SECONDS)
        await made.prepare()
        if listened:
            made._listened_at = float("-inf")
        return made

    @property
    def kept(self) -> set[str]:
        """Ids of those of which anything is kept."""
        return set(self.documents["replicas"].documents)


@pytest_asyncio.fixture
async def life() -> Life:
    return Life()


def ready(replica: str, base: tuple[str, str] = FIRST, url: str = "") -> ReplicaReady:
    where = {"replica_id": replica, "replica_url": url or f"http://{replica}", "engine": "tgi"}
    return ReplicaReady(tenant_id="", base_model=base[0], base_digest=base[1], **where)


async def lives(replicas: Replicas, *said: ReplicaReady) -> None:
    """They say what they hold, and ask what they must."""
    for one in said:
        await replicas.ready(one)
        await replicas.heard(one.replica_id, one.base_model, one.base_digest)


async def names(replicas: Replicas, base: tuple[str, str] = FIRST) -> set[str]:
    return {one.replica_id for one in await replicas.with_base(*base)}


async def test_a_registry_that_starts_routes_to_none_that_was_silent_before(life: Life) -> None:
    running = await life.registry(listened=True)
    await lives(running, ready("dead"))
    life.seconds += SILENT_SECONDS + 1
    await lives(running, ready("alive"))
    life.seconds += 1
    for listened in (False, True):
        assert await names(await life.registry(listened=listened)) == {"alive"}


async def test_a_registry_that_was_down_takes_those_for_living_that_were_so_when_it_went(life: Life) -> None:
    before = await life.registry(listened=True)
    await lives(before, ready("dead"))
    life.seconds += SILENT_SECONDS + 1
    await lives(before, ready("a"), ready("b", SECOND))
    life.seconds += FORGOTTEN_SECONDS + 1
    after = await life.registry()
    assert (await names(after), await names(after, SECOND)) == ({"a"}, {"b"})
    await after.ready(ready("new"))
    assert (await names(after), life.kept) == ({"a"}, {"dead", "a", "b", "new"})
    after._listened_at = float("-inf")
    assert (await names(after), await names(after, SECOND)) == (set(), set())


async def test_who_was_silent_very_long_is_forgotten(life: Life) -> None:
    replicas = await life.registry(listened=True)
    await lives(replicas, ready("dead"))
    await replicas.heard("older-release", BASE, "")
    life.seconds += FORGOTTEN_SECONDS + 1
    await lives(replicas, ready("alive"))
    assert life.kept == {"alive"}


async def test_the_dead_keep_no_address_from_who_took_it_over(life: Life) -> None:
    replicas = await life.registry(listened=True)
    await lives(replicas, ready("before", url="http://same"))
    await lives(replicas, ready("after", SECOND, url="http://same"))
    assert (await names(replicas), await names(replicas, SECOND)) == (set(), set()), "both live, as far as can be told"
    life.seconds += SILENT_SECONDS + 1
    await replicas.heard("after", *SECOND)
    assert (await names(replicas), await names(replicas, SECOND)) == (set(), {"after"})
    await replicas.ready(ready("after", SECOND, url="http://same"))
    assert life.kept == {"after"}


async def test_who_took_an_address_over_answers_there_alone_on_the_same_base_too(life: Life) -> None:
    """The one before may have held adapters that it lacks."""
    replicas = await life.registry(listened=True)
    await lives(replicas, ready("before", url="http://same"))
    life.seconds += 1
    await lives(replicas, ready("after", url="http://same"))
    assert await names(replicas) == {"after"}


@pytest.mark.parametrize("step", range(1, 5))
async def test_who_speaks_while_another_does_at_the_same_address_is_not_taken_for_dead(life: Life, step: int) -> None:
    replicas, done = await life.registry(listened=True), 0

    async def call(operation: Callable[[], Any]) -> Any:
        nonlocal done
        done += 1
        result = operation()
        if done == step:
            await replicas.ready(ready("other", SECOND, url="http://same"))
        return result

    life.documents.call = call
    await replicas.ready(ready("first", url="http://same"))
    assert done > step
    assert life.kept == {"first", "other"}


async def test_an_event_that_is_handed_over_again_brings_nobody_back_to_life(life: Life) -> None:
    replicas = await life.registry(listened=True)
    await lives(replicas, ready("alive"))
    await replicas.ready(ready("dead"))
    assert await names(replicas) == {"alive"}


async def test_all_bases_of_a_page_cost_two_questions(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = await life.registry(listened=True)
    bases = [(f"base-{number}", f"{number:064}") for number in range(5)]
    await lives(replicas, *(ready(f"r-{name}", (name, digest)) for name, digest in bases))
    collection, asked = life.documents["replicas"], list[Any]()
    find = collection.find
    monkeypatch.setattr(collection, "find", lambda query: asked.append(query) or find(query))
    found = await replicas.with_bases([*bases, ("absent", "0" * 64)])
    assert [len(found[base]) for base in bases] == [1] * 5
    assert found["absent", "0" * 64] == []
    assert len(asked) == 2
    assert all({name.partition(".")[0] for name in query} == {"ready", "$expr"} for query in asked)


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_replica_that_fell_silent_promotes_nothing(registry: Lonely, comes_back: bool) -> None:
    model = await registry.trained(1)
    for event in (registry.ready("dead"), registry.resident(1, replica="dead")):
        await registry.publish(event)
    await registry.asks("dead")
    registry.service.seconds += SILENT_SECONDS + 1
    await registry.publish(registry.evaluated(model, "pass"))
    assert (await registry.card(model))["waiting_for"] == "replica"
    if not comes_back:
        for event in (registry.ready("alive"), registry.resident(1, replica="alive")):
            await registry.publish(event)
    await registry.asks("dead" if comes_back else "alive")
    assert (await registry.card(model))["state"] == "production"


async def test_a_replica_that_fell_silent_is_not_routed_to(registry: Lonely) -> None:
    model = await registry.promoted(1)
    for replica in ("alive", "dead"):
        for event in (registry.ready(replica), registry.resident(1, replica=replica)):
            await registry.publish(event)
    await registry.asks("r1", "alive", "dead")
    assert await registry.held_by(model) == ["r1", "alive", "dead"]
    registry.service.seconds += SILENT_SECONDS - 1
    await registry.asks("r1", "alive")
    registry.service.seconds += 2
    assert await registry.held_by(model) == ["r1", "alive"]
    async with registry.http() as mine:
        [route] = (await mine.get("/internal/routes")).json()
    assert [one["replica_id"] for one in route["replicas"]] == ["r1", "alive"]
    await registry.asks("dead")
    assert await registry.held_by(model) == ["r1", "alive", "dead"]


async def test_a_base_model_is_not_routed_to_a_replica_that_fell_silent(registry: Lonely) -> None:
    for replica in ("alive", "dead"):
        await registry.publish(registry.ready(replica))
    await registry.asks("alive", "dead")
    assert {*await registry.held_by(BASE)} == {"alive", "dead"}
    registry.service.seconds += SILENT_SECONDS - 1
    await registry.asks("alive")
    registry.service.seconds += 2
    assert await registry.held_by(BASE) == ["alive"]
    async with registry.http() as http:
        [shown] = (await http.get("/v1/registry/base_models")).json()["data"]
    assert shown["replicas"] == 1
    await registry.asks("dead")
    assert {*await registry.held_by(BASE)} == {"alive", "dead"}


class EmptyHost:
    """A replica without adapters."""

    engine, capabilities, at_once = "tgi", ("echo",), 1

    def __init__(self) -> None:
        self.base = base_spec(BASE)
        self.proofs: dict[str, Proof] = {}
        self.used: dict[str, float] = {}
        self.held: set[str] = set()

    async def attest(self) -> None:
        """It is always proven."""

    async def prepare(self, folders: Mapping[str, Path]) -> list[str]:
        return []

    async def load(self, folder: Path) -> Proof:
        raise AssertionError(folder)

    async def unload(self, adapter_id: str) -> None:
        raise AssertionError(adapter_id)


class Asked(StubPeer):
    """The registry under test, asked over HTTP."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    async def get(self, path: str, *ids: str, tenant_id: str, params: dict[str, Any]) -> Any:
        async with self._harness.http(tenant_id) as http:
            return (await http.get(path, params=params)).raise_for_status().json()


async def test_a_base_whose_replicas_the_database_lost_answers_again_by_itself(
    registry: Lonely, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Event] = []
    settings = registry.space.settings(Settings, "registry")

    async def publish(event: Event) -> None:
        said.append(event)
        await registry.publish(event)

    replica = Residency(
        EmptyHost(),
        Asked(registry),
        Downloads(Objects(settings, client=registry.service.objects.as_client()), "model_server"),
        publish,
        replica_id="r1",
        replica_url="http://r1",
        every=60,
        capacity=1,
    )
    await replica.synchronise()
    assert await registry.held_by(BASE) == ["r1"]
    registry.service.documents["replicas"].documents.clear()
    await replica.synchronise()
    assert (await registry.held_by(BASE), len(said)) == ([], 1), "it is said again every minute, not at every look"
    monkeypatch.setattr(announcing, "AGAIN_SECONDS", 0.0)
    await replica.synchronise()
    assert await registry.held_by(BASE) == ["r1"]
    await replica.close()
