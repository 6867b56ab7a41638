"""The relay on the local stack: what is saved gets out, in order, and nothing holds up what waits beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import InvalidTimestampError, KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from chassis.errors import Invalid, TooLarge, Transient
from chassis.ids import new_id
from chassis.settings import ServiceSettings
from eventbus import Aggregate, AggregateStore
from eventbus.dead_letters.writer import DeadLetterWriter
from eventbus.messages.event_size import MOST_EVENT_BYTES
from eventbus.messages.message import Message
from eventbus.messages.outcome import GiveUp
from eventbus.publish import relay as relaying
from eventbus.publish.given_up import KEPT
from eventbus.publish.relay import OLDEST, Relay
from runtime import Service
from schemas import Envelope, FileDeleted, FileUploaded, ObjectRef
from testkit import Space, eventually

TENANT = "tenant_a"


class Upload(Aggregate):
    """A small aggregate to test with."""

    created_at: int = 0

    def upload(self) -> None:
        self.record(
            FileUploaded(
                tenant_id=self.tenant_id,
                file_id=self.id,
                purpose="user_data",
                filename="a.jsonl",
                object=ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1),
            )
        )

    def delete(self) -> None:
        self.record(FileDeleted(tenant_id=self.tenant_id, file_id=self.id))


def upload(number: int = 1, tenant_id: str = TENANT) -> Upload:
    made = Upload(id=f"file-{number}", tenant_id=tenant_id, created_at=number)
    made.upload()
    return made


@asynccontextmanager
async def producer(space: Space, replica: str = "one") -> AsyncIterator[tuple[Service, AggregateStore[Upload]]]:
    service = Service("ingest", space.settings(ServiceSettings, "ingest", replica_id=replica))
    store = service.aggregates("uploads", Upload)
    app = service.app([])
    async with app.router.lifespan_context(app):
        yield service, store


def unstarted(space: Space, name: str = "ingest") -> Service:
    """A service that nobody starts, in a database of a test's own."""
    return Service(name, space.settings(ServiceSettings, name, mongo_database_prefix=f"{new_id(space.prefix)}_"))


async def add_all(store: AggregateStore[Upload], uploads: Iterable[Upload]) -> None:
    """Add many in one call of the database, as each would be added."""
    documents: list[dict[str, Any]] = []

    async def keep(document: dict[str, Any]) -> None:
        documents.append(document)

    kept: Any = SimpleNamespace(name=store.collection.name, insert_one=keep)
    keeping = AggregateStore(kept, Upload, "ingest", lambda: None)
    for one in uploads:
        await keeping.add(one)
    await store.collection.insert_many(documents)


async def _outboxes_empty(store: AggregateStore[Upload]) -> bool:
    return await store.collection.count_documents({"outbox.0": {"$exists": True}}) == 0


async def test_an_event_saved_while_nobody_relays_is_published_after_the_next_start(space: Space) -> None:
    settings = space.settings(ServiceSettings, "ingest")
    orphan = Service("ingest", settings).aggregates("uploads", Upload)
    await orphan.add(upload())
    async with producer(space), space.probe("files") as seen:
        await eventually(lambda: len(seen.of(FileUploaded)) == 1)
        envelope, _ = seen.events[0]
        assert (envelope.seq, envelope.source, envelope.tenantid) == (1, "/sartor/ingest", TENANT)


