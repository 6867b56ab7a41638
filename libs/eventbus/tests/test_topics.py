"""Topics are brought to what the catalogue asks for, and dead letters are read whatever lies among them."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from chassis.settings import ServiceSettings
from eventbus.dead_letters import DeadLetters
from eventbus.service import Service
from eventbus.topics import ensure_topics
from testkit import Space


async def test_a_topic_with_fewer_partitions_gets_more(space: Space) -> None:
    settings = space.settings(ServiceSettings, "ingest")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        topics = {f"{settings.topic_prefix}files": 1, f"{settings.topic_prefix}datasets": 5}
        await admin.create_topics([NewTopic(name, number, 1) for name, number in topics.items()])
        for _ in range(2):
            await ensure_topics(settings, "ingest")
        there = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics(list(topics))}
        assert list(there.values()) == [3, 5]
    finally:
        await admin.close()


@pytest.mark.parametrize("attempts", [b"many", b"-1", b"9" * 5000, None, b""], ids=str)
async def test_a_foreign_message_among_the_dead_letters_spoils_no_list(space: Space, attempts: bytes | None) -> None:
    settings = space.settings(ServiceSettings, "accounts")
    await ensure_topics(settings, "accounts")
    service = Service("accounts", settings)
    ours = [("x-original-topic", b"files"), ("x-attempts", b"3"), ("x-error-code", b"malformed")]
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
        for headers in ([("x-attempts", attempts)], ours):
            await producer.send_and_wait(f"{settings.topic_prefix}files-dlq", b"?", headers=headers)
    letters = await DeadLetters(settings, service.bus, service.collection("replays")).find()
    assert sorted((letter.topic, letter.attempts) for letter in letters) == [("", 0), ("files", 3)]
