"""Topics are brought to what the catalogue asks for, and dead letters are read whatever lies among them."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import InvalidPartitionsError

from chassis.errors import Conflict
from chassis.settings import ServiceSettings
from eventbus import DeadLetters
from eventbus.messages.topics import _add_partitions, ensure_topics
from runtime import Service
from testkit import Space


class Admin:
    """A cluster whose topics can get more partitions; the local stack's broker cannot give them any."""

    def __init__(self, **partitions: int) -> None:
        self.partitions = partitions

    async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"topic": name, "partitions": [{}] * self.partitions.get(name, 0)} for name in names]

    async def create_partitions(self, wanted: dict[str, NewPartitions]) -> None:
        for name, partitions in wanted.items():
            if name == "documents":
                raise InvalidPartitionsError("another service was faster")
            self.partitions[name] = partitions.total_count


async def test_a_topic_with_fewer_partitions_gets_more() -> None:
    admin = Admin(files=1, datasets=5, chats=3, documents=2)
    wanted = dict.fromkeys((*admin.partitions, "models"), 3)
    await _add_partitions(admin, wanted)  # type: ignore[arg-type]
    assert admin.partitions == {"files": 3, "datasets": 5, "chats": 3, "documents": 2}


async def test_a_service_starts_where_the_broker_cannot_add_partitions(space: Space) -> None:
    settings = space.settings(ServiceSettings, "ingest")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(f"{settings.topic_prefix}files", 1, 1)])
    finally:
        await admin.close()
    await ensure_topics(settings, "ingest")


async def test_foreign_messages_among_the_dead_letters_spoil_no_list(space: Space) -> None:
    settings = space.settings(ServiceSettings, "accounts")
    await ensure_topics(settings, "accounts")
    service = Service("accounts", settings)
    ours = [("x-original-topic", b"files"), ("x-attempts", b"3"), ("x-error-code", b"malformed")]
    foreign = [[("x-attempts", attempts)] for attempts in (b"many", b"-1", b"9" * 5000, None, b"", b"\xff")]
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
        for headers in (*foreign, ours):
            await producer.send_and_wait(f"{settings.topic_prefix}files-dlq", b"?", headers=headers)
    letters = await DeadLetters(settings, service.bus.producer, service.collection("replays")).find()
    assert sorted((letter.topic, letter.attempts) for letter in letters) == [("", 0)] * len(foreign) + [("files", 3)]


async def test_a_letter_of_which_only_the_beginning_was_kept_is_not_sent_back(space: Space) -> None:
    settings = space.settings(ServiceSettings, "accounts")
    await ensure_topics(settings, "accounts")
    service = Service("accounts", settings)
    headers = [("x-original-topic", b"files"), ("x-cut-from", b"1048000")]
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
        await producer.send_and_wait(f"{settings.topic_prefix}files-dlq", b'{"file', headers=headers)
    letters = DeadLetters(settings, service.bus.producer, service.collection("replays"))
    [letter] = await letters.find()
    with pytest.raises(Conflict, match=r"'files.0' holds only the first 6 of its message's 1048000 bytes"):
        await letters.replay(letter)
    [letter] = await letters.find()
    assert letter.replayed_at is None
