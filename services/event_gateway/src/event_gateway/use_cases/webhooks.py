"""Makes and changes webhook endpoints, tries them, and sends parked deliveries again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from chassis.auth import Principal
from chassis.errors import Forbidden, Invalid, Unprocessable
from chassis.idempotency import request_id_for
from chassis.ids import new_id, now
from event_gateway.domain import (
    Delivery,
    Endpoint,
    Outcome,
    known_types,
    new_secret,
    readable_types,
    sample_event,
    webhook_body,
)
from event_gateway.store import Webhooks


class Sender(Protocol):
    """Sends one delivery; a test sends none."""

    async def check(self, tenant_id: str, url: str) -> None:
        """Raise `Invalid` unless a webhook may be sent there."""

    async def send(self, endpoint: Endpoint, webhook_id: str, body: str) -> Outcome:
        """Send it once."""


@dataclass(frozen=True)
class NewEndpoint:
    """An endpoint as asked for."""

    name: str
    url: str
    event_types: tuple[str, ...]


class Endpoints:
    """Makes, changes and tries webhook endpoints: for those alone who may read what is sent to them.

    Args:
        webhooks: where they are kept.
        sender: by which they are reached.
        most: of one tenant.
        wake: called when there is something to deliver.
    """

    def __init__(self, webhooks: Webhooks, sender: Sender, *, most: int, wake: asyncio.Event) -> None:
        self._webhooks = webhooks
        self._sender = sender
        self._most = most
        self._wake = wake

    async def create(self, maker: Principal, asked: NewEndpoint) -> Endpoint:
        """An endpoint with a secret.

        Raises:
            Invalid: no webhook may be sent to its address, or there is no such type of event.
            Forbidden: the maker may not read a type, or there are too many endpoints.
        """
        readable_types(maker, known_types(asked.event_types))
        await self._sender.check(maker.tenant_id, asked.url)
        if await self._webhooks.count(maker.tenant_id) >= self._most:
            raise Forbidden(
                f"Your organization has {self._most} webhook endpoints, the most it may have. Delete some.",
                code="too_many_webhooks",
            )
        at = now()
        endpoint = Endpoint(
            id=request_id_for("we_", new_id("we_")),
            tenant_id=maker.tenant_id,
            created_at=at,
            updated_at=at,
            name=asked.name,
            url=asked.url,
            event_types=list(dict.fromkeys(asked.event_types)),
            secret=new_secret(),
        )
        stored = await self._webhooks.add_endpoint(endpoint)
        return stored if stored.secret == endpoint.secret else await self.rotate(maker, stored.id, keep=False)

    async def change(self, maker: Principal, endpoint_id: str, changes: dict[str, Any]) -> Endpoint:
        """Take other values; see `create` for the errors."""
        if "event_types" in changes:
            readable_types(maker, known_types(changes["event_types"]))
        if "url" in changes:
            await self._sender.check(maker.tenant_id, changes["url"])

        def change(endpoint: Endpoint) -> None:
            readable_types(maker, endpoint.types)
            endpoint.change(now(), **changes)

        return await self._webhooks.change_endpoint(maker.tenant_id, endpoint_id, change)

    async def rotate(self, maker: Principal, endpoint_id: str, *, keep: bool) -> Endpoint:
        """Sign by another secret; by the one before as well for a day, if it is kept.

        Raises:
            Forbidden: the maker may not read a type that is sent.
        """
        secret = new_secret()

        def rotate(endpoint: Endpoint) -> None:
            readable_types(maker, endpoint.types)
            endpoint.rotate(secret, now(), keep=keep)

        return await self._webhooks.change_endpoint(maker.tenant_id, endpoint_id, rotate)

    async def delete(self, maker: Principal, endpoint_id: str) -> None:
        """Delete an endpoint with its deliveries.

        Raises:
            Forbidden: the maker may not read a type that is sent.
        """
        endpoint = await self._webhooks.endpoint(maker.tenant_id, endpoint_id)
        readable_types(maker, endpoint.types)
        await self._webhooks.remove(endpoint)

    async def try_out(self, maker: Principal, endpoint_id: str, event_type: str) -> int:
        """Send a sample now, once.

        Returns:
            The HTTP status that was answered.

        Raises:
            Invalid: there is no such type.
            Forbidden: the maker may not read it, or a type that is sent.
            Unprocessable: nobody answered.
        """
        [known] = readable_types(maker, known_types([event_type]))
        endpoint = await self._webhooks.endpoint(maker.tenant_id, endpoint_id)
        readable_types(maker, endpoint.types)
        outcome = await self._sender.send(endpoint, new_id("whd_sample_"), webhook_body(sample_event(known), now()))
        if outcome.status is None:
            raise Unprocessable(f"{endpoint.url} did not answer: {outcome.problem}.", code="webhook_unreachable")
        return outcome.status

    async def deliveries(
        self,
        maker: Principal,
        endpoint_id: str,
        *,
        state: Literal["waiting", "delivered", "parked"] | None,
        limit: int,
        after: str | None,
    ) -> list[Delivery]:
        """Deliveries to an endpoint, newest first."""
        endpoint = await self._webhooks.endpoint(maker.tenant_id, endpoint_id)
        return await self._webhooks.deliveries_page(endpoint, state=state, limit=limit, after=after)

    async def replay(self, maker: Principal, endpoint_id: str, delivery_id: str) -> Delivery:
        """Send a delivery again that was parked, or taken.

        Raises:
            NotFound: no such delivery to this endpoint.
            Forbidden: the maker may not read what is sent, or was sent by this delivery.
            Conflict: it is under way.
            Invalid: the endpoint is off, or wants no events of this type any more.
        """
        endpoint = await self._webhooks.endpoint(maker.tenant_id, endpoint_id)
        delivery = await self._webhooks.delivery(endpoint, delivery_id)
        readable_types(maker, {*endpoint.types, delivery.event_type})
        if endpoint.off:
            raise Invalid(f"This endpoint is off: {endpoint.off}. Change it first.", code="endpoint_off")
        if delivery.event_type not in endpoint.types:
            raise Invalid(
                f"This endpoint is not sent {delivery.event_type} any more. Add that to its event_types first.",
                code="type_not_wanted",
            )
        again = await self._webhooks.replay(delivery)
        self._wake.set()
        return again
