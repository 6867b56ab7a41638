"""Residency on the real object store; the registry before it answers what a test chooses, the host computes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from chassis.errors import Transient
from chassis.ids import new_id
from chassis.settings import ServiceSettings
from eventbus import Bus
from schemas import AdapterEvicted, AdapterLoadFailed, AdapterResident, Event, ModelRegistered, ObjectRef, ReplicaReady
from schemas.artifacts import BaseModelSpec
from serving import (
    AdapterRefused,
    BaseRefused,
    Downloads,
    Proof,
    Residency,
    announcing,
    failures,
    proof_of,
    read_probes,
    verify,
)
from stores.objects import Objects
from testkit import Space, eventually
from testkit.adapters import WITH_ADAPTER, WITHOUT, adapter_folder, id_of, seal
from testkit.base_models import base_spec
from testkit.small_disk import small_disk
from testkit.stub_peer import StubPeer

BASE = base_spec("tiny-test")


class FolderHost:
    """A host that answers with every adapter what the usual fingerprint says, once its files are verified."""

    engine = "tgi"
    capabilities: tuple[str, ...] = ("echo",)
    at_once = 1

    def __init__(self, base: BaseModelSpec) -> None:
        self.base = base
        self.proofs: dict[str, Proof] = {}
        self.used: dict[str, float] = {}
        self.wrong: Exception | None = None

    async def attest(self) -> None:
        if self.wrong:
            raise self.wrong

    @property
    def held(self) -> set[str]:
        return set(self.proofs)

    async def prepare(self, folders: Mapping[str, Path]) -> list[str]:
        return list(folders)

    async def load(self, folder: Path) -> Proof:
        adapter_id = verify(folder, base_id=self.base.id, base_digest=self.base.digest)
        proof = proof_of(adapter_id, [(probe, WITH_ADAPTER, WITHOUT) for probe in read_probes(folder)])
        self.proofs[adapter_id] = proof
        return proof

    async def unload(self, adapter_id: str) -> None:
        self.proofs.pop(adapter_id, None)
        self.used.pop(adapter_id, None)

    def ask(self, adapter_id: str) -> None:
        """Use the adapter."""
        assert adapter_id in self.proofs
        self.used[adapter_id] = time.monotonic()


class Registry(StubPeer):
    """Says which adapters a replica must hold; it may be away."""

    def __init__(self) -> None:
        self.wanted: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.away = False
        self.resident: set[str] = set()

    def hear(self, event: Event) -> None:
        """Take an adapter for resident, or not, as the replica says."""
        if isinstance(event, AdapterResident):
            self.resident.add(event.adapter_id)
        elif isinstance(event, AdapterEvicted):
            self.resident.discard(event.adapter_id)

    async def get(self, path: str, *ids: str, tenant_id: str, params: dict[str, Any]) -> Any:
        if self.away:
            raise Transient("the registry cannot be reached")
        self.asked.append({"path": path, "tenant_id": tenant_id, **params})
        return [{**item, "resident": item["adapter_id"] in self.resident} for item in self.wanted]


class Harness:
    """A replica's residency, and what it said."""

    def __init__(self, objects: Objects, folder: Path) -> None:
        self.host = FolderHost(BASE)
        self.objects = objects
        self.folder = folder
        self.registry = Registry()
        self.said: list[Event] = []
        self.broker_away = False
        self.registry_hears = True
        self.residency = self.replica()

    def replica(self, *, capacity: int = 100, every: float = 60) -> Residency:
        """Another life of the replica."""
        return Residency(
            self.host,
            self.registry,  # type: ignore[arg-type]
            Downloads(self.objects, "model_server"),
            self._publish,
            replica_id="replica-1",
            replica_url="http://replica-1",
            every=every,
            capacity=capacity,
        )

    async def _publish(self, event: Event) -> None:
        if self.broker_away:
            raise Transient("Kafka cannot be reached")
        self.said.append(event)
        if self.registry_hears:
            self.registry.hear(event)

    async def adapter(
        self, number: int, tenant: str = "tenant_a", *, spoil: Callable[[Path], None] = lambda folder: None
    ) -> str:
        """Train, store and want an adapter; `spoil` changes its folder before it is stored."""
        folder = adapter_folder(self.folder / str(number), BASE, number=number)
        spoil(folder)
        manifest = (folder / "manifest.json").read_bytes()
        adapter_id = id_of(folder)
        prefix = f"tenants/{tenant}/adapters/{adapter_id}"
        for path in folder.iterdir():
            await self.objects.put_file(f"{prefix}/{path.name}", path)
        ref = ObjectRef(
            bucket=self.objects.bucket,
            key=f"{prefix}/manifest.json",
            sha256=hashlib.sha256(manifest).hexdigest(),
            size=len(manifest),
        )
        item = {"adapter_id": adapter_id, "model_id": f"ft:{number}", "tenant_id": tenant}
        self.registry.wanted.append({**item, "manifest": ref.model_dump()})
        return adapter_id

    def unwant(self, adapter_id: str) -> None:
        """The registry's model is deleted or rejected."""
        self.registry.wanted = [item for item in self.registry.wanted if item["adapter_id"] != adapter_id]

    def heard(self, kind: type[AdapterResident] | type[AdapterEvicted]) -> list[tuple[str, str]]:
        """Adapter and tenant of the events of one kind, in their order."""
        return [(event.adapter_id, event.tenant_id) for event in self.said if isinstance(event, kind)]

    def of_adapters(self) -> list[Event]:
        """What was said of adapters, in its order."""
        return [event for event in self.said if not isinstance(event, ReplicaReady)]

    def load_failures(self) -> list[AdapterLoadFailed]:
        """What was said of adapters that could not be loaded, in its order."""
        return [event for event in self.said if isinstance(event, AdapterLoadFailed)]


