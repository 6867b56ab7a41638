"""Kafka messages as they came: FastStream drops, before any handler, one whose body or headers it cannot read."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import ConsumerRecord
from faststream.kafka import KafkaMessage


async def parse(raw: ConsumerRecord, original: Callable[[ConsumerRecord], Awaitable[KafkaMessage]]) -> KafkaMessage:
    """FastStream's parser on headers that it can read: bytes that are no UTF-8 are replaced, none is no text."""
    headers = tuple((name, text_of(value or b"").encode()) for name, value in raw.headers)
    return await original(dataclasses.replace(raw, headers=headers))


async def decode(message: KafkaMessage) -> bytes:
    """Nothing: the consumer reads the body, and dead-letters what it cannot read."""
    return bytes(message.body)


def raw_of(message: KafkaMessage) -> Any:
    """The record behind a message."""
    return message.raw_message[0] if isinstance(message.raw_message, Sequence) else message.raw_message


def text_of(value: Any) -> str:
    """A header's value."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
