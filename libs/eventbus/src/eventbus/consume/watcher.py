"""What every replica sees for itself: events from now on, for caches that can be rebuilt."""

from __future__ import annotations

import structlog
from faststream import AckPolicy
from faststream.kafka import KafkaMessage

from eventbus.broker import Broker
from eventbus.consume.handlers import Handlers, event_of, topics_of
from eventbus.messages import raw_message

log = structlog.get_logger()


class Watcher:
    """Hands each message that comes while the replica lives to its handler, once; nothing is committed.

    Args:
        handlers: what is done with events.
        prefix: of the installation's topics.
    """

    def __init__(self, handlers: Handlers, prefix: str) -> None:
        self._handlers = handlers
        self._prefix = prefix

    def join(self, broker: Broker) -> None:
        """Have a broker that is not started yet hand over every message."""
        broker.subscriber(
            *topics_of(self._handlers, self._prefix),
            group_id=None,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="latest",
            fetch_max_wait_ms=500,
            parser=raw_message.parse,
            decoder=raw_message.decode,
        )(self._on_message)

    async def _on_message(self, received: KafkaMessage) -> None:
        try:
            event, envelope = event_of(raw_message.message_of(received, self._prefix), self._handlers)
            if event is not None and envelope is not None:
                await self._handlers[type(event)](event)
        except Exception as error:  # a cache that misses an event is rebuilt; the consumer must go on
            log.warning("watched_event_failed", error=f"{type(error).__name__}: {error}")