@pytest_asyncio.fixture
async def harness(shared_space: Space, tmp_path: Path) -> AsyncIterator[Harness]:
    """A replica's residency, and a bucket of the test's own."""
    bucket = new_id(f"{shared_space.prefix}-")
    objects = Objects(shared_space.settings(ServiceSettings, "console", objects_bucket=bucket))
    await objects.prepare()
    made = Harness(objects, tmp_path / "adapters")
    yield made
    await made.residency.close()
    objects.close()


async def test_what_the_registry_wants_is_loaded_proven_and_said_once(harness: Harness) -> None:
    one, two = await harness.adapter(1), await harness.adapter(2, "tenant_b")
    await harness.residency.synchronise()
    await harness.residency.synchronise()
    assert sorted(harness.heard(AdapterResident)) == sorted([(one, "tenant_a"), (two, "tenant_b")])
    assert len(harness.of_adapters()) == 2
    resident = next(event for event in harness.said if isinstance(event, AdapterResident) and event.adapter_id == one)
    assert (resident.model_id, resident.replica_id, resident.replica_url) == ("ft:1", "replica-1", "http://replica-1")
    assert (resident.fingerprint_delta, resident.base_delta) == (0.0, 8.75)
    assert harness.host.held == {one, two}
    assert harness.registry.asked[0] == {
        "path": "/internal/adapters",
        "tenant_id": "",
        "base_model": "tiny-test",
        "base_digest": BASE.digest,
        "replica_id": "replica-1",
        "lives": True,
    }


async def test_a_broker_that_is_away_silences_nobody_and_hears_all_later(harness: Harness) -> None:
    one, two = await harness.adapter(1), await harness.adapter(2)
    harness.broker_away = True
    tried: list[Event] = []
    publish = harness._publish

    async def trying(event: Event) -> None:
        tried.append(event)
        await publish(event)

    harness.residency._announcements._publish = trying
    await harness.residency.synchronise()
    assert (len(harness.registry.asked), harness.host.held) == (1, {one, two})
    assert len(tried) == 1, "a broker that is away is waited for once in a look"
    harness.broker_away = False
    await harness.residency.synchronise()
    assert isinstance(harness.said[0], ReplicaReady)
    assert {adapter_id for adapter_id, _ in harness.heard(AdapterResident)} == {one, two}


@pytest.fixture
def a_minute_later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """So long after it was said, what is not believed is said again."""
    return lambda: monkeypatch.setattr(announcing, "AGAIN_SECONDS", 0.0)


async def test_what_the_registry_lost_is_said_again_and_what_it_believes_is_not(
    harness: Harness, a_minute_later: Callable[[], None]
) -> None:
    one, _ = await harness.adapter(1), await harness.adapter(2)
    await harness.residency.synchronise()
    harness.said.clear()
    harness.registry.resident.discard(one)
    await harness.residency.synchronise()
    assert harness.said == [], "it may be on its way"
    a_minute_later()
    await harness.residency.synchronise()
    assert {event.adapter_id for event in harness.said if isinstance(event, AdapterResident)} == {one}
    assert [event for event in harness.said if isinstance(event, ReplicaReady)]


