"""`/v1/webhook_endpoints`, as OpenAI's API has them, with the deliveries to each and how they are sent again."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Response
from pydantic import Field

from chassis.auth import Principal, require
from chassis.bodies import Body
from chassis.http import Page, page
from chassis.routes import Router
from event_gateway.api.views import (
    Counts,
    DeliveryView,
    EndpointDeleted,
    EndpointView,
    EndpointWithCounts,
    EndpointWithSecret,
    Tried,
    TypeList,
)
from event_gateway.domain import Endpoint, readable_types
from event_gateway.store import Webhooks
from event_gateway.use_cases import Endpoints, NewEndpoint
from schemas import OPENAI_NAMES

Reads = Annotated[Principal, require("events:read")]
Writes = Annotated[Principal, require("events:write")]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=100)]

EventType = Annotated[str, Field(min_length=1, max_length=100)]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=50)]
Url = Annotated[str, Field(min_length=1, max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class EndpointAsked(Body):
    """An endpoint to be made."""

    name: Name
    url: Url
    event_types: EventTypes


class EndpointChange(Body):
    """What to change about an endpoint."""

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None


class RotationAsked(Body):
    """A secret to be replaced."""

    keep_old_secret_active_for_24_hours: bool = False


class SampleAsked(Body):
    """A type of event to send a sample of."""

    event_type: EventType


def webhook_routes(webhooks: Webhooks, endpoints: Endpoints) -> Router:
    """Webhook endpoints."""
    router = Router(prefix="/v1", tags=["webhooks"])

    async def views(principal: Principal, found: list[Endpoint]) -> list[EndpointWithCounts]:
        counts = await webhooks.counts(principal.tenant_id, [one.id for one in found])
        return [
            EndpointWithCounts(**EndpointView.of(one).model_dump(), deliveries=Counts(**counts[one.id]))
            for one in found
        ]

    async def view(principal: Principal, endpoint: Endpoint) -> EndpointWithCounts:
        [shown] = await views(principal, [endpoint])
        return shown

    @router.get("/webhook_event_types")
    async def list_webhook_event_types(principal: Reads) -> TypeList:
        return TypeList(data=[OPENAI_NAMES.get(one, one) for one in readable_types(principal)])

    @router.post("/webhook_endpoints")
    async def create_webhook_endpoint(
        asked: EndpointAsked, principal: Writes, response: Response
    ) -> EndpointWithSecret:
        response.headers["cache-control"] = "no-store"
        wanted = NewEndpoint(asked.name, asked.url, tuple(asked.event_types))
        return with_secret(await endpoints.create(principal, wanted))

    @router.get("/webhook_endpoints")
    async def list_webhook_endpoints(principal: Reads, limit: Limit = 20, after: After = None) -> Page:
        found = await webhooks.endpoints_page(principal.tenant_id, limit=limit + 1, after=after)
        return page(await views(principal, found), limit=limit)

    @router.get("/webhook_endpoints/{endpoint_id}")
    async def retrieve_webhook_endpoint(endpoint_id: str, principal: Reads) -> EndpointWithCounts:
        return await view(principal, await webhooks.endpoint(principal.tenant_id, endpoint_id))

    @router.post("/webhook_endpoints/{endpoint_id}")
    async def change_webhook_endpoint(
        endpoint_id: str, change: EndpointChange, principal: Writes
    ) -> EndpointWithCounts:
        changes = change.model_dump(exclude_none=True)
        return await view(principal, await endpoints.change(principal, endpoint_id, changes))

    @router.delete("/webhook_endpoints/{endpoint_id}")
    async def delete_webhook_endpoint(endpoint_id: str, principal: Writes) -> EndpointDeleted:
        await endpoints.delete(principal, endpoint_id)
        return EndpointDeleted(id=endpoint_id)

    @router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
    async def rotate_secret(
        endpoint_id: str, principal: Writes, response: Response, asked: RotationAsked | None = None
    ) -> EndpointWithSecret:
        response.headers["cache-control"] = "no-store"
        keep = bool(asked and asked.keep_old_secret_active_for_24_hours)
        return with_secret(await endpoints.rotate(principal, endpoint_id, keep=keep))

    @router.post("/webhook_endpoints/{endpoint_id}/test")
    async def send_sample(endpoint_id: str, asked: SampleAsked, principal: Writes) -> Tried:
        """Send a sample now, once, and say how it was answered."""
        status = await endpoints.try_out(principal, endpoint_id, asked.event_type)
        return Tried(webhook_endpoint_id=endpoint_id, event_type=asked.event_type, status_code=status)

    @router.get("/webhook_endpoints/{endpoint_id}/deliveries")
    async def list_deliveries(
        endpoint_id: str,
        principal: Reads,
        state: Annotated[Literal["waiting", "delivered", "parked"] | None, Query(description="Only these.")] = None,
        limit: Limit = 20,
        after: After = None,
    ) -> Page:
        """The newest first; what was delivered, or could not be, is kept for a week."""
        found = await endpoints.deliveries(principal, endpoint_id, state=state, limit=limit + 1, after=after)
        return page([DeliveryView.of(one) for one in found], limit=limit)

    @router.post("/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/replay")
    async def replay_delivery(endpoint_id: str, delivery_id: str, principal: Writes) -> DeliveryView:
        """Send it again, under the same `webhook-id`."""
        return DeliveryView.of(await endpoints.replay(principal, endpoint_id, delivery_id))

    return router


def with_secret(endpoint: Endpoint) -> EndpointWithSecret:
    """An endpoint as it is shown only now."""
    return EndpointWithSecret(**EndpointView.of(endpoint).model_dump(), signing_secret=endpoint.secret)
