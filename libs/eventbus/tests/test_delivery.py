"""Outbox, consumers, dead letters and leases on the local stack's real brokers and databases."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from chassis.clock import utc_now
from chassis.errors import Conflict, Invalid, NotFound, Transient
from chassis.ids import new_id, now
from chassis.settings import ServiceSettings
from eventbus import Aggregate, AggregateStore, envelope_handled
from eventbus.consume.attempts import DEAD_LETTERS_IN_A_ROW
from eventbus.consume.parking import LEASE_SECONDS, MOST_BEHIND_ONE_KEY, Parking
from eventbus.consume.sequence_gaps import OUT_OF_SEQUENCE
from eventbus.dead_letters.writer import COLLECT_SECONDS
from eventbus.messages.message import Message
from runtime import Service
from schemas import DatasetRejected, Envelope, Event, FileDeleted, FileUploaded, ObjectRef
from stores.leases import ABANDONED, UNCLAIMED
from testkit import Space, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANT = "tenant_a"


class Upload(Aggregate):
    """A small aggregate to test with."""

    created_at: int = 0
    name: str = ""

    def upload(self) -> None:
        self.record(
            FileUploaded(
                tenant_id=self.tenant_id,
                file_id=self.id,
                purpose="user_data",
                filename=self.name,
                object=ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1),
            )
        )

    def rename(self, name: str) -> None:
        self.name = name

    def reject(self) -> None:
        self.record(
            DatasetRejected(
                tenant_id=self.tenant_id, file_id=self.id, purpose="user_data", code="empty", message="empty"
            )
        )

    def delete(self) -> None:
        self.record(FileDeleted(tenant_id=self.tenant_id, file_id=self.id))


class Waiting(Aggregate):
    """Work that is found by its state."""

    created_at: int = 0
    state: str = "waiting"


def upload(number: int = 1, tenant_id: str = TENANT) -> Upload:
    made = Upload(id=f"file-{number}", tenant_id=tenant_id, created_at=number, name="a.jsonl")
    made.upload()
    return made


@asynccontextmanager
async def producer(space: Space, replica: str = "one") -> AsyncIterator[tuple[Service, AggregateStore[Upload]]]:
    service = Service("ingest", space.settings(ServiceSettings, "ingest", replica_id=replica))
    store = service.aggregates("uploads", Upload)
    app = service.app([])
    async with app.router.lifespan_context(app):
        yield service, store


@asynccontextmanager
async def consumer(space: Space, handlers: dict[type[Event], object]) -> AsyncIterator[Service]:
    service = Service("registry", space.settings(ServiceSettings, "registry"))
    service.bus.subscribe(handlers)  # type: ignore[arg-type]
    app = service.app([])
    async with app.router.lifespan_context(app):
        yield service


def unstarted(space: Space, name: str) -> Service:
    """A service that nobody starts, in a database of a test's own."""
    return Service(name, space.settings(ServiceSettings, name, mongo_database_prefix=f"{new_id(space.prefix)}_"))


Handlers = dict[type[Event], Callable[[Any], Awaitable[None]]]


@dataclass
class World:
    """A producer and a consumer that run, and one test's tenant, whose events the test handles."""

    space: Space
    settings: ServiceSettings
    store: AggregateStore[Upload]
    service: Service
    seen: list[tuple[Envelope, Event]]
    handlers: dict[str, Handlers]
    tenant: str = field(default_factory=lambda: new_id("tenant_"))

    def handle(self, handlers: Handlers) -> None:
        self.handlers[self.tenant] = handlers

    def id(self, number: int) -> str:
        return f"file-{self.tenant}-{number}"

    def upload(self, number: int = 1) -> Upload:
        made = Upload(id=self.id(number), tenant_id=self.tenant, created_at=number, name="a.jsonl")
        made.upload()
        return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(shared_space: Space) -> AsyncIterator[dict[str, Any]]:
    """A producer and a consumer for the tests of this file; the events of each tenant are its test's to handle."""
    handlers: dict[str, Handlers] = {}
    seen: list[tuple[Envelope, Event]] = []

    async def handle(event: Event) -> None:
        seen.append((envelope_handled(), event))
        if handle_it := handlers[event.tenant_id].get(type(event)):
            await handle_it(event)

    async with (
        producer(shared_space) as (making, store),
        consumer(shared_space, dict.fromkeys((FileUploaded, FileDeleted, DatasetRejected), handle)) as service,
    ):
        yield {
            "space": shared_space,
            "settings": making.settings,
            "store": store,
            "service": service,
            "seen": seen,
            "handlers": handlers,
        }


