"""Publishing with the broker's acknowledgement awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from pydantic import JsonValue

from chassis.errors import Invalid, Transient
from eventbus.broker import Broker
from eventbus.messages.envelopes import envelope_of
from eventbus.messages.event_size import MOST_EVENT_BYTES
from schemas import Envelope, Event, to_message

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
"""What the client says of a message, and the broker of all that it was sent together with."""

LARGE_MESSAGE_BYTES = 2 * MOST_EVENT_BYTES
"""With key and headers: no event is so large, and a message above it, far over the producer's batch, is sent alone."""

PUBLISH_SECONDS = 8
"""How long an acknowledgement is waited for."""


class Producer:
    """Sends a service's messages.

    Args:
        broker: takes them.
        service: who says what is announced.
        prefix: of the installation's topics.
    """

    def __init__(self, broker: Broker, service: str, prefix: str) -> None:
        self._broker = broker
        self._service = service
        self._prefix = prefix

    async def announce(self, event: Event) -> None:
        """Publish a fact that nobody stores and counts; see `publish`."""
        await self.publish(event.topic, envelope_of(event, self._service), event.model_dump(mode="json"))

    async def publish(self, topic: str, envelope: Envelope, data: Mapping[str, JsonValue]) -> None:
        """Publish one event and wait for the broker's acknowledgement.

        Raises:
            Transient: no acknowledgement within the deadline; the event may or may not be there.
            Invalid: the broker will never take it.
            ValueError: it cannot be written as JSON.
        """
        key, value, headers = to_message(envelope, data)
        await self.send(topic, key, value, headers)

    async def send(self, topic: str, key: bytes | None, value: bytes, headers: dict[str, str]) -> None:
        """Publish bytes as they are; see `publish`."""
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._broker.publish(value, topic=f"{self._prefix}{topic}", key=key, headers=headers)
        except (TimeoutError, KafkaError) as error:
            size = len(key or b"") + len(value) + sum(len(name) + len(text) for name, text in headers.items())
            if isinstance(error, TOO_LARGE) and size > LARGE_MESSAGE_BYTES:
                raise Invalid(
                    f"Kafka will never take this message of {size} bytes to '{topic}' ({type(error).__name__}).",
                    code="unpublishable",
                ) from error
            raise Transient(f"Kafka did not acknowledge a message to '{topic}' ({type(error).__name__}).") from error
