"""Brings leased deliveries to their endpoints. Tenants have turns, and a delivery that fails too often is parked.

No `work.LeasedWorker`, which does one piece at a time: many deliveries wait for slow endpoints at once here, and which
may be claimed next depends on how many of an endpoint and of a tenant are under way.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Counts

import structlog
from prometheus_client import Counter

from chassis.errors import Conflict, NotFound
from chassis.ids import now
from event_gateway.domain import Delivery, Endpoint, Outcome
from event_gateway.settings import Settings
from event_gateway.store import Webhooks
from event_gateway.use_cases.webhooks import Sender

log = structlog.get_logger()

DELIVERED = Counter("webhook_deliveries_total", "Attempts at deliveries of webhooks.", ["outcome"])
PARKED = Counter("webhooks_parked_total", "Deliveries of webhooks that were given up.")

LOOK_SECONDS = 2.0
"""Between looks for deliveries that came due, or that another replica made."""

GROWTH = 4.0


class Deliveries:
    """Delivers what is due.

    Args:
        webhooks: where it is kept.
        sender: by which endpoints are reached.
        settings: how often, and how many at a time.
        owner: this replica's name in leases.
        wake: set when something was made to be delivered.
    """

    def __init__(
        self, webhooks: Webhooks, sender: Sender, settings: Settings, *, owner: str, wake: asyncio.Event
    ) -> None:
        self._webhooks = webhooks
        self._sender = sender
        self._settings = settings
        self._owner = owner
        self._wake = wake
        self._under_way: dict[asyncio.Task[None], Delivery] = {}

    async def run(self) -> None:
        """Deliver until cancelled; what was under way then is delivered again when its lease is over.

        What is under way goes on where the next cannot be claimed, and is known when this is run again.
        """
        try:
            while True:
                self._wake.clear()
                while (delivery := await self._claim()) is not None:
                    task = asyncio.create_task(self._deliver(delivery))
                    self._under_way[task] = delivery
                    task.add_done_callback(self._end)
                await self._pause()
        except asyncio.CancelledError:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            raise

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._wake.set()

    async def _claim(self) -> Delivery | None:
        """The next delivery; None where none is due, or as many are under way as may be."""
        settings, under_way = self._settings, self._under_way.values()
        if len(under_way) >= settings.webhook_deliveries_at_a_time:
            return None
        to, of = Counts(it.endpoint_id for it in under_way), Counts(it.tenant_id for it in under_way)
        return await self._webhooks.claim(
            self._owner,
            self._lease_seconds,
            but_to=[one for one, many in to.items() if many >= settings.webhook_deliveries_each],
            but_of=[one for one, many in of.items() if many >= settings.webhook_deliveries_per_tenant],
        )

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass

    @property
    def _lease_seconds(self) -> float:
        return self._settings.webhook_seconds + 20

    async def _deliver(self, delivery: Delivery) -> None:
        """One attempt, and what follows from how it ended."""
        try:
            await self._attempt(delivery)
        except Exception as error:  # the boundary of one delivery: its lease runs out, and it is tried again
            log.error("delivery_not_noted", delivery_id=delivery.id, exc_info=error)

    async def _attempt(self, delivery: Delivery) -> None:
        try:
            endpoint = await self._webhooks.endpoint(delivery.tenant_id, delivery.endpoint_id)
        except NotFound:  # deleted meanwhile
            await self._webhooks.forget(delivery)
            return
        if delivery.event_type not in endpoint.types:  # its owner chose others meanwhile
            await self._webhooks.forget(delivery)
            return
        outcome = await self._sent(endpoint, delivery)
        try:
            await self._note(endpoint, delivery, outcome)
        except (Conflict, NotFound) as error:  # another worker has it, or it was deleted
            log.info("delivery_not_noted", delivery_id=delivery.id, reason=error.message)

    async def _sent(self, endpoint: Endpoint, delivery: Delivery) -> Outcome:
        if endpoint.off:
            return Outcome(problem=f"the endpoint is off: {endpoint.off}", over=True)
        try:
            return await self._sender.send(endpoint, delivery.id, delivery.body)
        except Exception as error:  # the boundary of one attempt: an odd address raises anything
            log.error("delivery_not_sent", delivery_id=delivery.id, endpoint_id=endpoint.id, exc_info=error)
            return Outcome(problem=f"it could not be sent ({type(error).__name__})")

    async def _note(self, endpoint: Endpoint, delivery: Delivery, outcome: Outcome) -> None:
        most = self._settings.webhook_attempts
        noted = await self._webhooks.note(delivery, lambda it: it.ended(outcome, now(), most))
        if outcome.gone:
            await self._webhooks.change_endpoint(
                endpoint.tenant_id, endpoint.id, lambda it: it.turn_off(outcome.problem)
            )
        DELIVERED.labels("delivered" if noted.state == "delivered" else "failed").inc()
        if noted.state == "waiting":
            await self._webhooks.put_off(delivery, self._pause_before(noted.attempts))
            return
        await self._webhooks.release(delivery)
        if noted.state == "parked":
            PARKED.inc()
            about = {"endpoint_id": endpoint.id, "tenant_id": endpoint.tenant_id, "attempts": noted.attempts}
            log.warning("webhook_parked", delivery_id=noted.id, problem=noted.problem, **about)

    def _pause_before(self, attempts: int) -> float:
        settings = self._settings
        return min(settings.webhook_longest_pause, settings.webhook_first_pause * pow(GROWTH, min(attempts - 1, 30)))
