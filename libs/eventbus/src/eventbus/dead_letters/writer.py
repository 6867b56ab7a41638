"""Writes what a consumer gives up to the dead letters of its topic."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import structlog

from chassis.crash import crash_point
from chassis.errors import Invalid
from eventbus.messages.event_size import MOST_EVENT_BYTES
from eventbus.messages.message import Message
from eventbus.messages.outcome import CONSUMED, CUT_FROM, GiveUp
from eventbus.publish.producer import Producer

log = structlog.get_logger()

COLLECT_SECONDS = 0.5
"""Dead letters are collected for so long, and sent together: poison comes in swarms, and each request is work."""


class DeadLetterWriter:
    """Keeps messages as they came, with why they were given up.

    Args:
        producer: sends them.
        service: the consumer that gives them up.
    """

    def __init__(self, producer: Producer, service: str) -> None:
        self._producer = producer
        self._service = service
        self._collecting: asyncio.Task[None] | None = None

    async def write_together(self, message: Message, why: GiveUp) -> None:
        """Write a message with all those that come up meanwhile, in their order; raise if that fails."""
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.create_task(asyncio.sleep(COLLECT_SECONDS))
        await asyncio.shield(self._collecting)
        await self.write(message, why)

    async def write(self, message: Message, why: GiveUp) -> None:
        """Write a message now; raise if that fails."""
        topic, headers = f"{message.topic}-dlq", why.headers(message, self._service)
        try:
            await self._producer.send(topic, message.key, message.value, headers)
        except Invalid:  # with our headers it is larger than what the broker takes
            cut = {CUT_FROM: str(len(message.value))}
            await self._producer.send(topic, message.key, message.value[:MOST_EVENT_BYTES], headers | cut)
        crash_point("consumer.dead_lettered")
        CONSUMED.labels(headers.get("ce_type", "unknown"), "dead_lettered").inc()
        names = {"event_id": "ce_id", "correlation_id": "ce_correlationid", "tenant_id": "ce_tenantid"}
        identity = {name: message.headers.get(header) for name, header in names.items()}
        log.error("event_dead_lettered", topic=message.topic, **identity, **asdict(why))
