"""Topics are made by whoever starts first; none is made by accident."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from chassis.errors import Transient
from chassis.settings import ServiceSettings
from schemas import TOPICS

CREATE_SECONDS = 30


async def ensure_topics(settings: ServiceSettings, client_id: str) -> None:
    """Create the topics of the catalogue that are missing, and those of their dead letters.

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
        finally:
            await admin.close()


def _check_created(response: Any) -> None:
    """Raise unless each topic was created, by us or by a service that starts beside us."""
    for topic, code, *_ in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise Transient(f"Kafka did not create the topic '{topic}' (error {code}).")
