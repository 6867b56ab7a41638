"""`GET /v1/events`: a tenant's events, page by page, waiting for the next one, or as a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from chassis.auth import Principal, require
from chassis.errors import Invalid, SartorError, envelope
from chassis.text import quoted
from event_gateway.domain import readable_types
from event_gateway.store import Log
from event_gateway.use_cases import Heads

Reads = Annotated[Principal, require("events:read")]

LONGEST_WAIT = 30.0
SAY_SOMETHING_SECONDS = 15.0
"""In which a stream says something, so that nobody between takes it for dead; the key is looked at again."""

STREAM = "text/event-stream"
LATEST = "latest"


@dataclass(frozen=True)
class Wanted:
    """What somebody reads: of which types, behind which number, how many at a time."""

    types: Sequence[str]
    after: int | None
    limit: int


def reading_routes(log: Log, heads: Heads) -> APIRouter:
    """Events to be read."""
    router = APIRouter(prefix="/v1/events", tags=["events"])

    @router.get("", response_model=None, responses={200: {"content": {STREAM: {}}}})
    async def list_events(
        request: Request,
        principal: Reads,
        types: Annotated[str | None, Query(max_length=2000, description="Only these types, comma separated.")] = None,
        after: Annotated[
            str | None,
            Query(max_length=20, description="Only what follows this `cursor`; `latest` for what is yet to come."),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        wait: Annotated[
            float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for an event where there is none.")
        ] = 0,
        order: Annotated[
            Literal["asc", "desc"],
            Query(description="`desc` lists the newest first; `after` then goes back from there."),
        ] = "asc",
        last_event_id: Annotated[str | None, Header(include_in_schema=False, max_length=20)] = None,
    ) -> dict[str, Any] | StreamingResponse:
        """What one's role may see, oldest first; with `Accept: text/event-stream`, as a stream that goes on."""
        asked = [name.strip() for name in types.split(",") if name.strip()] if types else []
        begin = last_event_id or after
        number = await log.head(principal.tenant_id) if begin == LATEST else _number(begin)
        wanted = Wanted(readable_types(principal, asked), number, limit)
        streamed = STREAM in request.headers.get("accept", "")
        if order == "desc":
            return await _newest(principal, wanted, waits=bool(streamed or wait or begin == LATEST))
        if streamed or wait:
            heads.expect_room(principal)
        if streamed:
            await log.page(principal.tenant_id, wanted.types, after=number, limit=1)  # what is wrong is said at once
            headers = {"cache-control": "no-store"}
            return StreamingResponse(_stream(request, principal, wanted), media_type=STREAM, headers=headers)
        return await _page(request, principal, wanted, wait)

    async def _newest(principal: Principal, wanted: Wanted, *, waits: bool) -> dict[str, Any]:
        if waits:
            raise Invalid("order: 'desc' lists what is there; only 'asc' waits for more.", param="order")
        before = wanted.after
        found = await log.newest(principal.tenant_id, wanted.types, before=before, limit=wanted.limit + 1)
        shown = found[: wanted.limit]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["cursor"] if shown else None,
            "last_id": shown[-1]["cursor"] if shown else None,
            "has_more": len(found) > wanted.limit,
        }

    async def _page(request: Request, principal: Principal, wanted: Wanted, wait: float) -> dict[str, Any]:
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        found, behind = await log.page(principal.tenant_id, wanted.types, after=wanted.after, limit=wanted.limit)
        with heads.one_more(principal.tenant_id):
            while not found and clock() < until and not request.app.state.stopping:
                if await heads.wait(principal.tenant_id, behind, min(1.0, until - clock())):
                    found, behind = await log.page(principal.tenant_id, wanted.types, after=behind, limit=wanted.limit)
        return {
            "object": "list",
            "data": found,
            "first_id": found[0]["cursor"] if found else None,
            "last_id": str(behind),
            "has_more": len(found) == wanted.limit,
        }

    async def _stream(request: Request, principal: Principal, wanted: Wanted) -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        behind, silent_since = wanted.after, clock()
        with heads.one_more(principal.tenant_id):
            try:
                yield ": open\n\n"
                while not request.app.state.stopping:
                    found, behind = await log.page(principal.tenant_id, wanted.types, after=behind, limit=wanted.limit)
                    for one in found:
                        data = json.dumps(one, ensure_ascii=False)
                        yield f"id: {one['cursor']}\nevent: {one['type']}\ndata: {data}\n\n"
                        silent_since = clock()
                    news = len(found) == wanted.limit
                    while not news and not request.app.state.stopping:
                        news = await heads.wait(principal.tenant_id, behind, 1.0)
                        if clock() - silent_since > SAY_SOMETHING_SECONDS:
                            await request.app.state.authenticator.authenticate(request.headers.get("authorization"))
                            yield ": still here\n\n"
                            silent_since = clock()
            except SartorError as error:  # the answer has begun: it is told in it
                yield f"event: error\ndata: {json.dumps(envelope(error))}\n\n"

    return router


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdecimal():
        raise Invalid(f"after: {quoted(cursor)} is no cursor: take `last_id` of a page, or `latest`.", param="after")
    return int(cursor)
