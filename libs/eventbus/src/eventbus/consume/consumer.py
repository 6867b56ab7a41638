"""A service's consumer group: what fails is tried in place, then parked, then dead-lettered, and never skipped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import structlog
from aiokafka import TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaMessage
from prometheus_client import Histogram

from chassis.crash import crash_point
from chassis.settings import ServiceSettings
from eventbus.broker import Broker
from eventbus.consume.assignor import WholeRoundRobin
from eventbus.consume.attempts import Attempts
from eventbus.consume.handlers import Handlers, event_of, handling, topics_of
from eventbus.consume.keyed_dispatch import Deferred, KeyedDispatch
from eventbus.consume.lag import Lag
from eventbus.consume.parked_retries import ParkedRetries
from eventbus.consume.parking import Parking
from eventbus.consume.retry_policy import RetryPolicy
from eventbus.consume.sequence_gaps import SequenceGaps
from eventbus.dead_letters.writer import DeadLetterWriter
from eventbus.messages import raw_message
from eventbus.messages.message import Message
from eventbus.messages.outcome import CONSUMED, REPLAY_FOR, GiveUp, Outcome
from eventbus.publish.producer import PUBLISH_SECONDS, Producer
from schemas import Event, MalformedEvent
from stores.mongo import PyMongoError

log = structlog.get_logger()

HANDLING = Histogram("event_handler_seconds", "Time spent in a handler, retries included.", ["type"])

T = TypeVar("T")


class Consumer:
    """Takes each message of its topics to its end.

    Messages come at least once, in order per aggregate; different aggregates are handled side by side. A handler that
    raises a permanent error sends the message to `<topic>-dlq` at once. Any other error is tried again in place, then
    its key is parked: later messages of that key wait behind it, all others go on. After `attempts.policy.attempts`, or
    hours where the error says that something is away, the message is dead-lettered too. Where neither can be written it
    is tried on, uncommitted; with many such messages the consumer waits.

    Args:
        settings: topic prefix and deadlines.
        service: the consumer group.
        handlers: what is done with events.
        parking: where keys wait.
        producer: sends dead letters.
    """

    def __init__(
        self, settings: ServiceSettings, service: str, handlers: Handlers, parking: Parking, producer: Producer
    ) -> None:
        self.attempts = Attempts(handlers, RetryPolicy())
        self.parking = parking
        self._settings = settings
        self._service = service
        self._handlers = handlers
        self._dead_letters = DeadLetterWriter(producer, service)
        self._gaps = SequenceGaps()
        self._dispatch = KeyedDispatch(self._settle, self._gaps.clear)
        self._committing: asyncio.Task[None] | None = None

    @property
    def background(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What has to run beside it, by name."""
        return {"parked": self.run_parked, "parked_depth": self.parking.watch, "lag": self.measure_lag}

    def join(self, broker: Broker) -> None:
        """Have a broker that is not started yet hand over the messages of the group."""
        session_ms = self._settings.kafka_session_timeout_ms
        self._subscriber = broker.subscriber(
            *topics_of(self._handlers, self._settings.topic_prefix),
            group_id=f"{self._settings.topic_prefix}{self._service.replace('_', '-')}",
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 3,
            partition_assignment_strategy=[WholeRoundRobin],
            fetch_max_wait_ms=500,
            listener=self._dispatch,
            parser=raw_message.parse,
            decoder=raw_message.decode,
        )
        self._subscriber(self._on_message)
        self._committing = asyncio.create_task(self._dispatch.run_commits(), name="commits")

    async def drain(self, seconds: float) -> None:
        """Take no more messages, finish those under way and commit."""
        await self._dispatch.drain(seconds)
        if self._committing:
            self._committing.cancel()

    async def run_parked(self) -> None:
        """Try parked keys again as their time comes, until cancelled."""
        policy, stop_seconds = self.attempts.policy, self._settings.stop_timeout / 2
        attempt_seconds = policy.handler_seconds + PUBLISH_SECONDS
        retries = ParkedRetries(
            self.parking, self._dispatch, self.attempts.attempt_parked, self._dead_letters.write, policy.pause
        )
        await retries.run(attempt_seconds, stop_seconds)

    async def measure_lag(self) -> None:
        """Keep the gauges of how far the consumer is behind current, until cancelled."""
        await Lag(self._dispatch.uncommitted).run(lambda: self._subscriber.consumer)

    async def _on_message(self, received: KafkaMessage) -> None:
        """Put a message behind those of its key; it is committed when it and all before it are done."""
        raw = raw_message.raw_of(received)
        message = raw_message.message_of(received, self._settings.topic_prefix)
        await self._dispatch.take(received.consumer, TopicPartition(raw.topic, raw.partition), message)

    async def _settle(self, message: Message) -> Deferred | None:
        """Bring one message to its end, but for a dead letter, for which its key need not wait."""
        why = await self._until_done(message, self._consume)
        return self._until_done(message, partial(self._dead_letters.write_together, why=why)) if why else None

    async def _until_done(self, message: Message, work: Callable[[Message], Awaitable[T]]) -> T:
        """Do it until it is done; the partition is not committed beyond the message meanwhile."""
        failures = 0
        while True:
            try:
                return await work(message)
            except Exception as error:  # the boundary of a consumer: whatever it is, the message is not lost
                failures += 1
                log.error("event_not_settled", topic=message.topic, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self.attempts.policy.pause_in_place(failures))

    async def _consume(self, message: Message) -> GiveUp | None:
        """Handle a message, park it, or say why it is given up."""
        if message.headers.get(REPLAY_FOR, self._service) != self._service:
            return None
        try:
            event, envelope = event_of(message, self._handlers)
        except MalformedEvent as error:
            return self.attempts.give_up("malformed", str(error), 1)
        if envelope is not None and REPLAY_FOR not in message.headers:
            self._gaps.watch(message, envelope)
        if event is None or envelope is None:
            return None
        crash_point("consumer.fetched")
        with handling(envelope), HANDLING.labels(event.type).time():
            return await self._handle_or_park(message, event)

    async def _handle_or_park(self, message: Message, event: Event) -> GiveUp | None:
        """Try until the event is handled, given up, or parked behind what failed before; the partition waits."""
        policy, attempts, began = self.attempts.policy, 0, time.monotonic()
        while True:
            try:
                waits = policy.is_over(attempts, time.monotonic() - began) or await self.parking.holds(message)
                if waits and await self.parking.park(message, attempts):
                    crash_point("consumer.parked")
                    CONSUMED.labels(event.type, "parked").inc()
                    log.warning("event_parked", type=event.type, key=message.order_key, attempts=attempts)
                    return None
                if not waits:
                    outcome = await self.attempts.attempt(event, attempts)
                    if outcome is not Outcome.FAILED:
                        crash_point("consumer.handled")
                        return outcome if isinstance(outcome, GiveUp) else None
                    attempts += 1
            except PyMongoError as error:
                log.warning("event_not_parked", type=event.type, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(policy.pause_in_place(attempts))
