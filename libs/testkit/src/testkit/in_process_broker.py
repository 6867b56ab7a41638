"""A broker in the process of the service under test: hands it what others say, and keeps what it says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from eventbus import Broker
from eventbus.messages.envelopes import envelope_of
from schemas import EVENTS, Event, parse, read_envelope, to_message

E = TypeVar("E", bound=Event)
Handler = Callable[[Any], Awaitable[None]]


@dataclass
class Subscriber:
    """What the bus takes for FastStream's subscriber; `consumer` reads nothing, so that nothing is measured of it."""

    topics: tuple[str, ...]
    grouped: bool
    handlers: list[Handler] = field(default_factory=list)
    consumer: None = None

    def __call__(self, handler: Handler) -> None:
        """Have what comes handled."""
        self.handlers.append(handler)


class InProcessBroker:
    """Delivers each message once, in order, and knows of no other consumer.

    Not a twin of Kafka to prove delivery on: that is shown by the tests on the local stack.
    """

    def __init__(self) -> None:
        self.said: list[Event] = []
        self._subscribers: list[Subscriber] = []
        self._stored: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._news = asyncio.Condition()

    def as_broker(self) -> Broker:
        """Itself, for `build(broker=…)`."""
        return cast(Broker, self)

    def of(self, kind: type[E]) -> list[E]:
        """What the service said of one type."""
        return [event for event in self.said if isinstance(event, kind)]

    async def tell(self, event: Event, by: str = "another") -> None:
        """Let the service hear an event; returns once it is done with it, one way or the other.

        Args:
            event: what happened.
            by: the service that says so.
        """
        key, value, headers = to_message(envelope_of(event, by), event.model_dump(mode="json"))
        offset = self._stored[event.topic]
        self._stored[event.topic] += 1
        raw = SimpleNamespace(topic=event.topic, partition=0, offset=offset, key=key, value=value)
        for subscriber in self._subscribers:
            if event.topic in subscriber.topics:
                for handler in subscriber.handlers:
                    await handler(SimpleNamespace(raw_message=raw, headers=headers, consumer=self))
                if subscriber.grouped:
                    async with self._news:
                        await self._news.wait_for(lambda: self._done[event.topic] > offset)

    def subscriber(self, *topics: str, group_id: str | None, **_: Any) -> Subscriber:
        """See FastStream."""
        self._subscribers.append(Subscriber(topics, group_id is not None))
        return self._subscribers[-1]

    async def publish(self, value: bytes, *, headers: dict[str, str], **_: Any) -> None:
        """See FastStream."""
        self.said.append(parse(EVENTS[read_envelope(headers).type], value))

    async def commit(self, offsets: dict[Any, int]) -> None:
        """See aiokafka's consumer."""
        async with self._news:
            for place, offset in offsets.items():
                self._done[place.topic] = offset
            self._news.notify_all()

    def assignment(self) -> frozenset[Any]:
        """See aiokafka's consumer."""
        return frozenset()

    def pause(self, *_: Any) -> None:
        """See aiokafka's consumer."""

    async def start(self) -> None:
        """See FastStream."""

    async def stop(self) -> None:
        """See FastStream."""

    async def ping(self, timeout: float) -> bool:
        """See FastStream."""
        del timeout
        return True
