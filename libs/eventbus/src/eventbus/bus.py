"""The Kafka side: publishing with the ack awaited, and consumers that retry, then dead-letter, never skip."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from faststream import AckPolicy
from faststream.kafka import KafkaMessage
from prometheus_client import Counter, Gauge, Histogram

from chassis.crash import crash_point
from chassis.errors import PERMANENT, Invalid, SartorError, Transient
from chassis.settings import ServiceSettings
from eventbus import as_it_came
from eventbus.broker import Broker, kafka
from eventbus.continuity import Continuity
from eventbus.event_size import MOST_EVENT_BYTES
from eventbus.handled import handling
from eventbus.lag import Lag
from eventbus.lanes import Lanes, Place, Rest
from eventbus.letter import CUT_FROM, REPLAY_FOR, Letter, Outcome
from eventbus.parking import Held, Parking, Record
from eventbus.patience import Patience
from eventbus.retries import Retries
from eventbus.topics import ensure_topics
from schemas import EVENTS, Envelope, Event, MalformedEvent, parse, read_envelope, to_message
from stores.mongo import PyMongoError

log = structlog.get_logger()

CONSUMED = Counter("events_consumed_total", "Events by outcome.", ["type", "outcome"])
HANDLING = Histogram("event_handler_seconds", "Time spent in a handler, retries included.", ["type"])
OUT_OF_SEQUENCE = Counter(
    "events_out_of_sequence_total", "Events before which one of their stream is missing, or that came again.", ["kind"]
)
DEAD_IN_A_ROW = Gauge("dead_letters_in_a_row", "Events dead-lettered since one was last handled.")

DEAD_LETTERS_IN_A_ROW = 20
"""Poison is rare: so many in a row mean that the consumer itself is wrong."""

LOST_RACES = ("stale_write", "stale_fence")
"""Conflicts that the next attempt, on the newer document, need not have."""

POST_SECONDS = 0.5
"""Dead letters are collected for so long, and sent together: poison comes in swarms, and each request is work."""

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
"""What the client says of a message, and the broker of all that it was sent together with."""

LARGE_MESSAGE_BYTES = 2 * MOST_EVENT_BYTES
"""With key and headers: no event is so large, and a message above it, far over the producer's batch, is sent alone."""

PUBLISH_SECONDS = 8
START_SECONDS = 60

E = TypeVar("E", bound=Event)
T = TypeVar("T")
Handler = Callable[[Any], Awaitable[None]]
Handlers = Mapping[type[Event], Handler]