async def test_a_relay_that_fails_leaves_nothing_running_behind(
    shared_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next sweep would publish beside what is still under way, and out of order."""
    service = unstarted(shared_space)
    store = service.aggregates("uploads", Upload)
    published: list[str] = []

    async def publish(_topic: str, envelope: Envelope, _data: object) -> None:
        if envelope.subject == "file-0":
            raise Transient("the broker is away")
        await asyncio.sleep(0.2)
        published.append(envelope.subject)

    monkeypatch.setattr(service.bus.producer, "publish", publish)
    for number in range(3):
        await store.add(upload(number))
    assert service._relay is not None
    with pytest.raises(Transient):
        await service._relay.drain()
    assert sorted(published) == ["file-1", "file-2"]


async def test_a_relay_without_its_lease_publishes_nothing(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood still, and another replica has taken over."""
    async with producer(space, "one") as (first, store):
        assert first._relay is not None
        await store.collection.database["leases"].update_one(
            {"_id": "relay"}, {"$set": {"owner": "two", "until_ms": 2**53}}, upsert=True
        )
        first._relay._until = 0.0
        published: list[str] = []

        async def publish(_topic: str, envelope: Envelope, _data: object) -> None:
            published.append(envelope.subject)

        monkeypatch.setattr(first.bus.producer, "publish", publish)
        await store.add(upload())
        await first._relay.drain()
        assert published == []


async def test_one_replica_relays_at_a_time(space: Space) -> None:
    async with producer(space, "one") as (first, _), producer(space, "two") as (second, _):
        relays = [service._relay for service in (first, second)]
        for _ in range(3):
            held = [await relay._hold_lease() for relay in relays if relay]
            assert sorted(held) == [False, True]
            await asyncio.sleep(0.3)


class Broker:
    """Takes events; the first one only once it is let."""

    def __init__(self) -> None:
        self.took: list[str] = []
        self.let = asyncio.Event()

    async def publish(self, _topic: str, envelope: Envelope, _data: object) -> None:
        self.took.append(envelope.type)
        await self.let.wait()


async def test_a_relay_that_lost_its_lease_between_two_events_publishes_no_more(
    shared_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what another replica publishes meanwhile could be followed by something older."""
    monkeypatch.setattr(relaying, "RELAY_LEASE_SECONDS", 1)
    monkeypatch.setattr(relaying, "PUBLISH_SECONDS", 0.1)
    service = unstarted(shared_space)
    store, leases = service.aggregates("uploads", Upload), service.collection("leases")
    await store.add(upload())
    await store.update(TENANT, "file-1", Upload.delete)
    given_up = service.collection("given_up")
    slow, quick = Broker(), Broker()
    quick.let.set()
    paused = asyncio.create_task(Relay(slow, [store], leases, given_up, "one").drain())  # type: ignore[arg-type]
    await eventually(lambda: slow.took)
    await asyncio.sleep(1.5)
    await Relay(quick, [store], leases, given_up, "two").drain()  # type: ignore[arg-type]
    await leases.update_one({"_id": "relay"}, {"$set": {"until_ms": 2**53}})
    slow.let.set()
    with pytest.raises(Transient, match="Another replica relays now"):
        await paused
    assert (slow.took, quick.took) == ([FileUploaded.type], [FileUploaded.type, FileDeleted.type])
    assert await _outboxes_empty(store)


async def grown(store: AggregateStore[Upload], *, larger: str) -> None:
    """Make the first event of every document one that no broker takes, as an older release could."""
    await store.collection.update_many({}, {"$set": {"outbox.0.data.filename": larger}})


async def test_what_cannot_be_published_is_given_up_and_the_rest_flows(space: Space) -> None:
    settings = space.settings(ServiceSettings, "ingest")
    asleep = Service("ingest", settings).aggregates("uploads", Upload)
    await asleep.add(upload(1))
    await asleep.update(TENANT, "file-1", Upload.delete)
    await grown(asleep, larger="x" * 1_500_000)
    async with producer(space) as (service, store), space.probe("files") as seen:
        await eventually(lambda: len(seen.events) == 1)
        assert [(type(event), envelope.seq) for envelope, event in seen.events] == [(FileDeleted, 2)]
        await eventually(lambda: _outboxes_empty(store))
        [kept] = await service.collection("given_up").find().to_list(10)
        assert (kept["outbox"], kept["aggregate_id"], kept["topic"]) == ("uploads", "file-1", "files")
        assert (kept["code"], kept["envelope"]["tenantid"]) == ("unpublishable", TENANT)
        assert len(kept["data"]["filename"]) == 1_500_000
        assert KEPT._value.get() == 1


async def test_a_larger_event_that_an_earlier_release_left_is_published(space: Space) -> None:
    asleep = Service("ingest", space.settings(ServiceSettings, "ingest")).aggregates("uploads", Upload)
    await asleep.add(upload(1))
    await grown(asleep, larger="x" * 900_000)
    async with producer(space) as (service, store), space.probe("files") as seen:
        await eventually(lambda: len(seen.events) == 1)
        assert [(type(event), envelope.seq) for envelope, event in seen.events] == [(FileUploaded, 1)]
        await eventually(lambda: _outboxes_empty(store))
        assert await service.collection("given_up").count_documents({}) == 0


@pytest.mark.parametrize(
    ("error", "size", "kind"),
    [
        (InvalidTimestampError, 2000, Transient),
        (InvalidTimestampError, 900_000, Transient),
        (MessageSizeTooLargeError, 2000, Transient),
        (RecordListTooLargeError, MOST_EVENT_BYTES, Transient),
        (MessageSizeTooLargeError, 900_000, Invalid),
        (RecordListTooLargeError, 900_000, Invalid),
    ],
)
async def test_only_a_message_that_is_too_large_alone_is_refused_for_good(
    shared_space: Space, monkeypatch: pytest.MonkeyPatch, error: type[KafkaError], size: int, kind: type[Exception]
) -> None:
    """The broker says it of all that came with it, and judges the producer's clock."""
    service = unstarted(shared_space)

    async def publish(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(service.bus._broker, "publish", publish)
    with pytest.raises(kind):
        await service.bus.producer.send("files", b"file-1", b"x" * size, {"ce_type": FileUploaded.type})


async def test_many_that_cannot_be_published_do_not_hold_up_another_tenant(space: Space) -> None:
    settings = space.settings(ServiceSettings, "ingest")
    asleep = Service("ingest", settings).aggregates("uploads", Upload)
    await add_all(asleep, map(upload, range(300)))
    await asleep.collection.update_many({}, {"$unset": {"outbox.0.envelope.subject": ""}})
    async with producer(space) as (service, store), space.probe("files") as seen:
        await store.add(upload(1000, "tenant_b"))
        await eventually(lambda: [event.file_id for event in seen.of(FileUploaded)] == ["file-1000"], within=30)
        await eventually(lambda: _outboxes_empty(store))
        assert await service.collection("given_up").count_documents({"envelope.tenantid": TENANT}) == 300


async def test_aggregates_whose_events_are_not_acknowledged_hold_up_no_others(
    shared_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those that wait behind them nor another collection's, and not those that come while they fail."""
    service = unstarted(shared_space)
    first, second = service.aggregates("uploads", Upload), service.aggregates("others", Upload)
    await first.prepare()
    published: list[str] = []

    async def publish(_topic: str, envelope: Envelope, _data: object) -> None:
        if envelope.tenantid == TENANT:
            raise Transient("the broker is away")
        published.append(envelope.subject)

    monkeypatch.setattr(service.bus.producer, "publish", publish)
    await add_all(first, map(upload, range(150)))
    await first.add(upload(1000, "tenant_b"))
    await second.add(upload(2000, "tenant_b"))
    relay = service._relay
    assert relay is not None
    with pytest.raises(Transient):
        await relay.drain()
    assert sorted(published) == ["file-1000", "file-2000"]
    monkeypatch.setattr(relaying, "SWEEP_SECONDS", 120.0)
    relaying_task = asyncio.create_task(relay.run())
    try:
        began = time.monotonic()
        for number in range(3000, 3005):
            await first.add(upload(number, "tenant_b"))
            await eventually(lambda: published[-1] == f"file-{number}")  # noqa: B023 - awaited here
        assert time.monotonic() - began < relaying.SWEEP_SECONDS
    finally:
        relaying_task.cancel()


async def test_an_aggregate_that_takes_long_to_fail_again_holds_up_no_others(
    shared_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = unstarted(shared_space)
    store, published, tried = service.aggregates("uploads", Upload), list[str](), list[str]()
    answers = asyncio.Event()

    async def publish(_topic: str, envelope: Envelope, _data: object) -> None:
        if envelope.tenantid == TENANT:
            tried.append(envelope.subject)
            if len(tried) > 1:
                await answers.wait()
            if len(tried) < 3:
                raise Transient("the broker is away")
        published.append(envelope.subject)

    monkeypatch.setattr(relaying, "SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(service.bus.producer, "publish", publish)
    await store.add(upload(1))
    assert service._relay is not None
    task = asyncio.create_task(service._relay.run())
    try:
        await eventually(lambda: len(tried) == 2)
        for number in range(1000, 1005):
            await store.add(upload(number, "tenant_b"))
            await eventually(lambda: published[-1:] == [f"file-{number}"])  # noqa: B023 - awaited here
        assert tried == ["file-1"] * 2
        answers.set()
        await eventually(lambda: published[-1] == "file-1")
    finally:
        task.cancel()
    assert tried == ["file-1"] * 3


async def test_while_the_broker_is_away_some_aggregates_are_tried_and_after_that_all_are_published(
    shared_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is left out of each query grows with all that waits."""
    service = unstarted(shared_space)
    store, tried, published, away = service.aggregates("uploads", Upload), set[str](), list[str](), True

    async def publish(_topic: str, envelope: Envelope, _data: object) -> None:
        tried.add(envelope.subject)
        if away:
            raise Transient("the broker is away")
        published.append(envelope.subject)

    monkeypatch.setattr(relaying, "SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(relaying, "PARALLEL", 4)
    monkeypatch.setattr(relaying, "MOST_FAILING", 10)
    monkeypatch.setattr(service.bus.producer, "publish", publish)
    await add_all(store, map(upload, range(30)))
    relay = service._relay
    assert relay is not None
    with pytest.raises(Transient):
        await relay.drain()
    await relay.drain()
    assert len(tried) == 10
    away = False
    task = asyncio.create_task(relay.run())
    try:
        await eventually(lambda: _outboxes_empty(store))
    finally:
        task.cancel()
    assert sorted(published) == sorted(f"file-{number}" for number in range(30))


async def test_the_oldest_goes_first(shared_space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    service = unstarted(shared_space)
    store = service.aggregates("uploads", Upload)
    published: list[str] = []

    async def publish(_topic: str, envelope: Envelope, _data: object) -> None:
        published.append(envelope.subject)

    monkeypatch.setattr(service.bus.producer, "publish", publish)
    monkeypatch.setattr(relaying, "PARALLEL", 1)
    for number in (3, 1, 2):
        await store.add(upload(number))
        await store.collection.update_one({"_id": f"file-{number}"}, {"$set": {"outbox.0.at": number}})
    assert service._relay is not None
    await service._relay.drain()
    assert published == ["file-1", "file-2", "file-3"]


async def test_a_relay_that_lost_its_lease_says_nothing_of_the_oldest_event(
    shared_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = unstarted(shared_space)
    store = service.aggregates("uploads", Upload)
    await store.add(upload())
    await store.collection.update_one({}, {"$set": {"outbox.0.at": time.time() - 100}})

    async def publish(*_: object) -> None:
        raise Transient("the broker is away")

    monkeypatch.setattr(service.bus.producer, "publish", publish)
    relay = service._relay
    assert relay is not None
    with pytest.raises(Transient):
        await relay.drain()
    assert OLDEST.labels("uploads")._value.get() >= 100
    await service.collection("leases").update_one({"_id": "relay"}, {"$set": {"owner": "two", "until_ms": 2**53}})
    relay._until = 0.0
    await relay.drain()
    assert OLDEST.labels("uploads")._value.get() == 0


def unbounded(**fields: Any) -> FileUploaded:
    """An event whose schema forgot a maximum."""
    made = Upload(id="file-1", tenant_id=TENANT)
    made.upload()
    [event] = made.take_pending()
    return event.model_copy(update=fields)  # type: ignore[return-value]


async def test_an_event_that_is_too_large_is_refused_where_it_is_made(shared_space: Space) -> None:
    store = unstarted(shared_space).aggregates("uploads", Upload)
    await store.add(upload())
    with pytest.raises(TooLarge, match=r"file.uploaded.v1 of file-1 .*'filename'"):
        await store.update(TENANT, "file-1", lambda one: one.record(unbounded(filename="x" * MOST_EVENT_BYTES)))
    with pytest.raises(Invalid, match=r"file.uploaded.v1 of file-1 cannot be written"):
        await store.update(TENANT, "file-1", lambda one: one.record(unbounded(filename="cut \ud83d")))
    await store.update(TENANT, "file-1", lambda one: one.record(unbounded(filename="x" * (MOST_EVENT_BYTES - 500))))


async def test_a_dead_letter_too_large_with_its_reason_is_kept_by_its_beginning(
    shared_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a consumer would try to write it for ever, and commit nothing beyond it."""
    service = unstarted(shared_space, "registry")
    sent: list[tuple[int, dict[str, str]]] = []

    async def publish(value: bytes, *, headers: dict[str, str], **_: Any) -> None:
        if len(value) > 1_000_000:
            raise MessageSizeTooLargeError("too large")
        sent.append((len(value), headers))

    monkeypatch.setattr(service.bus._broker, "publish", publish)
    message = Message("files", 0, 0, b"file-1", b"x" * 1_048_000, {})
    await DeadLetterWriter(service.bus.producer, "registry").write(message, GiveUp("malformed", "no JSON", 1))
    [(size, headers)] = sent
    assert size == MOST_EVENT_BYTES
    assert (headers["x-cut-from"], headers["x-error-code"]) == ("1048000", "malformed")
