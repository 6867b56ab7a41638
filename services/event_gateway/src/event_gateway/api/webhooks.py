"""`/v1/webhook_endpoints`, as OpenAI's API has them, with the deliveries to each and how they are sent again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from chassis.auth import Principal, require
from chassis.bodies import Body
from chassis.http import Page, page
from event_gateway.domain import Delivery, Endpoint, readable_types
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


def webhook_routes(webhooks: Webhooks, endpoints: Endpoints) -> APIRouter:
    """Webhook endpoints."""
    router = APIRouter(prefix="/v1", tags=["webhooks"])

    async def views(principal: Principal, found: list[Endpoint]) -> list[dict[str, Any]]:
        counts = await webhooks.counts(principal.tenant_id, [one.id for one in found])
        return [endpoint_view(one) | {"deliveries": counts[one.id]} for one in found]

    async def view(principal: Principal, endpoint: Endpoint) -> dict[str, Any]:
        [shown] = await views(principal, [endpoint])
        return shown

    @router.get("/webhook_event_types")
    async def list_webhook_event_types(principal: Reads) -> dict[str, Any]:
        return {"object": "list", "data": [OPENAI_NAMES.get(one, one) for one in readable_types(principal)]}

    @router.post("/webhook_endpoints")
    async def create_webhook_endpoint(asked: EndpointAsked, principal: Writes, response: Response) -> dict[str, Any]:
        response.headers["cache-control"] = "no-store"
        wanted = NewEndpoint(asked.name, asked.url, tuple(asked.event_types))
        return secret_view(await endpoints.create(principal, wanted))

    @router.get("/webhook_endpoints")
    async def list_webhook_endpoints(principal: Reads, limit: Limit = 20, after: After = None) -> Page:
        found = await webhooks.endpoints_page(principal.tenant_id, limit=limit + 1, after=after)
        return page(await views(principal, found), limit=limit)

    @router.get("/webhook_endpoints/{endpoint_id}")
    async def retrieve_webhook_endpoint(endpoint_id: str, principal: Reads) -> dict[str, Any]:
        return await view(principal, await webhooks.endpoint(principal.tenant_id, endpoint_id))

    @router.post("/webhook_endpoints/{endpoint_id}")
    async def change_webhook_endpoint(endpoint_id: str, change: EndpointChange, principal: Writes) -> dict[str, Any]:
        changes = change.model_dump(exclude_none=True)
        return await view(principal, await endpoints.change(principal, endpoint_id, changes))

    @router.delete("/webhook_endpoints/{endpoint_id}")
    async def delete_webhook_endpoint(endpoint_id: str, principal: Writes) -> dict[str, Any]:
        await endpoints.delete(principal, endpoint_id)
        return {"object": "webhook_endpoint.deleted", "id": endpoint_id, "deleted": True}

    @router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
    async def rotate_secret(
        endpoint_id: str, principal: Writes, response: Response, asked: RotationAsked | None = None
    ) -> dict[str, Any]:
        response.headers["cache-control"] = "no-store"
        keep = bool(asked and asked.keep_old_secret_active_for_24_hours)
        return secret_view(await endpoints.rotate(principal, endpoint_id, keep=keep))

    @router.post("/webhook_endpoints/{endpoint_id}/test")
    async def send_sample(endpoint_id: str, asked: SampleAsked, principal: Writes) -> dict[str, Any]:
        """Send a sample now, once, and say how it was answered."""
        status = await endpoints.try_out(principal, endpoint_id, asked.event_type)
        return {
            "object": "webhook_endpoint.test",
            "webhook_endpoint_id": endpoint_id,
            "event_type": asked.event_type,
            "status_code": status,
            "success": True,
        }

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
        return page([delivery_view(one) for one in found], limit=limit)

    @router.post("/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/replay")
    async def replay_delivery(endpoint_id: str, delivery_id: str, principal: Writes) -> dict[str, Any]:
        """Send it again, under the same `webhook-id`."""
        return delivery_view(await endpoints.replay(principal, endpoint_id, delivery_id))

    return router


def endpoint_view(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as shown: never its secret."""
    fields = {"id", "created_at", "updated_at", "name", "url", "event_types", "skipped"}
    shown = {"object": "webhook_endpoint", **endpoint.model_dump(include=fields)}
    return shown | {"signing_secret_hint": endpoint.hint, "off": endpoint.off or None}


def secret_view(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint with its secret, which is shown only now."""
    return {**endpoint_view(endpoint), "signing_secret": endpoint.secret}


def delivery_view(delivery: Delivery) -> dict[str, Any]:
    """A delivery as shown."""
    fields = {"id", "created_at", "event_id", "event_type", "state", "attempts", "tried_at", "status", "replays"}
    shown = {"object": "webhook_endpoint.delivery", **delivery.model_dump(include=fields)}
    return shown | {"problem": delivery.problem or None}
