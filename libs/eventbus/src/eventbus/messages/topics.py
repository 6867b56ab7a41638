"""Topics are made by whoever starts first; none is made by accident."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from chassis.errors import Transient
from chassis.settings import ServiceSettings
from schemas import TOPICS

log = structlog.get_logger()

CREATE_SECONDS = 30


async def ensure_topics(settings: ServiceSettings, client_id: str) -> None:
    """Create the topics of the catalogue that are missing, and those of their dead letters; add missing partitions.

    Args:
        settings: broker address, topic prefix and replication.
        client_id: shown in the broker's log.

    Raises:
        Transient: the broker did not create one.
        TimeoutError: it did not answer in time.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap, client_id=client_id)
    async with asyncio.timeout(CREATE_SECONDS):
        await admin.start()
        try:
            existing = set(await admin.list_topics())
            wanted = {f"{settings.topic_prefix}{topic.name}": topic.partitions for topic in TOPICS}
            wanted |= {f"{settings.topic_prefix}{topic.dead_letters}": 1 for topic in TOPICS}
            missing = [
                NewTopic(name, partitions, replication_factor=settings.kafka_replication)
                for name, partitions in wanted.items()
                if name not in existing
            ]
            if missing:
                _check_created(await admin.create_topics(missing))
            await _add_partitions(admin, {name: wanted[name] for name in existing & set(wanted)})
        finally:
            await admin.close()


async def _add_partitions(admin: AIOKafkaAdminClient, wanted: Mapping[str, int]) -> None:
    """Bring topics to the number of partitions that this release asks for; a topic that has more keeps them."""
    if not wanted:
        return
    there = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(sorted(wanted))}
    fewer = {name: number for name, number in wanted.items() if 0 < there.get(name, 0) < number}
    for name, number in fewer.items():
        try:
            await admin.create_partitions({name: NewPartitions(number)})
        except KafkaError as error:  # done by a service that starts beside us, or the broker cannot: fewer still work
            log.warning("partitions_not_added", topic=name, wanted=number, error=f"{type(error).__name__}: {error}")
        else:
            # Keys move: for a moment a key's new events may be handled beside its last old ones.
            log.warning("partitions_added", topic=name, had=there[name], has=number)


def _check_created(response: Any) -> None:
    """Raise unless each topic was created, by us or by a service that starts beside us."""
    for topic, code, *_ in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise Transient(f"Kafka did not create the topic '{topic}' (error {code}).")
