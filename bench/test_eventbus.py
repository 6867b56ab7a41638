"""What each guarantee of `eventbus` costs, next to plain aiokafka on the same broker: `make bench`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from chassis.clock import utc_now
from chassis.ids import new_id
from chassis.settings import ServiceSettings
from eventbus import Aggregate, AggregateStore
from runtime import Service
from schemas import Envelope, FileUploaded, ObjectRef, parse, read_envelope, to_message
from testkit import Space, eventually
from testkit.space import Addresses

MANY, FEW, AT_A_TIME = 2000, 200, 64
TENANT = "tenant_a"

Encoded = tuple[bytes, bytes, dict[str, str]]
Rates = dict[str, float]


class Upload(Aggregate):
    created_at: int = 0

    def upload(self) -> None:
        self.record(uploaded(self.id))


def uploaded(file_id: str) -> FileUploaded:
    reference = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1)
    return FileUploaded(tenant_id=TENANT, file_id=file_id, purpose="user_data", filename="a.jsonl", object=reference)


def envelope_of(event: FileUploaded) -> Envelope:
    return Envelope(
        id=new_id("evt_"),
        source="/sartor/ingest",
        type=event.type,
        time=utc_now(),
        subject=event.file_id,
        seq=1,
        tenantid=TENANT,
    )


def events(count: int) -> list[FileUploaded]:
    return [uploaded(f"file-{number}") for number in range(count)]


def encoded(count: int) -> list[Encoded]:
    return [to_message(envelope_of(event), event.model_dump(mode="json")) for event in events(count)]


async def rate(count: int, work: Awaitable[Any]) -> float:
    began = time.perf_counter()
    await work
    return count / (time.perf_counter() - began)


async def side_by_side(work: Callable[[Any], Awaitable[Any]], items: list[Any]) -> None:
    """All items, `AT_A_TIME` of them at the same time."""
    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(item: Any) -> None:
        async with gate:
            await work(item)

    await asyncio.gather(*(one(item) for item in items))


async def one_by_one(work: Callable[[Any], Awaitable[Any]], items: list[Any]) -> None:
    for item in items:
        await work(item)


@pytest.fixture
def corner(addresses: Addresses, tmp_path: Path) -> Callable[[], Space]:
    logging.getLogger().setLevel(logging.ERROR)

    def make() -> Space:
        folder = tmp_path / new_id("")
        folder.mkdir()
        return Space(addresses, folder)

    return make


@asynccontextmanager
async def producing(space: Space) -> AsyncIterator[tuple[Service, AggregateStore[Upload], AIOKafkaProducer]]:
    service = Service("ingest", space.settings(ServiceSettings, "ingest"))
    store = service.aggregates("uploads", Upload)
    producer = AIOKafkaProducer(bootstrap_servers=space.addresses.kafka_bootstrap)
    app = service.app([])
    async with app.router.lifespan_context(app):
        await producer.start()
        try:
            yield service, store, producer
        finally:
            await producer.stop()


def show(title: str, rates: Rates) -> None:
    first = next(iter(rates.values()))
    print(f"\n{title}")
    for name, found in rates.items():
        print(f"  {name:62} {found:8.0f} /s  {found / first:6.3f}")


async def test_producing(corner: Callable[[], Space]) -> None:
    rates: Rates = {}
    space = corner()
    async with producing(space) as (service, store, producer):
        topic = f"{space.prefix}-files"

        async def plain(message: Encoded, *, wait: bool = True) -> Any:
            key, value, headers = message
            pairs = [(name, text.encode()) for name, text in headers.items()]
            sent = await producer.send(topic, value, key=key, headers=pairs)
            return await sent if wait else sent

        async def unacknowledged(message: Encoded) -> None:
            waiting.append(await plain(message, wait=False))

        async def through_bus(event: FileUploaded) -> None:
            await service.bus.producer.publish("files", envelope_of(event), event.model_dump(mode="json"))

        async def add(event: FileUploaded) -> None:
            upload = Upload(id=event.file_id, tenant_id=TENANT)
            upload.upload()
            await store.add(upload)

        waiting: list[Any] = []
        await one_by_one(through_bus, events(5))
        await one_by_one(plain, encoded(5))  # the first sends of a client also look for the broker
        began = time.perf_counter()
        await one_by_one(unacknowledged, encoded(MANY))
        await asyncio.gather(*waiting)
        rates["aiokafka, acks awaited at the end"] = MANY / (time.perf_counter() - began)
        rates[f"aiokafka, {AT_A_TIME} at a time, each ack awaited"] = await rate(
            MANY, side_by_side(plain, encoded(MANY))
        )
        rates["aiokafka, one at a time, each ack awaited"] = await rate(FEW, one_by_one(plain, encoded(FEW)))
        rates[f"Producer.publish, {AT_A_TIME} at a time"] = await rate(MANY, side_by_side(through_bus, events(MANY)))
        rates["Producer.publish, one at a time"] = await rate(FEW, one_by_one(through_bus, events(FEW)))

        async def published() -> None:
            await eventually(empty, within=300, every=0.02)

        async def empty() -> bool:
            return await store.collection.find_one({"outbox.0": {"$exists": True}}) is None

        began = time.perf_counter()
        await side_by_side(add, events(MANY))
        rates[f"outbox, {AT_A_TIME} aggregates written at a time (relay running)"] = MANY / (
            time.perf_counter() - began
        )
        await published()
        rates["outbox and relay: written, published, removed"] = MANY / (time.perf_counter() - began)
    show(f"Producing {MANY} events", rates)
    assert rates[f"Producer.publish, {AT_A_TIME} at a time"] > rates["aiokafka, one at a time, each ack awaited"]


async def read_plain(space: Space, handle: Callable[[Any], Awaitable[None]], *, commit_each: bool, count: int) -> float:
    consumer = AIOKafkaConsumer(
        f"{space.prefix}-files",
        bootstrap_servers=space.addresses.kafka_bootstrap,
        group_id=new_id(f"{space.prefix}-"),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        read, began = 0, 0.0
        async for message in consumer:
            began = began or time.perf_counter()
            await handle(message)
            if commit_each:
                await consumer.commit()
            read += 1
            if read == count:
                await consumer.commit()
                return count / (time.perf_counter() - began)
    finally:
        await consumer.stop()
    raise AssertionError("the topic ended early")


async def read_bus(space: Space, effect: bool, look_up: bool) -> float:
    service = Service("registry", space.settings(ServiceSettings, "registry", topic_prefix=f"{space.prefix}-"))
    moments: list[float] = []
    effects = service.collection("effects")

    async def handle(event: FileUploaded) -> None:
        if effect:
            await effects.update_one({"_id": event.file_id}, {"$setOnInsert": {"at": 1}}, upsert=True)
        moments.append(time.perf_counter())

    async def nothing_waits(_: Any) -> bool:
        return False

    service.bus.subscribe({FileUploaded: handle})
    assert service.bus.consumer is not None
    if not look_up:
        service.bus.consumer.parking.holds = nothing_waits  # type: ignore[method-assign,assignment]
    app = service.app([])
    async with app.router.lifespan_context(app):
        await eventually(lambda: len(moments) >= MANY, within=300)
    return MANY / (moments[-1] - moments[0])


async def fill(space: Space) -> None:
    async with producing(space) as (_, _, producer):
        sent = [
            await producer.send(
                f"{space.prefix}-files", value, key=key, headers=[(k, v.encode()) for k, v in h.items()]
            )
            for key, value, h in encoded(MANY)
        ]
        await asyncio.gather(*sent)


async def test_consuming(corner: Callable[[], Space]) -> None:
    rates: Rates = {}
    spaces = [corner() for _ in range(3)]
    for space in spaces:
        await fill(space)
    first = spaces[0]
    effects = Service("evaluator", first.settings(ServiceSettings, "evaluator")).collection("effects")

    async def look(message: Any) -> None:
        read_envelope(message.headers)
        parse(FileUploaded, message.value)

    async def effect(message: Any) -> None:
        await look(message)
        await effects.update_one({"_id": message.key.decode()}, {"$setOnInsert": {"at": 1}}, upsert=True)

    rates["aiokafka, decoded, one commit at the end"] = await read_plain(first, look, commit_each=False, count=MANY)
    rates["aiokafka, decoded, committed after each"] = await read_plain(first, look, commit_each=True, count=FEW)
    rates["aiokafka, an effect each, one commit at the end"] = await read_plain(
        first, effect, commit_each=False, count=MANY
    )
    await effects.delete_many({})
    rates["aiokafka, an effect each, committed after each"] = await read_plain(
        first, effect, commit_each=True, count=FEW
    )
    rates["Bus, decoded, ordered by key, committed when done"] = await read_bus(spaces[0], effect=False, look_up=False)
    rates["  + asks whether the key is parked"] = await read_bus(spaces[1], effect=False, look_up=True)
    rates["  + an idempotent effect in MongoDB"] = await read_bus(spaces[2], effect=True, look_up=True)
    show(f"Consuming {MANY} events", rates)
    assert rates["  + an idempotent effect in MongoDB"] > rates["aiokafka, an effect each, committed after each"]
