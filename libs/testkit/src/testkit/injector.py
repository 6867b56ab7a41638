"""Sends recorded messages again: twice, in another order, or late."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition


@dataclass(frozen=True)
class Message:
    """A Kafka message as it came; `topic` is its whole name."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    def header(self, name: str) -> str:
        """One header's text, or nothing."""
        return dict(self.headers).get(name, b"").decode("utf-8", "replace")


async def recorded(bootstrap: str, *topics: str) -> list[Message]:
    """Everything in `topics` by now: of each partition in order, partitions one after the other.

    Topics that do not exist hold nothing.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        existing = await consumer.topics()
        places = [
            TopicPartition(topic, partition)
            for topic in topics
            if topic in existing
            for partition in sorted(consumer.partitions_for_topic(topic) or ())
        ]
        found: list[Message] = []
        if not places:
            return found
        consumer.assign(places)
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, begins[place])
        left = {place for place in places if begins[place] < ends[place]}
        by_place: dict[TopicPartition, list[Message]] = {place: [] for place in places}
        while left:
            for place, batch in (await consumer.getmany(timeout_ms=500)).items():
                by_place[place] += [Message(one.topic, one.key, one.value or b"", tuple(one.headers)) for one in batch]
                if batch[-1].offset + 1 >= ends[place]:
                    left.discard(place)
        return [message for messages in by_place.values() for message in messages]
    finally:
        await consumer.stop()


async def inject(bootstrap: str, messages: Sequence[Message]) -> None:
    """Publish messages in this order, each acknowledged before the next."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for message in messages:
            await producer.send_and_wait(message.topic, message.value, message.key, headers=list(message.headers))
    finally:
        await producer.stop()


def duplicated(messages: Sequence[Message], times: int) -> list[Message]:
    """Each message `times` times in a row."""
    return [message for message in messages for _ in range(times)]


def reordered(messages: Sequence[Message], seed: int, *, within_keys: bool = False) -> list[Message]:
    """Another order, the same for the same seed.

    Args:
        messages: in their order.
        seed: chooses the order.
        within_keys: also among messages of one key, which a broker would never do.
    """
    chance = random.Random(seed)  # noqa: S311 - a reproducible order
    mixed = list(messages)
    chance.shuffle(mixed)
    if within_keys:
        return mixed
    waiting: dict[tuple[str, bytes | None], list[Message]] = {}
    for message in messages:
        waiting.setdefault((message.topic, message.key), []).append(message)
    return [waiting[message.topic, message.key].pop(0) for message in mixed]
