"""Kafka's messages as they came: FastStream drops, before any handler, one whose body or headers it cannot read."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import ConsumerRecord
from faststream.kafka import KafkaMessage

from eventbus.messages.message import Message


async def parse(raw: ConsumerRecord, original: Callable[[ConsumerRecord], Awaitable[KafkaMessage]]) -> KafkaMessage:
    """FastStream's parser on headers that it can read: bytes that are no UTF-8 are replaced, none is no text."""
    headers = tuple((name, text_of(value or b"").encode()) for name, value in raw.headers)
    return await original(dataclasses.replace(raw, headers=headers))


async def decode(received: KafkaMessage) -> bytes:
    """Nothing: the consumer reads the body, and dead-letters what it cannot read."""
    return bytes(received.body)


def raw_of(received: KafkaMessage) -> ConsumerRecord:
    """The client's record of a message."""
    return received.raw_message[0] if isinstance(received.raw_message, Sequence) else received.raw_message


def message_of(received: KafkaMessage, prefix: str) -> Message:
    """A message as the bus sees it.

    Args:
        received: as FastStream hands it over.
        prefix: of the installation's topics.
    """
    raw = raw_of(received)
    headers = {name: text_of(value) for name, value in received.headers.items()}
    topic = str(raw.topic).removeprefix(prefix)
    return Message(topic, raw.partition, raw.offset, raw.key, raw.value or b"", headers)


def text_of(value: bytes | str) -> str:
    """A header's value."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
