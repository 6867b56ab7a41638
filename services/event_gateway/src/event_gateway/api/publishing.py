"""`POST /v1/events`: CloudEvents 1.0 over HTTP, one or many, and what was refused of them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import Query, Request
from pydantic import JsonValue
from pydantic_core import from_json

from chassis.auth import Principal, require
from chassis.errors import Invalid, SartorError, TooLarge
from chassis.http import Page, page
from chassis.routes import Router
from event_gateway.api.views import Receipt, Receipts
from event_gateway.domain import Sent
from event_gateway.store import Refusals
from event_gateway.use_cases import Publish
from schemas import BATCH, STRUCTURED

Publishes = Annotated[Principal, require("events:publish")]
Reads = Annotated[Principal, require("events:read")]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=100)]

MOST_AT_ONCE = 100
BINARY = "application/json"

TAKES = {
    "requestBody": {
        "required": True,
        "content": {
            STRUCTURED: {"schema": Sent.model_json_schema()},
            BATCH: {"schema": {"type": "array", "maxItems": MOST_AT_ONCE, "items": {"type": "object"}}},
            BINARY: {"schema": {"type": "object", "description": "The data alone; its attributes in headers `ce-…`."}},
        },
    }
}


def publishing_routes(publish: Publish, refusals: Refusals) -> Router:
    """Events in, and what was refused."""
    router = Router(prefix="/v1/events", tags=["events"])

    @router.post("", status_code=202, openapi_extra=TAKES)
    async def publish_events(request: Request, principal: Publishes) -> Receipt | Receipts:
        """Publish one event, or a list in which none is refused; a repeated one is published once."""
        try:
            events, many = await _events(request)
        except SartorError as error:
            await publish.refuse(principal, None, error)
            raise
        if len(events) > 1:
            request.app.state.limiters[0].admit(principal.allowances, len(events) - 1)
        receipts = [Receipt.of(one) for one in await publish.run(principal, events)]
        return Receipts(data=receipts) if many else receipts[0]

    @router.get("/refused")
    async def list_refused_events(principal: Reads, limit: Limit = 20, after: After = None) -> Page:
        return page(await refusals.page(principal.tenant_id, limit=limit + 1, after=after), limit=limit)

    return router


async def _events(request: Request) -> tuple[list[JsonValue], bool]:
    """The events of a request, and whether it sends a list.

    Raises:
        Invalid: it is no CloudEvents request.
        TooLarge: too many at once.
    """
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    attributes = {
        name[3:]: unquote(value, errors="replace") for name, value in request.headers.items() if name.startswith("ce-")
    }
    if kind not in (STRUCTURED, BATCH) and not (kind == BINARY and attributes):
        raise Invalid(
            f"content-type: send an event as {STRUCTURED}, a list of them as {BATCH}, "
            f"or its data as {BINARY} with its attributes in headers 'ce-…'.",
            code="malformed_event",
            param="content-type",
        )
    try:
        body = from_json(await request.body(), allow_inf_nan=False)
    except ValueError as error:
        raise Invalid(f"The body is no JSON: {error}.", code="malformed_event") from error
    if kind == BINARY:
        return [{**attributes, "datacontenttype": given, "data": body}], False
    if kind == STRUCTURED:
        return [body], False
    if not isinstance(body, list) or not body:
        raise Invalid(f"{BATCH} is a list of one or more events.", code="malformed_event")
    if len(body) > MOST_AT_ONCE:
        raise TooLarge(f"At most {MOST_AT_ONCE} events at once; these are {len(body)}.", code="too_many_events")
    return body, True
