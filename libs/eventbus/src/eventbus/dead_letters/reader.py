"""The operator's view of what no consumer could handle: read, looked at, and sent back to the one it was for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from chassis.errors import Conflict, NotFound, Transient
from chassis.ids import now
from chassis.settings import ServiceSettings
from chassis.text import quoted
from eventbus.messages.outcome import CUT_FROM, REPLAY_FOR
from eventbus.messages.raw_message import text_of
from eventbus.publish.producer import Producer
from schemas import TOPICS
from stores.mongo import Collection

NEWEST = 1000
"""Dead letters looked at in each topic, from its end."""

READ_SECONDS = 20


@dataclass(frozen=True)
class DeadLetter:
    """A message as it came, and why it lies here.

    Attributes:
        id: topic and place, for example `files.12`.
        topic: where it was read.
        died_at: unix seconds.
        code: stable slug of the reason.
        reason: the error's message.
        attempts: how often it was tried; 0 where a foreign message does not say so.
        consumer: the service that gave it up.
        headers: of the message, ours among them.
        value: its bytes.
        replayed_at: unix seconds; None if it still waits.
    """

    id: str
    topic: str
    died_at: int
    code: str
    reason: str
    attempts: int
    consumer: str
    headers: dict[str, str]
    key: bytes | None
    value: bytes
    replayed_at: int | None = None

    @property
    def cut(self) -> bool:
        """Whether only the beginning of the message is left, which no consumer can read."""
        return CUT_FROM in self.headers


class DeadLetters:
    """Reads the dead-letter topics, newest first.

    Args:
        settings: broker address and topic prefix.
        producer: publishes what is sent back.
        replays: remembers what was.
    """

    def __init__(self, settings: ServiceSettings, producer: Producer, replays: Collection) -> None:
        self._settings = settings
        self._producer = producer
        self._replays = replays

    async def find(self, *, consumer: str | None = None, code: str | None = None) -> list[DeadLetter]:
        """Dead letters that were not sent back yet.

        Args:
            consumer: only those of this service.
            code: only those with this reason.

        Raises:
            Transient: the broker cannot be read.
        """
        return [
            letter
            for letter in await self._read()
            if letter.replayed_at is None and consumer in (None, letter.consumer) and code in (None, letter.code)
        ]

    async def get(self, letter_id: str) -> DeadLetter:
        """One dead letter.

        Raises:
            NotFound: there is none of this id among the newest.
            Transient: the broker cannot be read.
        """
        for letter in await self._read():
            if letter.id == letter_id:
                return letter
        raise NotFound(f"No such dead letter: {quoted(letter_id)}.")

    async def replay(self, letter: DeadLetter) -> None:
        """Publish a dead letter again, for its consumer alone; handlers are idempotent, so twice does no harm.

        Raises:
            Conflict: only the message's beginning was kept.
            Transient: the broker did not acknowledge it.
        """
        if letter.cut:
            raise Conflict(
                f"Dead letter {quoted(letter.id)} holds only the first {len(letter.value)} of its message's "
                f"{letter.headers[CUT_FROM]} bytes and cannot be sent back; have its producer send it again.",
                code="dead_letter_cut",
            )
        original = {name: value for name, value in letter.headers.items() if not name.startswith("x-")}
        headers = original | {REPLAY_FOR: letter.consumer, "x-replayed-from": letter.id}
        await self._producer.send(letter.topic, letter.key, letter.value, headers)
        await self._replays.update_one({"_id": letter.id}, {"$setOnInsert": {"at": now()}}, upsert=True)

    async def _read(self) -> list[DeadLetter]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._settings.kafka_bootstrap, enable_auto_commit=False)
        try:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await consumer.start()
                    records = await self._newest(consumer)
            finally:
                async with asyncio.timeout(READ_SECONDS):
                    await consumer.stop()
        except (KafkaError, TimeoutError) as error:
            raise Transient(f"The dead letters cannot be read ({type(error).__name__}); is Kafka up?") from error
        replayed = {found["_id"]: found["at"] async for found in self._replays.find({})}
        letters = [self._letter(record, replayed) for record in records[::-1]]
        return sorted(letters, key=lambda letter: letter.died_at, reverse=True)

    async def _newest(self, consumer: AIOKafkaConsumer) -> list[ConsumerRecord[bytes, bytes]]:
        topics = [TopicPartition(f"{self._settings.topic_prefix}{topic.dead_letters}", 0) for topic in TOPICS]
        begins, ends = await consumer.beginning_offsets(topics), await consumer.end_offsets(topics)
        left = {place for place in topics if begins[place] < ends[place]}
        consumer.assign(left)  # a broker may wait for each place that has nothing more
        for place in left:
            consumer.seek(place, max(begins[place], ends[place] - NEWEST))
        records: list[ConsumerRecord[bytes, bytes]] = []
        while left:
            for place, batch in (await consumer.getmany(timeout_ms=500)).items():
                records += batch
                if batch[-1].offset + 1 >= ends[place]:
                    left.discard(place)
                    consumer.pause(place)
        return records

    def _letter(self, record: ConsumerRecord[bytes, bytes], replayed: dict[str, int]) -> DeadLetter:
        headers = {name: text_of(value or b"") for name, value in record.headers}
        topic = headers.get("x-original-topic", "")
        attempts = headers.get("x-attempts", "")
        letter_id = f"{topic}.{record.offset}"
        return DeadLetter(
            id=letter_id,
            topic=topic,
            died_at=record.timestamp // 1000,
            code=headers.get("x-error-code", ""),
            reason=headers.get("x-error", ""),
            attempts=int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0,
            consumer=headers.get("x-consumer", ""),
            headers=headers,
            key=record.key,
            value=record.value or b"",
            replayed_at=replayed.get(letter_id),
        )
