"""Keeps the events that tenants may read, tells those who wait for the next one, and makes the deliveries of each."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

import structlog

from chassis.auth import Principal
from chassis.ids import now
from chassis.in_flight import InFlight
from event_gateway.domain import VISIBLE, Delivery, cloudevent_of
from event_gateway.store import Log, Webhooks
from eventbus import envelope_handled
from schemas import EVENTS, Event

log = structlog.get_logger()

ANNOUNCED: tuple[type[Event], ...] = tuple(event for name, event in EVENTS.items() if name in VISIBLE)
"""The types that are kept to be read."""

LOOK_SECONDS = 1.0
"""Between looks for news, of all tenants that somebody waits for together."""


class KeepEvent:
    """Keeps an event to be read, and makes a delivery to each webhook that wants it.

    Args:
        events: where it is kept.
        webhooks: where deliveries are made.
        most_waiting: deliveries that wait for one endpoint.
        wake: called when there is something to deliver.
    """

    def __init__(self, events: Log, webhooks: Webhooks, *, most_waiting: int, wake: asyncio.Event) -> None:
        self._events = events
        self._webhooks = webhooks
        self._most_waiting = most_waiting
        self._wake = wake

    async def run(self, event: Event) -> None:
        """Keep it, once; an event of the installation itself is nobody's to read."""
        if not event.tenant_id:
            return
        envelope = envelope_handled()
        shown = cloudevent_of(envelope, event)
        await self._events.append(event.tenant_id, shown)
        for endpoint in await self._webhooks.wanting(event.tenant_id, event.type):
            delivery = Delivery.of(endpoint, shown, int(envelope.time.timestamp()), now())
            if await self._webhooks.is_known(delivery):
                continue
            if await self._webhooks.is_full(endpoint, self._most_waiting):
                await self._webhooks.count_skipped(endpoint)
                log.warning("webhook_skipped", endpoint_id=endpoint.id, event_id=delivery.event_id)
                continue
            await self._webhooks.add_delivery(delivery)
            self._wake.set()


class Heads:
    """Wakes those who wait for news of their tenant, by one question a second however many they are.

    Args:
        log: the events.
        waiting: who wait in this replica.
    """

    def __init__(self, log: Log, waiting: InFlight) -> None:
        self._log = log
        self._waiting = waiting
        self._heads: dict[str, int] = {}
        self._news = asyncio.Condition()

    def one_more(self, principal: Principal) -> AbstractContextManager[None]:
        """Count somebody who waits, as long as they do; see `InFlight.entered`."""
        return self._waiting.entered(principal.tenant_id)

    async def wait(self, tenant_id: str, after: int, seconds: float) -> bool:
        """Whether the tenant has an event behind a number, told as soon as it has, or after some seconds."""
        try:
            async with asyncio.timeout(seconds), self._news:
                return await self._news.wait_for(lambda: self._heads.get(tenant_id, 0) > after)
        except TimeoutError:
            return False

    async def run(self) -> None:
        """Look for news of those who are waited for, until cancelled."""
        while True:
            if tenants := self._waiting.tenants:
                self._heads = await self._log.heads(tenants)
                async with self._news:
                    self._news.notify_all()
            await asyncio.sleep(LOOK_SECONDS)
