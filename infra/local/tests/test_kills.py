"""What the local stand-ins acknowledged outlives a SIGKILL, also one in the middle of work."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from minio import Minio

from chassis.settings import ServiceSettings
from localstack import LocalStack
from stores import mongo
from testkit import eventually
from testkit.injector import recorded

PARTITIONS, PRODUCERS = 3, 3
WRITES = 300


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """One of its own: nobody else's may be killed."""
    with LocalStack(tmp_path_factory.mktemp("stack"), services=(), usual_ports=False) as running:
        yield running


def kill(stack: LocalStack, name: str) -> None:
    [process] = [one for one in stack.status(sample_seconds=0) if one.name == name]
    os.kill(process.pid, signal.SIGKILL)


async def made(bootstrap: str, topic: str) -> None:
    """The topic is there, with its partitions."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()


@pytest.mark.parametrize("victim", ["kafka", "objects", "broker_storage"])
async def test_the_broker_goes_on_where_it_was_when_it_or_its_storage_is_killed_under_load(
    stack: LocalStack, victim: str
) -> None:
    bootstrap, topic = stack.addresses()["kafka_bootstrap"], f"killed-{victim}"
    await made(bootstrap, topic)
    sent: dict[str, tuple[int, int]] = {}
    backwards: list[str] = []

    async def produce(name: int) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=5000)
        await producer.start()
        last: dict[int, int] = {}
        try:
            for number in range(10_000):
                value = f"{name}-{number}"
                with contextlib.suppress(KafkaError, TimeoutError):
                    async with asyncio.timeout(5):
                        at = await producer.send_and_wait(topic, value.encode(), partition=number % PARTITIONS)
                    if at.offset <= last.get(at.partition, -1):
                        backwards.append(f"{value}: {at.offset} after {last[at.partition]} in {at.partition}")
                    last[at.partition] = at.offset
                    sent[value] = (at.partition, at.offset)
        finally:
            await producer.stop()

    async def more(count: int) -> None:
        goal = len(sent) + count

        async def reached() -> bool:
            return len(sent) >= goal

        await eventually(reached, within=60, every=0.05)

    producing = [asyncio.create_task(produce(name)) for name in range(PRODUCERS)]
    await more(60)
    kill(stack, victim)
    await more(60)
    for task in producing:
        task.cancel()
    await asyncio.gather(*producing, return_exceptions=True)
    kept = {message.value.decode() for message in await recorded(bootstrap, topic)}
    assert not backwards
    assert set(sent) <= kept


async def test_the_first_message_is_the_earliest_though_its_upload_ended_after_the_second(stack: LocalStack) -> None:
    addresses, topic = stack.addresses(), "overtaken"
    await made(addresses["kafka_bootstrap"], topic)
    producer = AIOKafkaProducer(bootstrap_servers=addresses["kafka_bootstrap"], acks="all")
    await producer.start()
    for value in (b"first", b"second"):
        await producer.send_and_wait(topic, value, partition=0)
    await producer.stop()
    objects = Minio(
        addresses["objects_endpoint"], addresses["objects_access_key"], addresses["objects_secret_key"], secure=False
    )
    [first] = [
        one.object_name or ""
        for one in objects.list_objects(bucket_name="kafka", recursive=True)
        if f"/{topic}/" in (name := one.object_name or "") and name.endswith(f"{0:020}.batch")
    ]
    body = objects.get_object(bucket_name="kafka", object_name=first).read()
    objects.put_object(bucket_name="kafka", object_name=first, data=io.BytesIO(body), length=len(body))
    kept = [message.value for message in await recorded(addresses["kafka_bootstrap"], topic)]
    assert kept == [b"first", b"second"]


async def test_the_database_keeps_what_it_acknowledged(stack: LocalStack) -> None:
    settings = ServiceSettings(mongo_url=stack.addresses()["mongo_url"])  # type: ignore[arg-type]
    documents = mongo.connect(settings, "kills")["documents"]
    await documents.insert_many([{"_id": number, "done": False} for number in range(2 * WRITES)])
    for number in range(WRITES):
        await documents.update_one({"_id": number}, {"$set": {"done": True}})
        await documents.find_one_and_update({"_id": WRITES + number}, {"$set": {"done": True}})
    kill(stack, "mongodb")

    async def answers() -> bool:
        with contextlib.suppress(mongo.PyMongoError):
            await mongo.ping(documents)
            return True
        return False

    await eventually(answers, within=60)
    assert await documents.count_documents({"done": True}) == 2 * WRITES


def test_uploads_with_a_condition_that_does_not_hold_are_refused(stack: LocalStack) -> None:
    port, addresses = stack.home.state["ports"]["broker_storage"], stack.addresses()
    client = Minio(f"127.0.0.1:{port}", addresses["objects_access_key"], addresses["objects_secret_key"], secure=False)
    client.make_bucket(bucket_name="conditions")

    def put(body: bytes, **condition: str) -> int:
        headers = {name.replace("_", "-"): value for name, value in condition.items()}
        url = client.get_presigned_url("PUT", "conditions", "a b/ü")
        return int(client._http.urlopen("PUT", url, body=body, headers=headers).status)

    def now() -> bytes:
        return bytes(client.get_object(bucket_name="conditions", object_name="a b/ü").read())

    assert put(b"first", if_none_match="*") == 200
    assert put(b"second", if_none_match="*") == 412
    first = client.stat_object(bucket_name="conditions", object_name="a b/ü").etag
    assert put(b"second", if_match=f'"{first}"') == 200
    assert put(b"third", if_match=f'"{first}"') == 412
    assert now() == b"second"
    client.put_object(bucket_name="conditions", object_name="a b/ü", data=io.BytesIO(b"any"), length=3)
    assert now() == b"any", "without a condition everything is as in the store"