class Bus:
    """One service's connection to Kafka.

    Consumers get each event at least once, in order per aggregate; different aggregates are handled side by side. A
    handler that raises a permanent error sends the message to `<topic>-dlq` at once. Any other error is tried again in
    place, then its key is parked: later messages of that key wait behind it, all others go on. After
    `patience.attempts`, or hours where the error says that something is away, the message is dead-lettered too. Where
    neither can be written it is tried on, uncommitted; with many such messages the consumer waits.

    Args:
        settings: broker address and topic prefix.
        service: consumer group, and producer name in dead letters.
        parking: where keys wait; needed to subscribe.
        broker: in place of the Kafka that the settings name; it has its topics.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        service: str,
        parking: Parking | None = None,
        broker: Broker | None = None,
    ) -> None:
        self.patience = Patience()
        self._settings = settings
        self._service = service
        self._prefix = settings.topic_prefix
        self._handlers: dict[type[Event], Handler] = {}
        self._watchers: dict[type[Event], Handler] = {}
        self._parking = parking
        self._continuity = Continuity()
        self._lanes = Lanes(self._settle, self._continuity.clear)
        self._committing: asyncio.Task[None] | None = None
        self._post: asyncio.Task[None] | None = None
        self._dead_in_a_row = 0
        self._has_topics = broker is not None
        self._broker = broker or kafka(settings, service)

    @property
    def consumed(self) -> frozenset[type[Event]]:
        """The event types this service handles, for the catalogue test."""
        return frozenset(self._handlers) | frozenset(self._watchers)

    @property
    def handles(self) -> bool:
        """Whether it consumes for effects, so that messages may be parked."""
        return bool(self._handlers)

    def subscribe(self, handlers: Handlers) -> None:
        """Handle these events, each once per service whatever the number of replicas (one consumer group)."""
        if self._parking is None:
            raise RuntimeError(f"{self._service} has no database to park messages in; it can only watch")
        self._handlers.update(handlers)

    def watch(self, handlers: Handlers) -> None:
        """See these events in every replica, from now on: for caches that can be rebuilt, never for effects."""
        self._watchers.update(handlers)

    async def start(self) -> None:
        """Create missing topics, then start the producer and the consumers."""
        if not self._has_topics:
            await ensure_topics(self._settings, self._service)
        if self._handlers:
            self._subscriber = self._broker.subscriber(
                *self._topics_of(self._handlers),
                group_id=f"{self._prefix}{self._service.replace('_', '-')}",
                ack_policy=AckPolicy.MANUAL,
                auto_offset_reset="earliest",
                session_timeout_ms=self._settings.kafka_session_timeout_ms,
                heartbeat_interval_ms=self._settings.kafka_session_timeout_ms // 3,
                fetch_max_wait_ms=500,
                listener=self._lanes,
                parser=as_it_came.parse,
                decoder=as_it_came.decode,
            )
            self._subscriber(self._on_message)
            self._committing = asyncio.create_task(self._lanes.run_commits(), name="commits")
        if self._watchers:
            self._broker.subscriber(
                *self._topics_of(self._watchers),
                group_id=None,
                ack_policy=AckPolicy.MANUAL,
                auto_offset_reset="latest",
                fetch_max_wait_ms=500,
                parser=as_it_came.parse,
                decoder=as_it_came.decode,
            )(self._on_watched)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._broker.start()
        except TimeoutError as error:
            raise Transient(f"Kafka did not let the consumers in within {START_SECONDS} s.") from error

    async def stop_consuming(self, seconds: float) -> None:
        """Take no more messages, finish those under way and commit; publishing goes on."""
        await self._lanes.drain(seconds)
        if self._committing:
            self._committing.cancel()

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

    async def publish(self, topic: str, envelope: Envelope, data: Mapping[str, Any]) -> None:
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

    def _topics_of(self, handlers: Handlers) -> list[str]:
        return sorted({f"{self._prefix}{event.topic}" for event in handlers})

    async def check_consumer(self) -> None:
        """Raise when every message of late went to the dead letters: somebody should look before all of them do.

        It is told beside the service's readiness, not a part of it: its API is no worse for it.
        """
        if self._dead_in_a_row >= DEAD_LETTERS_IN_A_ROW:
            raise Transient(f"The last {self._dead_in_a_row} events were given up; see `sartor dlq list`.")

    async def _on_watched(self, message: KafkaMessage) -> None:
        try:
            event, envelope = self._decode(self._record(message), self._watchers)
            if event is not None and envelope is not None:
                await self._watchers[type(event)](event)
        except Exception as error:  # a cache that misses an event is rebuilt; the consumer must go on
            log.warning("watched_event_failed", error=f"{type(error).__name__}: {error}")

    async def _on_message(self, message: KafkaMessage) -> None:
        """Hand a message to the lane of its key; it is committed when it and all before it are done."""
        raw, record = as_it_came.raw_of(message), self._record(message)
        await self._lanes.take(message.consumer, Place(TopicPartition(raw.topic, raw.partition), raw.offset), record)

    async def _settle(self, record: Record) -> Rest | None:
        """Bring one message to its end, but for a dead letter, for which its key need not wait."""
        letter = await self._insist(record, self._consume)
        return self._insist(record, partial(self._post_letter, letter=letter)) if letter else None

    async def _insist(self, record: Record, work: Callable[[Record], Awaitable[T]]) -> T:
        """Do it until it is done; the partition is not committed beyond the message meanwhile."""
        failures = 0
        while True:
            try:
                return await work(record)
            except Exception as error:  # the boundary of a consumer: whatever it is, the message is not lost
                failures += 1
                log.error("event_not_settled", topic=record.topic, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self.patience.pause_in_place(failures))

    async def _consume(self, record: Record) -> Letter | None:
        """Handle a message, park it, or say why it is given up."""
        if record.headers.get(REPLAY_FOR, self._service) != self._service:
            return None
        try:
            event, envelope = self._decode(record, self._handlers)
        except MalformedEvent as error:
            return self._give_up("malformed", str(error), 1)
        if envelope is not None and REPLAY_FOR not in record.headers:
            self._watch_sequence(record, envelope)
        if event is None or envelope is None:
            return None
        crash_point("consumer.fetched")
        with handling(envelope), HANDLING.labels(event.type).time():
            return await self._handle(record, event)

    def _decode(self, record: Record, handlers: Handlers) -> tuple[Event | None, Envelope | None]:
        """The event, if it is one of `handlers`, and its envelope."""
        event_type = EVENTS.get(record.headers.get("ce_type", ""))
        envelope = read_envelope(record.headers)
        if event_type is None:
            CONSUMED.labels("unknown", "skipped").inc()
        if event_type is None or event_type not in handlers:
            return None, envelope
        return parse(event_type, record.value), envelope

    def _watch_sequence(self, record: Record, envelope: Envelope) -> None:
        if not envelope.origin:
            return
        stream = f"{record.topic}/{envelope.subject}/{envelope.origin}"
        kind = self._continuity.see(stream, envelope.seq)
        if kind != "next":
            OUT_OF_SEQUENCE.labels(kind).inc()
            log.warning("event_out_of_sequence", kind=kind, stream=stream, seq=envelope.seq)

    async def _handle(self, record: Record, event: Event) -> Letter | None:
        """Handle one message, or park it; until one of the two is done, or it is given up, the partition waits."""
        assert self._parking is not None
        attempts, began = 0, time.monotonic()
        while True:
            try:
                waits = self.patience.is_over(attempts, time.monotonic() - began) or await self._parking.holds(record)
                if waits and await self._parking.park(record, attempts):
                    crash_point("consumer.parked")
                    CONSUMED.labels(event.type, "parked").inc()
                    log.warning("event_parked", type=event.type, key=record.order_key, attempts=attempts)
                    return None
                if not waits:
                    outcome = await self._attempt(event, attempts)
                    if outcome is not Outcome.FAILED:
                        crash_point("consumer.handled")
                        return outcome if isinstance(outcome, Letter) else None
                    attempts += 1
            except PyMongoError as error:
                log.warning("event_not_parked", type=event.type, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self.patience.pause_in_place(attempts))

    async def run_parked(self) -> None:
        """Try parked keys again as their time comes, until cancelled."""
        assert self._parking is not None
        patience, stop_seconds = self.patience, self._settings.stop_timeout / 2
        attempt_seconds = patience.handler_seconds + PUBLISH_SECONDS
        retries = Retries(self._parking, self._lanes, self._attempt_parked, self._dead_letter, patience.pause)
        await retries.run(attempt_seconds, stop_seconds)

    async def measure_lag(self) -> None:
        """Keep the gauges of how far the consumer is behind current, until cancelled."""
        await Lag(self._lanes.uncommitted).run(lambda: self._subscriber.consumer)

    async def _attempt_parked(self, held: Held) -> Outcome | Letter:
        try:
            event, envelope = self._decode(held.record, self._handlers)
        except MalformedEvent as error:  # this release reads it differently from the one that parked it
            return self._give_up("malformed", str(error), held.attempts)
        if event is None or envelope is None:
            return Outcome.HANDLED
        with handling(envelope):
            return await self._attempt(event, held.attempts)

    async def _attempt(self, event: Event, attempts: int) -> Outcome | Letter:
        """One attempt, which handles the event, fails, or gives it up.

        Args:
            event: what the message says.
            attempts: how often it has failed before.
        """
        try:
            async with asyncio.timeout(self.patience.handler_seconds):
                await self._handlers[type(event)](event)
        except Exception as error:  # the boundary of a consumer: every failure is retried or dead-lettered
            failed = attempts + 1
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, PERMANENT) and error.code not in LOST_RACES:
                return self._give_up(error.code or "permanent", error.message, failed)
            away = isinstance(error, PyMongoError) or (isinstance(error, SartorError) and error.transient)
            last = failed >= (self.patience.attempts_while_away if away else self.patience.attempts)
            log.warning("event_failed", type=event.type, attempt=failed, error=reason, exc_info=last)
            return self._give_up("exhausted", reason, failed) if last else Outcome.FAILED
        self._dead_in_a_row = 0
        DEAD_IN_A_ROW.set(0)
        CONSUMED.labels(event.type, "handled").inc()
        return Outcome.HANDLED

    def _give_up(self, code: str, reason: str, attempts: int) -> Letter:
        self._dead_in_a_row += 1
        DEAD_IN_A_ROW.set(self._dead_in_a_row)
        return Letter(code, reason, attempts)

    async def _post_letter(self, record: Record, letter: Letter) -> None:
        """Send a dead letter with all those that come up meanwhile, in their order."""
        if self._post is None or self._post.done():
            self._post = asyncio.create_task(asyncio.sleep(POST_SECONDS))
        await asyncio.shield(self._post)
        await self._dead_letter(record, letter)

    async def _dead_letter(self, record: Record, letter: Letter) -> None:
        """Keep the message as it came, with why; raise if that fails."""
        headers = letter.headers(record, self._service)
        try:
            await self.send(f"{record.topic}-dlq", record.key, record.value, headers)
        except Invalid:  # with our headers it is larger than what the broker takes
            cut = {CUT_FROM: str(len(record.value))}
            await self.send(f"{record.topic}-dlq", record.key, record.value[:MOST_EVENT_BYTES], headers | cut)
        crash_point("consumer.dead_lettered")
        CONSUMED.labels(headers.get("ce_type", "unknown"), "dead_lettered").inc()
        names = {"event_id": "ce_id", "correlation_id": "ce_correlationid", "tenant_id": "ce_tenantid"}
        identity = {name: record.headers.get(header) for name, header in names.items()}
        log.error("event_dead_lettered", topic=record.topic, **identity, **asdict(letter))

    def _record(self, message: KafkaMessage) -> Record:
        raw = as_it_came.raw_of(message)
        headers = {name: as_it_came.text_of(value) for name, value in message.headers.items()}
        topic = str(raw.topic).removeprefix(self._prefix)
        return Record(topic, raw.partition, raw.offset, raw.key, raw.value or b"", headers)