async def test_an_engine_that_cannot_echo_lives_once_it_is_known_what_it_lost(
    harness: Harness, a_minute_later: Callable[[], None]
) -> None:
    """It would answer for an adapter that it lost with its base."""
    one, two = await harness.adapter(1), await harness.adapter(2)
    await harness.residency.synchronise()
    harness.registry.asked.clear()
    harness.host = FolderHost(BASE)
    harness.host.capabilities = ()
    replica, harness.registry_hears = harness.replica(), False
    harness.broker_away = True
    await replica.synchronise()
    harness.broker_away = False
    await replica.synchronise()
    assert {adapter_id for adapter_id, _ in harness.heard(AdapterEvicted)} == {one, two}
    await replica.synchronise()
    assert [one["lives"] for one in harness.registry.asked] == [False] * 3, "the registry may still route to it"
    assert harness.host.held == set()
    a_minute_later()
    harness.registry_hears = True
    await replica.synchronise()
    assert [one["lives"] for one in harness.registry.asked[-2:]] == [False, True]
    assert (harness.host.held, harness.registry.resident) == ({one, two}, {one, two})


async def test_each_life_says_which_base_it_holds_and_before_anything_else(harness: Harness) -> None:
    await harness.adapter(1)
    for _ in range(2):
        await harness.residency.synchronise()
    ready = ReplicaReady(
        tenant_id="",
        replica_id="replica-1",
        replica_url="http://replica-1",
        engine="tgi",
        base_model="tiny-test",
        base_digest=BASE.digest,
        capabilities=["echo"],
    )
    assert [isinstance(event, ReplicaReady) for event in harness.said] == [True, False]
    assert harness.said[0] == ready
    await harness.replica().synchronise()
    assert harness.said[2:] == [ready, harness.said[1]]


@pytest.mark.parametrize("wrong", [BaseRefused("other files"), Transient("it does not say")])
async def test_who_cannot_prove_its_base_says_nothing_and_asks_for_nothing(harness: Harness, wrong: Exception) -> None:
    await harness.adapter(1)
    harness.host.wrong = wrong
    with pytest.raises(type(wrong)):
        await harness.residency.synchronise()
    assert (harness.said, harness.registry.asked) == ([], [])
    harness.host.wrong = None
    await harness.residency.synchronise()
    harness.host.wrong, harness.registry.asked = wrong, []
    with pytest.raises(type(wrong)):
        await harness.residency.synchronise()
    assert harness.registry.asked == [], "the registry takes it for silent"


async def test_an_adapter_nobody_wants_any_more_is_evicted_under_its_tenant(harness: Harness) -> None:
    one, two = await harness.adapter(1, "tenant_a"), await harness.adapter(2, "tenant_b")
    await harness.residency.synchronise()
    harness.unwant(two)
    await harness.residency.synchronise()
    await harness.residency.synchronise()
    assert harness.heard(AdapterEvicted) == [(two, "tenant_b")]
    assert harness.host.held == {one}


async def test_both_facts_can_be_read_from_kafka(space: Space) -> None:
    bus = Bus(space.settings(ServiceSettings, "model_server"), "model_server")
    await bus.start()
    try:
        async with space.probe("adapters") as seen:
            await bus.producer.announce(AdapterEvicted(tenant_id="tenant_b", adapter_id="ad-1", replica_id="replica-1"))
            (envelope, event) = (await eventually(lambda: seen.events))[0]
        assert (envelope.tenantid, envelope.subject, event.tenant_id) == ("tenant_b", "ad-1", "tenant_b")
    finally:
        await bus.stop()


def _without_base(folder: Path) -> None:
    facts = json.loads((folder / "manifest.json").read_text())
    del facts["base_id"]
    (folder / "manifest.json").write_text(json.dumps(facts))


def _not_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("not a manifest")


