"""The Kafka side: publishing with the ack awaited, and consumers that retry, then dead-letter, never skip."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from prometheus_client import Counter, Histogram

from chassis.errors import PERMANENT, Transient
from chassis.settings import ServiceSettings
from schemas import EVENTS, TOPICS, Envelope, Event, MalformedEvent, parse, read_envelope, to_message
from stores.mongo import PyMongoError

log = structlog.get_logger()

CONSUMED = Counter("events_consumed_total", "Events by outcome.", ["type", "outcome"])
HANDLING = Histogram("event_handler_seconds", "Time spent in a handler, retries included.", ["type"])

ATTEMPTS = 5
ATTEMPTS_WHILE_AWAY = 50
"""Where a peer or the database is away: about four minutes before a good event is put aside."""

BACKOFF_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LOST_RACES = ("stale_write", "stale_fence")
"""Conflicts that the next attempt, on the newer document, need not have."""

PUBLISH_SECONDS = 10
HANDLER_SECONDS = 30

E = TypeVar("E", bound=Event)
Handler = Callable[[Any], Awaitable[None]]
Handlers = Mapping[type[Event], Handler]


class Bus:
    """One service's connection to Kafka.

    Consumers get each event at least once, in order per aggregate. A handler that raises a permanent error sends the
    message to `<topic>-dlq` at once; any other error is tried again `ATTEMPTS` times first, and for minutes where the
    error says that something is away. Only when the dead letter itself cannot be written does the consumer read the
    message again.

    Args:
        settings: broker address and topic prefix.
        service: consumer group, and producer name in dead letters.
    """

    def __init__(self, settings: ServiceSettings, service: str) -> None:
        self._settings = settings
        self._service = service
        self._prefix = settings.topic_prefix
        self._handlers: dict[type[Event], Handler] = {}
        self._watchers: dict[type[Event], Handler] = {}
        self._broker = KafkaBroker(
            settings.kafka_bootstrap.split(","),
            client_id=service,
            acks="all",
            enable_idempotence=settings.kafka_idempotent,
            allow_auto_create_topics=False,
            graceful_timeout=settings.stop_timeout,
            logger=None,
        )

    @property
    def consumed(self) -> frozenset[type[Event]]:
        """The event types this service handles, for the catalogue test."""
        return frozenset(self._handlers) | frozenset(self._watchers)

    def subscribe(self, handlers: Handlers) -> None:
        """Handle these events, each once per service whatever the number of replicas (one consumer group)."""
        self._handlers.update(handlers)

    def watch(self, handlers: Handlers) -> None:
        """See these events in every replica, from now on: for caches that can be rebuilt, never for effects."""
        self._watchers.update(handlers)

    async def start(self) -> None:
        """Create missing topics, then start the producer and the consumers."""
        await self._ensure_topics()
        if self._handlers:
            self._broker.subscriber(
                *self._topics_of(self._handlers),
                group_id=f"{self._prefix}{self._service.replace('_', '-')}",
                ack_policy=AckPolicy.NACK_ON_ERROR,
                auto_offset_reset="earliest",
                session_timeout_ms=self._settings.kafka_session_timeout_ms,
                heartbeat_interval_ms=self._settings.kafka_session_timeout_ms // 3,
                fetch_max_wait_ms=500,
            )(self._on_message)
        if self._watchers:
            self._broker.subscriber(
                *self._topics_of(self._watchers),
                group_id=None,
                ack_policy=AckPolicy.MANUAL,
                auto_offset_reset="latest",
                fetch_max_wait_ms=500,
            )(self._on_watched)
        await self._broker.start()

    async def stop(self) -> None:
        """Finish the handlers under way, then close."""
        try:
            async with asyncio.timeout(self._settings.stop_timeout):
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
        """
        key, value, headers = to_message(envelope, data)
        await self._send(topic, key, value, headers)

    async def _send(self, topic: str, key: bytes | None, value: bytes, headers: dict[str, str]) -> None:
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._broker.publish(value, topic=f"{self._prefix}{topic}", key=key, headers=headers)
        except (TimeoutError, KafkaError) as error:
            raise Transient(f"Kafka did not acknowledge a message to '{topic}' ({type(error).__name__}).") from error

    def _topics_of(self, handlers: Handlers) -> list[str]:
        return sorted({f"{self._prefix}{event.topic}" for event in handlers})

    async def _on_watched(self, message: KafkaMessage) -> None:
        try:
            event, envelope = self._decode(message, self._watchers)
            if event is not None and envelope is not None:
                await self._watchers[type(event)](event)
        except Exception as error:  # a cache that misses an event is rebuilt; the consumer must go on
            log.warning("watched_event_failed", error=f"{type(error).__name__}: {error}")

    async def _on_message(self, message: KafkaMessage) -> None:
        try:
            event, envelope = self._decode(message, self._handlers)
        except MalformedEvent as error:
            await self._dead_letter(message, "malformed", str(error), attempts=1)
            return
        if event is None or envelope is None:
            return
        structlog.contextvars.bind_contextvars(
            event_id=envelope.id, correlation_id=envelope.correlationid, tenant_id=envelope.tenantid
        )
        try:
            with HANDLING.labels(event.type).time():
                await self._handle(message, event)
        finally:
            structlog.contextvars.unbind_contextvars("event_id", "correlation_id", "tenant_id")

    def _decode(self, message: KafkaMessage, handlers: Handlers) -> tuple[Event | None, Envelope | None]:
        """The event if it is one of `handlers`; (None, None) for a type we do not read."""
        headers = {name: value for name, value in message.headers.items() if isinstance(value, (str, bytes))}
        event_type = EVENTS.get(str(headers.get("ce_type", "")))
        if event_type is None and "ce_type" in headers:
            CONSUMED.labels("unknown", "skipped").inc()
            return None, None
        envelope = read_envelope(headers)  # type: ignore[arg-type]
        if event_type is None or event_type not in handlers:
            return None, None
        return parse(event_type, _value(message)), envelope

    async def _handle(self, message: KafkaMessage, event: Event) -> None:
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(HANDLER_SECONDS):
                    await self._handlers[type(event)](event)
                CONSUMED.labels(event.type, "handled").inc()
                return
            except Exception as error:  # the boundary of a consumer: every failure is retried or dead-lettered
                attempt += 1
                reason = f"{type(error).__name__}: {error}"
                if isinstance(error, PERMANENT) and error.code not in LOST_RACES:
                    await self._dead_letter(message, error.code or "permanent", error.message, attempts=attempt)
                    return
                away = isinstance(error, (Transient, PyMongoError))
                last = attempt >= (ATTEMPTS_WHILE_AWAY if away else ATTEMPTS)
                log.warning("event_failed", type=event.type, attempt=attempt, error=reason, exc_info=last)
                if last:
                    await self._dead_letter(message, "exhausted", reason, attempts=attempt)
                    return
                pause = min(LONGEST_PAUSE_SECONDS, BACKOFF_SECONDS * 2**attempt)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter

    async def _dead_letter(self, message: KafkaMessage, code: str, reason: str, *, attempts: int) -> None:
        """Keep the message as it came, with why; raise if even that fails, so that it is read again."""
        raw = _raw(message)
        headers = {name: _text(value) for name, value in message.headers.items()}
        topic = raw.topic.removeprefix(self._prefix)
        headers |= {
            "x-error-code": code,
            "x-error": reason[:2000],
            "x-attempts": str(attempts),
            "x-consumer": self._service,
            "x-original-topic": topic,
            "x-original-partition": str(raw.partition),
            "x-original-offset": str(raw.offset),
        }
        await self._send(f"{topic}-dlq", raw.key, raw.value or b"", headers)
        CONSUMED.labels(headers.get("ce_type", "unknown"), "dead_lettered").inc()
        log.error("event_dead_lettered", topic=topic, code=code, reason=reason, attempts=attempts)

    async def _ensure_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.kafka_bootstrap, client_id=self._service)
        async with asyncio.timeout(30):
            await admin.start()
            try:
                existing = set(await admin.list_topics())
                wanted = {f"{self._prefix}{topic.name}": topic.partitions for topic in TOPICS}
                wanted |= {f"{self._prefix}{topic.dead_letters}": 1 for topic in TOPICS}
                missing = [
                    NewTopic(name, partitions, replication_factor=self._settings.kafka_replication)
                    for name, partitions in wanted.items()
                    if name not in existing
                ]
                if missing:
                    await admin.create_topics(missing)
            except TopicAlreadyExistsError:
                pass
            finally:
                await admin.close()


def _raw(message: KafkaMessage) -> Any:
    return message.raw_message[0] if isinstance(message.raw_message, Sequence) else message.raw_message


def _value(message: KafkaMessage) -> bytes:
    return _raw(message).value or b""


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