@pytest.fixture
def world(shared: dict[str, Any]) -> World:
    return World(**shared)


@pytest_asyncio.fixture(loop_scope="module")
async def store(shared: dict[str, Any]) -> AggregateStore[Upload]:
    """A collection of the test's own, whose events nobody publishes."""
    collection = shared["store"].collection.database[new_id("uploads_")]
    made = AggregateStore(collection, Upload, "ingest", lambda: None)
    await made.prepare()
    return made


async def test_events_follow_their_state_in_order_and_leave_the_outbox(world: World) -> None:
    got: list[Event] = []

    async def keep(event: Event) -> None:
        got.append(event)

    world.handle({FileUploaded: keep, FileDeleted: keep})
    for number in range(5):
        await world.store.add(world.upload(number))
        await world.store.update(world.tenant, world.id(number), Upload.delete)
    await eventually(lambda: len(got) == 10)
    for number in range(5):
        mine = [type(event) for event in got if event.aggregate_id == world.id(number)]
        assert mine == [FileUploaded, FileDeleted]

    async def empty() -> bool:
        query = {"tenant_id": world.tenant, "outbox.0": {"$exists": True}}
        return await world.store.collection.count_documents(query) == 0

    await eventually(empty)


async def test_each_stream_of_an_aggregate_is_counted_without_gaps(world: World) -> None:
    world.handle({})
    mine = f"file-{world.tenant}.b"
    await world.store.add(Upload(id=mine, tenant_id=world.tenant))
    for change in (Upload.upload, Upload.reject, Upload.delete, Upload.reject):
        await world.store.update(world.tenant, mine, change)

    def seen() -> list[tuple[str, int, str]]:
        found = [(event.topic, one.seq, one.origin) for one, event in world.seen if one.subject == mine]
        return sorted(found)

    await eventually(lambda: len(seen()) == 4)
    assert seen() == [(topic, seq, mine) for topic in ("datasets", "files") for seq in (1, 2)]


async def test_a_consumer_counts_gaps_and_repetitions(world: World) -> None:
    def counted() -> dict[str, float]:
        return {kind: OUT_OF_SEQUENCE.labels(kind)._value.get() for kind in ("gap", "repeated")}

    handled: list[str] = []

    async def keep(event: FileDeleted) -> None:
        handled.append(event.file_id)

    world.handle({FileDeleted: keep})
    before = counted()
    event = FileDeleted(tenant_id=world.tenant, file_id=world.id(1))
    for seq in (1, 2, 4, 4, 5):
        envelope = Envelope(
            id=new_id("evt_"),
            source="/sartor/ingest",
            type=event.type,
            time=utc_now(),
            subject=event.file_id,
            seq=seq,
            origin=event.file_id,
            tenantid=world.tenant,
        )
        await world.service.bus.producer.publish("files", envelope, event.model_dump(mode="json"))
    await eventually(lambda: len(handled) == 5)
    assert {kind: counted()[kind] - before[kind] for kind in before} == {"gap": 1, "repeated": 1}


async def test_a_permanent_error_is_dead_lettered_at_once_and_the_next_event_is_handled(world: World) -> None:
    handled: list[str] = []

    async def refuse_first(event: FileUploaded) -> None:
        handled.append(event.file_id)
        if event.file_id == world.id(0):
            raise Invalid("the first is poison", code="poison")

    world.handle({FileUploaded: refuse_first})
    await world.store.add(world.upload(0))
    await eventually(lambda: handled == [world.id(0)])
    await world.store.add(world.upload(1))
    await eventually(lambda: world.id(1) in handled)
    assert handled.count(world.id(0)) == 1
    letter = await _dead_letter(world.space, "files", of=world.tenant)
    assert letter["x-error-code"] == "poison"
    assert letter["x-error"] == "the first is poison"
    assert letter["x-attempts"] == "1"
    assert letter["x-consumer"] == "registry"
    assert letter["ce_type"] == "file.uploaded.v1"