def _a_list(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def _off_its_fingerprint(folder: Path) -> None:
    contents = json.loads((folder / "fingerprint.json").read_text())
    contents["probes"][0]["adapter"][1] -= 0.3
    (folder / "fingerprint.json").write_text(json.dumps(contents))
    seal(folder, BASE)


def _one_log_prob_too_few(folder: Path) -> None:
    contents = json.loads((folder / "fingerprint.json").read_text())
    contents["probes"][0]["adapter"].pop()
    (folder / "fingerprint.json").write_text(json.dumps(contents))
    seal(folder, BASE)


def _another_version(folder: Path) -> None:
    contents = json.loads((folder / "fingerprint.json").read_text())
    (folder / "fingerprint.json").write_text(json.dumps({**contents, "version": 3}))
    seal(folder, BASE)


@pytest.mark.parametrize(
    "spoil", [_without_base, _not_json, _a_list, _off_its_fingerprint, _one_log_prob_too_few, _another_version]
)
async def test_a_bad_adapter_is_refused_once_and_holds_up_nobody(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    bad = await harness.adapter(1, spoil=spoil)
    good = await harness.adapter(2)
    await harness.residency.synchronise()
    assert harness.heard(AdapterResident) == [(good, "tenant_a")]
    assert harness.host.held == {good}
    assert REGISTRY.get_sample_value("replica_adapters", {"state": "refused"}) == 1
    [told] = harness.load_failures()
    assert (told.adapter_id, told.permanent) == (bad, True)
    read: list[str] = []

    async def never(ref: ObjectRef) -> bytes:
        read.append(ref.key)
        raise Transient("read again")

    monkeypatch.setattr(harness.objects, "get_bytes", never)
    await harness.residency.synchronise()
    assert read == []
    assert harness.host.held == {good}


async def test_files_under_the_id_of_another_adapter_are_refused(harness: Harness) -> None:
    one = await harness.adapter(1)
    harness.registry.wanted[0]["adapter_id"] = "ad-another"
    await harness.residency.synchronise()
    assert harness.heard(AdapterResident) == []
    assert harness.host.held == set()
    harness.registry.wanted[0]["adapter_id"] = one
    await harness.residency.synchronise()
    assert harness.heard(AdapterResident) == [(one, "tenant_a")]


async def test_what_could_not_be_fetched_is_tried_again(harness: Harness) -> None:
    late = await harness.adapter(1)
    weights = next(key for key in await harness.objects.keys("tenants/") if key.endswith(".safetensors"))
    await harness.objects.delete(weights)
    good = await harness.adapter(2)
    await harness.residency.synchronise()
    assert harness.heard(AdapterResident) == [(good, "tenant_a")]
    await harness.objects.put_file(weights, harness.folder / "1/adapter_model.safetensors")
    await harness.residency.synchronise()
    assert harness.heard(AdapterResident) == [(good, "tenant_a"), (late, "tenant_a")]


@pytest.mark.parametrize("room", ["for nothing", "for all but the manifest"])
async def test_an_adapter_that_the_disk_cannot_hold_waits_for_room(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    one = await harness.adapter(1)
    files = [path for path in (harness.folder / "1").iterdir() if path.name != "manifest.json"]
    pages = sum(-(-path.stat().st_size // 4096) for path in files) if room == "for all but the manifest" else 0
    with small_disk(tmp_path / "tmp", 2**24) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
        replica = harness.replica()
        disk.fill(leave=pages * 4096)
        await replica.synchronise()
        await replica.synchronise()
        assert harness.of_adapters() == []
        assert list(disk.folder.rglob("*.partial")) == [], "half a file takes no room from others"
        disk.free()
        await taken(harness, replica, [(one, "tenant_a")])
        await replica.close()


async def test_a_proof_that_could_not_be_tried_says_nothing_about_the_adapter(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await harness.adapter(1)

    async def busy(folder: Path) -> Any:
        raise Transient("a probe was not answered in time")

    with monkeypatch.context() as slow:
        slow.setattr(harness.host, "load", busy)
        await harness.residency.synchronise()
    assert harness.of_adapters() == []
    await harness.residency.synchronise()
    assert harness.heard(AdapterResident) == [(one, "tenant_a")]


class OutOfMemory(RuntimeError):
    """What an allocator raises."""


class EngineGone(Exception):
    """What an engine raises that runs no more."""


@pytest.mark.parametrize("error", [OutOfMemory("no room for 61 MB"), EngineGone("its thread ended"), MemoryError()])
async def test_what_is_not_the_adapters_fault_is_tried_again_told_and_forgotten_once_it_is_loaded(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    one = await harness.adapter(1)

    async def fails(folder: Path) -> Any:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(harness.host, "load", fails)

        async def failing() -> bool:
            await harness.residency.synchronise()
            return REGISTRY.get_sample_value("replica_adapters", {"state": "failing"}) == 1

        await eventually(failing)
        await harness.residency.synchronise()
    [told] = harness.load_failures()
    assert (told.adapter_id, told.model_id, told.tenant_id, told.permanent) == (one, "ft:1", "tenant_a", False)
    assert type(error).__name__ in told.reason
    assert REGISTRY.get_sample_value("replica_adapters", {"state": "refused"}) == 0
    await taken(harness, harness.residency, [(one, "tenant_a")])
    assert REGISTRY.get_sample_value("replica_adapters", {"state": "failing"}) == 0


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at every look."""
    monkeypatch.setattr(failures, "LONGEST_PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize("away", [Transient("the object store is away"), OSError("no route to 10.0.0.7")])
async def test_that_an_adapter_is_refused_for_good_is_told_after_it_was_told_to_be_tried_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, at_once: None, away: Exception
) -> None:
    await harness.adapter(1, spoil=_another_version)

    async def not_there(ref: ObjectRef) -> bytes:
        raise away

    with monkeypatch.context() as broken:
        broken.setattr(harness.objects, "get_bytes", not_there)
        for _ in range(2 * failures.TOLD_AFTER):
            await harness.residency.synchronise()
    assert [event.permanent for event in harness.load_failures()] == [False]
    for _ in range(3):
        await harness.residency.synchronise()
    assert [event.permanent for event in harness.load_failures()] == [False, True]
    assert "train it again" in harness.load_failures()[1].reason


@pytest.mark.parametrize(
    "error",
    [Transient("TGI does not start any more."), LookupError("turns"), AdapterRefused("not one of them"), OSError(28)],
)
async def test_a_host_that_cannot_make_ready_is_told_for_each_adapter_and_refuses_none(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, at_once: None, error: Exception
) -> None:
    one, two = await harness.adapter(1), await harness.adapter(2, "tenant_b")
    monkeypatch.setattr(harness.host, "at_once", 2)

    async def fails(folders: Mapping[str, Path]) -> list[str]:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(harness.host, "prepare", fails)
        for _ in range(failures.TOLD_AFTER - 1):
            await harness.residency.synchronise()
        assert harness.of_adapters() == []
        for _ in range(3):
            await harness.residency.synchronise()
    told = {(event.adapter_id, event.tenant_id, event.permanent) for event in harness.load_failures()}
    assert told == {(one, "tenant_a", False), (two, "tenant_b", False)}
    assert len(harness.load_failures()) == 2
    assert REGISTRY.get_sample_value("replica_adapters", {"state": "failing"}) == 2
    assert REGISTRY.get_sample_value("replica_adapters", {"state": "refused"}) == 0
    await harness.residency.synchronise()
    assert sorted(harness.heard(AdapterResident)) == sorted([(one, "tenant_a"), (two, "tenant_b")])
    assert REGISTRY.get_sample_value("replica_adapters", {"state": "failing"}) == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file", "/srv/node-7/adapters/x"), "could not load it (FileNotFoundError)"),
        (ValueError("bad row in /srv/node-7/x"), "could not load it (ValueError)"),
        (Transient("The object store cannot be reached."), "The object store cannot be reached."),
        (AdapterRefused("ad-1: off its fingerprint by 3 nats."), "ad-1: off its fingerprint by 3 nats."),
    ],
)
async def test_the_owner_is_told_what_is_meant_for_people_and_the_log_keeps_the_rest(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, at_once: None, error: Exception, reason: str
) -> None:
    await harness.adapter(1)

    async def fails(folder: Path) -> Any:
        raise error

    monkeypatch.setattr(harness.host, "load", fails)
    with capture_logs() as logged:
        for _ in range(failures.TOLD_AFTER):
            await harness.residency.synchronise()
    [told] = harness.load_failures()
    assert reason in told.reason
    assert "node-7" not in told.reason
    lines = [line["error"] for line in logged if line["event"] in ("adapter_waits", "adapter_refused")]
    assert lines
    assert set(lines) == {f"{type(error).__name__}: {error}"}


async def taken(harness: Harness, residency: Residency, resident: list[tuple[str, str]]) -> None:
    """Look until these adapters are resident: one that failed is tried again a little later each time."""

    async def look() -> bool:
        await residency.synchronise()
        return harness.heard(AdapterResident) == resident

    await eventually(look)


async def test_adapters_that_keep_failing_take_no_room_from_others(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.residency = harness.replica(capacity=1)
    bad = await harness.adapter(1)
    harness.registry.wanted[0]["awaited"] = True
    load = harness.host.load

    async def load_others(folder: Path) -> Any:
        if json.loads((folder / "manifest.json").read_text()) == manifest:
            raise OutOfMemory
        return await load(folder)

    manifest = json.loads((harness.folder / "1/manifest.json").read_text())
    monkeypatch.setattr(harness.host, "load", load_others)
    good = await harness.adapter(2)
    await taken(harness, harness.residency, [(good, "tenant_a")])
    assert bad not in harness.host.held


async def test_beyond_its_capacity_a_replica_holds_the_newest_and_the_last_used(harness: Harness) -> None:
    harness.residency = harness.replica(capacity=2)
    _, second, third = [await harness.adapter(number) for number in (1, 2, 3)]
    await harness.residency.synchronise()
    assert harness.host.held == {second, third}
    assert harness.heard(AdapterEvicted) == [], "nobody took it for resident here"
    assert REGISTRY.get_sample_value("replica_adapters", {"state": "over_capacity"}) == 1
    harness.host.ask(second)
    fourth = await harness.adapter(4)
    await harness.residency.synchronise()
    assert harness.host.held == {second, fourth}
    assert harness.heard(AdapterEvicted) == [(third, "tenant_a")]
    harness.unwant(second)
    await harness.residency.synchronise()
    assert harness.host.held == {fourth, third}
    await harness.residency.synchronise()
    assert harness.heard(AdapterResident)[-1] == (third, "tenant_a")
    assert REGISTRY.get_sample_value("replica_adapters", {"state": "over_capacity"}) == 1


async def test_an_adapter_whose_evaluation_waits_goes_before_those_in_production(harness: Harness) -> None:
    """Else it would wait for ever, once more models are in production than a replica holds."""
    harness.residency = harness.replica(capacity=2)
    first, second, third, fourth = [await harness.adapter(number) for number in (1, 2, 3, 4)]
    waiting = (first, second, third)
    for item in harness.registry.wanted:
        item["awaited"] = item["adapter_id"] in waiting
    await harness.residency.synchronise()
    assert harness.host.held == {first, second}
    harness.registry.wanted[0]["awaited"] = harness.registry.wanted[1]["awaited"] = False
    await harness.residency.synchronise()
    assert harness.host.held == {third, fourth}


async def test_a_refused_adapter_takes_no_room(harness: Harness) -> None:
    harness.residency = harness.replica(capacity=1)
    good = await harness.adapter(1)
    await harness.adapter(2, spoil=_without_base)
    await harness.residency.synchronise()
    await harness.residency.synchronise()
    assert harness.host.held == {good}


async def test_what_the_broker_did_not_take_is_said_later(harness: Harness) -> None:
    one = await harness.adapter(1)
    harness.broker_away = True
    await harness.residency.synchronise()
    harness.broker_away = False
    await harness.residency.synchronise()
    assert harness.heard(AdapterResident) == [(one, "tenant_a")]
    harness.unwant(one)
    harness.broker_away = True
    await harness.residency.synchronise()
    assert harness.host.held == set()
    harness.broker_away = False
    await harness.residency.synchronise()
    assert harness.heard(AdapterEvicted) == [(one, "tenant_a")]


async def test_without_the_registry_a_replica_keeps_what_it_holds_and_looks_again_when_told(harness: Harness) -> None:
    one = await harness.adapter(1)
    running = asyncio.create_task(harness.residency.run())
    try:
        await eventually(lambda: harness.heard(AdapterResident) == [(one, "tenant_a")])
        harness.registry.away = True
        two = await harness.adapter(2)
        event = ModelRegistered.model_construct(tenant_id="tenant_a", model_id="ft:2")
        await harness.residency.on_change(event)
        await eventually(lambda: not harness.residency._awake.is_set())
        assert harness.host.held == {one}
        harness.registry.away = False
        await harness.residency.on_change(event)
        await eventually(lambda: harness.host.held == {one, two})
    finally:
        running.cancel()
