"""How far a consumer is behind, and for how long it has stood still although it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

LAG = Gauge("consumer_lag", "Messages in this replica's partitions that are not committed as done.")
STALLED = Gauge(
    "consumer_stalled_seconds", "Longest time that a partition of this replica has not moved although it is behind."
)

MEASURE_SECONDS = 5.0
POSITION_SECONDS = 1.0

UNHEARD_SECONDS = 30.0
"""A fetch is answered twice a second, with messages or without; after so long nobody knows whether there are any."""


@dataclass(frozen=True)
class Standing:
    """Where a partition stood when it was last seen to move, and when that was by the monotonic clock."""

    at: int | None
    since: float


class Lag:
    """Measures the partitions that a consumer has; it asks the broker nothing.

    A consumer whose fetches have stopped hears of no new message either, so one that hears nothing counts as behind.

    Args:
        uncommitted: the offset from which on a partition has messages that were read and are not committed, if any.
    """

    def __init__(self, uncommitted: Callable[[TopicPartition], int | None]) -> None:
        self._uncommitted = uncommitted
        self._standing: dict[TopicPartition, Standing] = {}

    async def run(self, consumer: Callable[[], AIOKafkaConsumer | None]) -> None:
        """Keep the gauges current, until cancelled.

        Args:
            consumer: what reads the partitions, once it is started.
        """
        while True:
            if (reader := consumer()) is not None:
                await self.measure(reader)
            await asyncio.sleep(MEASURE_SECONDS)

    async def measure(self, consumer: AIOKafkaConsumer) -> None:
        """Look once at every partition the consumer has."""
        ends = {partition: _end(consumer, partition) for partition in consumer.assignment()}
        standing, lag, now = {}, 0, time.monotonic()
        for partition, end in ends.items():
            at = self._uncommitted(partition)
            if at is None:
                at = await _position(consumer, partition)
            if at is not None and end is not None and at >= end:
                continue
            lag += end - at if at is not None and end is not None else 0
            before = self._standing.get(partition)
            standing[partition] = before if before is not None and at in (None, before.at) else Standing(at, now)
        self._standing = standing
        LAG.set(lag)
        STALLED.set(max((now - one.since for one in standing.values()), default=0.0))


def _end(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int | None:
    """The offset behind the partition's last message; None where the broker was not heard of late."""
    heard = consumer.last_poll_timestamp(partition)
    if heard is None or time.time() - heard / 1000 > UNHEARD_SECONDS:
        return None
    end: int | None = consumer.highwater(partition)
    return end


async def _position(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int | None:
    """The offset read next; None where the consumer does not know it, or has lost the partition."""
    try:
        async with asyncio.timeout(POSITION_SECONDS):
            position: int = await consumer.position(partition)
            return position
    except (KafkaError, TimeoutError):
        return None