async def test_a_swarm_of_dead_letters_is_written_together_and_when_the_broker_takes_it(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for them: the broker refuses them until the next event of each key is handled."""
    handled: Counter[tuple[str, bool]] = Counter()
    written: list[float] = []
    here = asyncio.get_running_loop()

    async def refuse_uploads(event: FileUploaded | FileDeleted) -> None:
        handled[event.file_id, bool(written)] += 1
        if isinstance(event, FileUploaded):
            raise Invalid("poison", code="poison")

    handlers: dict[type[Event], object] = {FileUploaded: refuse_uploads, FileDeleted: refuse_uploads}
    async with producer(space) as (_, store), consumer(space, handlers) as service:
        send = service.bus.producer.send

        async def sometimes(topic: str, *message: Any) -> None:
            if handled.total() < 80:
                raise Transient("the broker is away")
            written.append(here.time())
            await send(topic, *message)

        monkeypatch.setattr(service.bus.producer, "send", sometimes)
        await asyncio.gather(*(store.add(upload(number)) for number in range(40)))
        await asyncio.gather(*(store.update(TENANT, f"file-{number}", Upload.delete) for number in range(40)))
        await eventually(lambda: len(written) == 40, within=30)
        assert handled == {(f"file-{number}", False): 2 for number in range(40)}
        pauses = [after - before for before, after in pairwise(written)]
        assert all(pause < 0.2 or pause > COLLECT_SECONDS - 0.1 for pause in pauses)
        assert (await _dead_letter(space, "files"))["x-error-code"] == "poison"


async def test_a_transient_error_is_tried_again(world: World) -> None:
    attempts: list[str] = []

    async def fail_twice(event: FileUploaded) -> None:
        attempts.append(event.file_id)
        if len(attempts) < 3:
            raise ConnectionError("away")

    world.handle({FileUploaded: fail_twice})
    await world.store.add(world.upload())
    await eventually(lambda: len(attempts) == 3)
    await asyncio.sleep(1)
    assert attempts == [world.id(1)] * 3


async def test_a_key_that_cannot_be_handled_waits_and_every_other_goes_on(world: World) -> None:
    """The first event of a file fails for a while: its second, which would not, waits behind it, another's does not."""
    away, handled = True, []

    async def handle(event: FileUploaded | FileDeleted) -> None:
        if away and event.file_id == world.id(1) and isinstance(event, FileUploaded):
            raise Transient("a peer is away")
        handled.append((event.type.split(".")[1], event.file_id))

    world.handle({FileUploaded: handle, FileDeleted: handle})
    await world.store.add(world.upload(1))
    await world.store.update(world.tenant, world.id(1), Upload.delete)
    await world.store.add(world.upload(2))
    await eventually(lambda: ("uploaded", world.id(2)) in handled, within=10)
    parked, mine = world.service.collection("parked"), {"messages.headers.ce_tenantid": world.tenant}

    async def both_wait() -> bool:
        found = await parked.find_one(mine)
        return found is not None and len(found["messages"]) == 2

    await eventually(both_wait)
    assert handled == [("uploaded", world.id(2))]
    away = False
    await eventually(lambda: len(handled) == 3, within=30)
    assert handled[1:] == [("uploaded", world.id(1)), ("deleted", world.id(1))]

    async def empty() -> bool:
        return await parked.count_documents(mine) == 0

    await eventually(empty)


async def test_what_is_parked_survives_the_consumer(space: Space) -> None:
    handled: list[str] = []

    async def refuse(_: FileUploaded) -> None:
        raise Transient("a peer is away")

    async def accept(event: FileUploaded) -> None:
        handled.append(event.file_id)

    async with producer(space) as (_, store):
        async with consumer(space, {FileUploaded: refuse}) as service:
            await store.add(upload(1))

            async def parked() -> bool:
                return await service.collection("parked").count_documents({}) == 1

            await eventually(parked, within=10)
        async with consumer(space, {FileUploaded: accept}):
            await eventually(lambda: handled == ["file-1"], within=80)


async def test_a_message_read_again_is_parked_once_and_a_full_key_holds_the_partition(shared_space: Space) -> None:
    keys = unstarted(shared_space, "registry").collection("parked")
    parking = Parking(keys, "one")
    message = Message("files", 0, 7, b"k", b"{}", {})
    assert await parking.park(message, 3)
    assert await parking.park(message, 3)
    claim = await parking.claim()
    assert claim is not None
    assert (claim.message, claim.attempts) == (message, 3)
    assert await parking.claim() is None
    *behind, last = (replace(message, offset=offset) for offset in range(8, 8 + MOST_BEHIND_ONE_KEY - 1))
    parked = [{"place": one.place, "attempts": 0, **asdict(one)} for one in behind]
    await keys.update_one({"_id": message.order_key}, {"$push": {"messages": {"$each": parked}}})
    assert await parking.park(last, 0)
    assert not await parking.park(replace(message, offset=5000), 0)
    assert await parking.park(replace(message, key=b"other", offset=5000), 0)
    assert await parking.done(claim, LEASE_SECONDS) is None
    offsets = set()
    while again := await parking.claim():
        offsets.add((again.message.key, again.message.offset))
    assert offsets == {(b"k", 8), (b"other", 5000)}


async def test_a_late_worker_of_a_parked_key_cannot_finish_a_later_message(shared_space: Space) -> None:
    """Who was stopped at the message before still holds a claim on the key, and must not use it."""
    service = unstarted(shared_space, "registry")
    keys = service.collection("parked")
    stopped, other = Parking(keys, "stopped"), Parking(keys, "other")
    message = Message("files", 0, 7, b"k", b"{}", {})
    assert await stopped.park(message, 3)
    late = await stopped.claim()
    assert late is not None
    await keys.update_one({"_id": late.id}, {"$set": {"lease.until_ms": 0}})
    rightful = await other.claim()
    assert rightful is not None
    await other.done(rightful, 1)
    assert await other.park(replace(message, offset=8), 3)
    assert await other.claim() is not None
    assert await stopped.done(late, 1) is None
    await stopped.failed(late, 60.0)
    left = await keys.find_one({})
    assert left is not None
    assert [(one["offset"], one["attempts"]) for one in left["messages"]] == [(8, 3)]


async def test_the_messages_of_a_parked_key_follow_each_other_under_one_lease(shared_space: Space) -> None:
    service = unstarted(shared_space, "registry")
    keys = service.collection("parked")
    parking, other = Parking(keys, "one"), Parking(keys, "other")
    message = Message("files", 0, 7, b"k", b"{}", {})
    for offset in (7, 8, 9):
        await parking.park(replace(message, offset=offset), offset)
    first = await parking.claim()
    assert first is not None
    second = await parking.done(first, 1)
    assert second is not None
    assert (second.message.offset, second.attempts, second.fence) == (8, 8, first.fence)
    assert await other.claim() is None
    await parking.failed(second, 0.0)
    again = await eventually(other.claim)
    assert (again.message.offset, again.attempts) == (8, 9)
    assert await other.done(replace(again, ends_at=time.monotonic()), 1) is None
    third = await parking.claim()
    assert third is not None
    assert third.message.offset == 9
    assert await parking.done(third, 1) is None
    assert await keys.count_documents({}) == 0


async def test_a_parked_message_that_failed_waits_for_its_pause(shared_space: Space) -> None:
    service = unstarted(shared_space, "registry")
    parking = Parking(service.collection("parked"), "one")
    await parking.park(Message("files", 0, 7, b"k", b"{}", {}), 3)
    claim = await parking.claim()
    assert claim is not None
    began = time.monotonic()
    await parking.failed(claim, 1.0)
    await eventually(parking.claim, every=0.02)
    assert 0.9 < time.monotonic() - began < 2.0


async def test_what_is_parked_is_known(shared_space: Space) -> None:
    service = unstarted(shared_space, "registry")
    parking = Parking(service.collection("parked"), "one")
    messages = [Message("files", 0, number, f"k{number}".encode(), b"{}", {}) for number in range(8)]
    await asyncio.gather(*(parking.park(message, 1) for message in messages[:3]))
    answers = await asyncio.gather(*(parking.holds(message) for message in messages))
    assert answers == [True] * 3 + [False] * 5


async def test_many_dead_letters_in_a_row_make_the_consumer_unready(space: Space) -> None:
    poison = True

    async def handle(_: FileUploaded) -> None:
        if poison:
            raise Invalid("poison", code="poison")

    async with producer(space) as (_, store), consumer(space, {FileUploaded: handle}) as service:

        async def ready() -> bool:
            try:
                await service.bus.check_consumer()
            except Transient:
                return False
            return True

        async def unready() -> bool:
            return not await ready()

        for number in range(DEAD_LETTERS_IN_A_ROW):
            assert await ready()
            await store.add(upload(number))
        await eventually(unready, within=30)
        poison = False
        await store.add(upload(1000))
        await eventually(ready)


async def test_a_malformed_message_is_kept_as_it_came(world: World) -> None:
    async def never(_: Event) -> None:
        raise AssertionError("a malformed message reached a handler")

    world.handle({FileUploaded: never})
    await world.service.bus.producer.send("files", world.tenant.encode(), b"not json", {"ce_type": "file.uploaded.v1"})
    letter = await _dead_letter(world.space, "files", of=world.tenant)
    assert letter["value"] == "not json"
    assert letter["x-error-code"] == "malformed"


@pytest.mark.parametrize(
    "strange",
    [("content-type", b"application/json"), ("ce_source", b"\xff\xfe"), ("x-nothing", None)],
    ids=["a body that is not what it says", "a header that is no text", "a header that is empty"],
)
async def test_a_message_that_the_client_library_cannot_read_is_a_dead_letter(
    world: World, strange: tuple[str, bytes | None]
) -> None:
    async def never(_: Event) -> None:
        raise AssertionError("a malformed message reached a handler")

    world.handle({FileUploaded: never})
    headers = [("ce_type", b"file.uploaded.v1"), strange]
    producer = AIOKafkaProducer(bootstrap_servers=world.space.addresses.kafka_bootstrap)
    await producer.start()
    topic, key = f"{world.space.prefix}-files", world.tenant.encode()
    await producer.send_and_wait(topic, b'{"file_id": ', key, headers=headers)
    await producer.stop()
    letter = await _dead_letter(world.space, "files", of=world.tenant)
    assert letter["value"] == '{"file_id": '
    assert letter["x-error-code"] == "malformed"


async def test_types_nobody_reads_are_skipped(space: Space) -> None:
    got: list[Event] = []

    async def keep(event: Event) -> None:
        got.append(event)

    async with producer(space) as (service, store), consumer(space, {FileDeleted: keep}):
        await service.bus.producer.send("files", b"k", b"{}", {"ce_type": "file.from_the_future.v9"})
        await store.add(upload())
        await store.update(TENANT, "file-1", Upload.delete)
        await eventually(lambda: [type(event) for event in got] == [FileDeleted])


async def _dead_letter(space: Space, topic: str, of: str = "") -> dict[str, str]:
    """The first dead letter whose key, or whose headers, name a tenant."""
    reader = AIOKafkaConsumer(
        f"{space.prefix}-{topic}-dlq",
        bootstrap_servers=space.addresses.kafka_bootstrap,
        auto_offset_reset="earliest",
        group_id=None,
    )
    await reader.start()
    try:
        async with asyncio.timeout(20):
            while True:
                message = await reader.getone()
                headers = {name: value.decode() for name, value in message.headers}
                if not of or of in (message.key.decode(), headers.get("ce_tenantid")):
                    return {"value": message.value.decode(), **headers}
    finally:
        await reader.stop()


async def test_two_writers_cannot_overwrite_each_other(store: AggregateStore[Upload]) -> None:
    await store.add(upload())
    mine, theirs = await store.get(TENANT, "file-1"), await store.get(TENANT, "file-1")
    mine.rename("mine")
    await store.save(mine)
    theirs.rename("theirs")
    with pytest.raises(Conflict) as caught:
        await store.save(theirs)
    assert caught.value.code == "stale_write"
    assert (await store.get(TENANT, "file-1")).name == "mine"


async def test_update_tries_again_on_the_newer_document(store: AggregateStore[Upload]) -> None:
    await store.add(upload())
    await asyncio.gather(*(store.update(TENANT, "file-1", lambda it: it.rename(it.name + "x")) for _ in range(4)))
    assert (await store.get(TENANT, "file-1")).name == "a.jsonlxxxx"


async def test_another_tenant_finds_nothing(store: AggregateStore[Upload]) -> None:
    await store.add(upload())
    with pytest.raises(NotFound):
        await store.get("tenant_b", "file-1")
    assert await store.find("tenant_b") == []
    with pytest.raises(NotFound):
        await store.find("tenant_b", after="file-1")


async def test_add_once_has_one_effect(world: World) -> None:
    world.handle({})
    for _ in range(3):
        await world.store.add_once(world.upload())
    await world.store.add(world.upload(2))

    def seen() -> list[str]:
        return [event.aggregate_id for one, event in world.seen if one.tenantid == world.tenant]

    await eventually(lambda: len(seen()) == 2)
    assert seen().count(world.id(1)) == 1


async def test_lists_page_by_creation(store: AggregateStore[Upload]) -> None:
    for number in range(5):
        await store.add(upload(number))
    newest = await store.find(TENANT, limit=2)
    assert [it.id for it in newest] == ["file-4", "file-3"]
    assert [it.id for it in await store.find(TENANT, limit=2, after="file-3")] == ["file-2", "file-1"]
    assert [it.id for it in await store.find(TENANT, newest_first=False, after="file-3")] == ["file-4"]


async def test_work_that_nobody_ever_began_is_known(shared_space: Space) -> None:
    store = unstarted(shared_space, "ingest").aggregates("uploads", Waiting)
    for number, age in enumerate((500, 300, 100)):
        await store.add(Waiting(id=f"file-{number}", tenant_id=TENANT, created_at=now() - age))
    begun = await store.claim({"_id": "file-0"}, "w", 60)
    assert begun is not None
    await store.leases.release("file-0", begun.lease.fence)
    assert 300 <= await store.leases.unclaimed({"state": "waiting"}) < 400
    watching = asyncio.create_task(store.leases.watch({"state": "waiting"}))
    try:
        await eventually(lambda: UNCLAIMED.labels("uploads")._value.get() >= 300)
    finally:
        watching.cancel()
    assert await store.leases.unclaimed({"state": "done"}) == 0


async def test_a_lease_is_exclusive_and_its_fence_refuses_late_writers(store: AggregateStore[Upload]) -> None:
    await store.add(upload())
    first = await store.claim({}, "one", 1)
    assert first is not None
    assert await store.claim({}, "two", 1) is None
    second = await eventually(lambda: store.claim({}, "two", 5), within=5)
    assert second.lease.fence == first.lease.fence + 1
    assert not await store.leases.renew("file-1", first.lease.fence, 5)
    assert await store.leases.renew("file-1", second.lease.fence, 5)
    with pytest.raises(Conflict) as caught:
        await store.update(TENANT, "file-1", lambda it: it.rename("zombie"), fence=first.lease.fence)
    assert caught.value.code == "stale_fence"
    await store.update(TENANT, "file-1", lambda it: it.rename("rightful"), fence=second.lease.fence)


async def test_a_released_lease_can_be_claimed_at_once_and_a_delayed_one_later(store: AggregateStore[Upload]) -> None:
    await store.add(upload())
    claim = await store.claim({}, "one", 60)
    assert claim is not None
    await store.leases.release("file-1", claim.lease.fence)
    claim = await store.claim({}, "two", 60)
    assert claim is not None
    await store.leases.delay("file-1", claim.lease.fence, 1)
    assert await store.claim({}, "three", 60) is None
    await eventually(lambda: store.claim({}, "three", 60), within=5)


async def test_work_is_abandoned_once_its_lease_is_over_and_nobody_goes_on(space: Space) -> None:
    begun = {"name": {"$ne": "done"}}
    service = Service("ingest", space.settings(ServiceSettings, "ingest"))
    store = service.aggregates("uploads", Upload)
    service.watch_leases(store, begun)
    app = service.app([])
    gauge = ABANDONED.labels("uploads")

    async def lain(longer_than: float) -> bool:
        return await store.leases.abandoned(begun) > longer_than

    for number in range(4):
        await store.add(upload(number))
    assert not await lain(0), "nobody began"
    for seconds in (0.1, 60, 0.1, 0.1):
        assert await store.claim({"lease.fence": 0}, "worker-1", seconds)
    await store.leases.release("file-2", 1)
    await store.update(TENANT, "file-3", lambda it: it.rename("done"))
    async with app.router.lifespan_context(app):
        await eventually(lambda: lain(1), within=5)
        await eventually(lambda: gauge._value.get() > 0)
    assert await store.claim({}, "worker-2", 60)
    assert await store.claim({"_id": "file-0"}, "worker-3", 60) is None
    assert not await lain(0), "held, held, given back, over"


async def test_many_workers_claim_each_job_once(store: AggregateStore[Upload]) -> None:
    for number in range(20):
        await store.add(upload(number))

    async def work(owner: str) -> list[str]:
        mine = []
        while job := await store.claim({}, owner, 60):
            mine.append(job.id)
        return mine

    claimed = [name for names in await asyncio.gather(*(work(f"w{n}") for n in range(5))) for name in names]
    assert sorted(claimed) == sorted(f"file-{n}" for n in range(20))


async def test_a_rejected_dataset_is_an_event_of_its_file(world: World) -> None:
    event = DatasetRejected(
        tenant_id=world.tenant, file_id="file-1", purpose="user_data", code="empty", message="empty"
    )
    world.handle({})
    async with world.space.publisher("ingest") as publish:
        await publish(event)

    def seen() -> list[str]:
        return [one.subject for one, found in world.seen if found == event]

    await eventually(seen)
    assert seen() == ["file-1"]
