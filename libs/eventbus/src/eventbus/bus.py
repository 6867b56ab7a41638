"""One service's connection to Kafka: what it says, what it handles, and what each of its replicas watches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from chassis.errors import Transient
from chassis.settings import ServiceSettings
from eventbus.broker import Broker, kafka
from eventbus.consume.consumer import Consumer
from eventbus.consume.handlers import Handler, Handlers
from eventbus.consume.parking import Parking
from eventbus.consume.watcher import Watcher
from eventbus.messages.topics import ensure_topics
from eventbus.publish.producer import Producer
from schemas import Event
from stores.mongo import Collection

log = structlog.get_logger()

START_SECONDS = 60
"""How long Kafka may take to let the consumers in."""


class Bus:
    """One service's connection to Kafka.

    Args:
        settings: broker address and topic prefix.
        service: consumer group, and producer name in dead letters.
        parked: where keys wait; without it the service can only watch.
        owner: this replica's name in the leases of parked keys.
        broker: in place of the Kafka that the settings name; it has its topics.

    Attributes:
        handlers: what is done with the events it handles.
        watchers: what is done with those it watches.
        producer: publishes.
        consumer: handles events; None where keys have no place to wait in.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        service: str,
        parked: Collection | None = None,
        owner: str = "",
        broker: Broker | None = None,
    ) -> None:
        self.handlers: dict[type[Event], Handler] = {}
        self.watchers: dict[type[Event], Handler] = {}
        self._settings = settings
        self._service = service
        self._has_topics = broker is not None
        self._broker = broker or kafka(settings, service)
        self.producer = Producer(self._broker, service, settings.topic_prefix)
        self.consumer: Consumer | None = None
        if parked is not None:
            self.consumer = Consumer(settings, service, self.handlers, Parking(parked, owner), self.producer)

    @property
    def consumed(self) -> frozenset[type[Event]]:
        """The event types this service handles or watches, for the catalogue test."""
        return frozenset(self.handlers) | frozenset(self.watchers)

    @property
    def handles(self) -> bool:
        """Whether it consumes for effects, so that messages may be parked."""
        return bool(self.handlers)

    @property
    def background(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What has to run while it handles events, by name."""
        return self.consumer.background if self.consumer is not None and self.handles else {}

    def subscribe(self, handlers: Handlers) -> None:
        """Handle these events, each once per service whatever the number of replicas (one consumer group)."""
        if self.consumer is None:
            raise RuntimeError(f"{self._service} has no database to park messages in; it can only watch")
        self.handlers.update(handlers)

    def watch(self, handlers: Handlers) -> None:
        """See these events in every replica, from now on: for caches that can be rebuilt, never for effects."""
        self.watchers.update(handlers)

    async def prepare(self) -> None:
        """Create the index by which parked keys are claimed."""
        if self.consumer is not None:
            await self.consumer.parking.prepare()

    async def start(self) -> None:
        """Create missing topics, then start the producer and the consumers."""
        if not self._has_topics:
            await ensure_topics(self._settings, self._service)
        if self.consumer is not None and self.handles:
            self.consumer.join(self._broker)
        if self.watchers:
            Watcher(self.watchers, self._settings.topic_prefix).join(self._broker)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._broker.start()
        except TimeoutError as error:
            raise Transient(f"Kafka did not let the consumers in within {START_SECONDS} s.") from error

    async def stop_consuming(self, seconds: float) -> None:
        """Take no more messages, finish those under way and commit; publishing goes on."""
        if self.consumer is not None:
            await self.consumer.drain(seconds)

    async def stop(self, seconds: float | None = None) -> None:
        """Close, after the messages under way.

        Args:
            seconds: at most so long; `stop_timeout` if None.
        """
        seconds = self._settings.stop_timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                await self.stop_consuming(seconds / 2)
                await self._broker.stop()
        except TimeoutError:
            log.warning("bus_stop_timed_out")

    async def ping(self) -> None:
        """Raise unless the broker answers."""
        if not await self._broker.ping(timeout=3):
            raise Transient("Kafka does not answer.")

    async def check_consumer(self) -> None:
        """Raise when every message of late went to the dead letters: somebody should look before all of them do.

        It is told beside the service's readiness, not a part of it: its API is no worse for it.
        """
        if self.consumer is not None:
            self.consumer.attempts.check()
