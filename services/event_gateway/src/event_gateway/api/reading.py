"""`GET /v1/events`: a tenant's events, page by page, waiting for the next one, or as a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chassis.auth import Principal, require
from chassis.errors import Forbidden, Invalid, SartorError, envelope
from chassis.routes import Router
from chassis.text import quoted
from event_gateway.domain import CloudEvent, readable_types
from event_gateway.store import Log
from event_gateway.use_cases import Heads

READ = "events:read"
Reads = Annotated[Principal, require(READ)]

LONGEST_WAIT = 30.0
SAY_SOMETHING_SECONDS = 15.0
"""In which a stream says something, so that nobody between takes it for dead."""
CHECK_SECONDS = 1.0
"""After which the key of whoever reads on is looked at again, however much there is to read."""

MOST_NUMBER = 2**63 - 1

STREAM = "text/event-stream"
LATEST = "latest"


class EventPage(TypedDict):
    """A page of events; its ids are cursors."""

    object: Literal["list"]
    data: list[CloudEvent]
    first_id: str | None
    last_id: str | None
    has_more: bool


@dataclass(frozen=True)
class Wanted:
    """What somebody reads: of which types, behind which number, how many at a time.

    Attributes:
        asked: the types they named; none for all they may read.
        types: the types they may read of these.
        after: the number.
        limit: at most so many at a time.
    """

    asked: Sequence[str]
    types: Sequence[str]
    after: int | None
    limit: int


class CountedStream(StreamingResponse):
    """A stream that has a place among those that are open, from before its first byte to its end."""

    def __init__(self, heads: Heads, principal: Principal, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type=STREAM, headers={"cache-control": "no-store"})
        self._place = heads.one_more(principal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            RateLimited: there are too many.
        """
        with self._place:
            await super().__call__(scope, receive, send)


def reading_routes(log: Log, heads: Heads) -> Router:
    """Events to be read."""
    router = Router(prefix="/v1/events", tags=["events"])

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
    ) -> EventPage | StreamingResponse:
        """Events that one's role may see, oldest first, or as a stream with `Accept: text/event-stream`."""
        asked = [name.strip() for name in types.split(",") if name.strip()] if types else []
        begin = last_event_id or after
        number = await log.head(principal.tenant_id) if begin == LATEST else _number(begin)
        wanted = Wanted(asked, readable_types(principal, asked), number, limit)
        streamed = STREAM in request.headers.get("accept", "")
        if order == "desc":
            return await _newest(principal, wanted, waits=bool(streamed or wait or begin == LATEST))
        if streamed:
            await log.page(principal.tenant_id, wanted.types, after=number, limit=1)  # what is wrong is said at once
            return CountedStream(heads, principal, _stream(request, principal, wanted))
        return await _page(request, principal, wanted, wait)

    async def _newest(principal: Principal, wanted: Wanted, *, waits: bool) -> EventPage:
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

    async def _page(request: Request, principal: Principal, wanted: Wanted, wait: float) -> EventPage:
        found, behind = await log.page(principal.tenant_id, wanted.types, after=wanted.after, limit=wanted.limit)
        if wait and not found:
            with heads.one_more(principal):
                found, behind = await _awaited(request, principal, wanted, behind, wait)
        return {
            "object": "list",
            "data": found,
            "first_id": found[0]["cursor"] if found else None,
            "last_id": str(behind),
            "has_more": len(found) == wanted.limit,
        }

    async def _awaited(
        request: Request, principal: Principal, wanted: Wanted, behind: int, wait: float
    ) -> tuple[list[CloudEvent], int]:
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        found: list[CloudEvent] = []
        while not found and clock() < until and not request.app.state.stopping:
            if await heads.wait(principal.tenant_id, behind, min(1.0, until - clock())):
                types = await _types_now(request, wanted)
                found, behind = await log.page(principal.tenant_id, types, after=behind, limit=wanted.limit)
        return found, behind

    async def _stream(request: Request, principal: Principal, wanted: Wanted) -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        types, behind, news = wanted.types, wanted.after, True
        said_at = checked_at = clock()
        try:
            yield ": open\n\n"
            while not request.app.state.stopping:
                found: list[CloudEvent] = []
                if news:
                    found, behind = await log.page(principal.tenant_id, types, after=behind, limit=wanted.limit)
                for one in found:
                    if clock() - checked_at > CHECK_SECONDS:
                        types, checked_at = await _types_now(request, wanted), clock()
                    if one["type"] in types:
                        data = json.dumps(one, ensure_ascii=False)
                        yield f"id: {one['cursor']}\nevent: {one['type']}\ndata: {data}\n\n"
                        said_at = clock()
                news = len(found) == wanted.limit or await heads.wait(principal.tenant_id, behind or 0, 1.0)
                if clock() - checked_at > CHECK_SECONDS:
                    types, checked_at = await _types_now(request, wanted), clock()
                if clock() - said_at > SAY_SOMETHING_SECONDS:
                    yield ": still here\n\n"
                    said_at = clock()
        except SartorError as error:  # the answer has begun: it is told in it
            yield f"event: error\ndata: {json.dumps(envelope(error))}\n\n"

    return router


async def _types_now(request: Request, wanted: Wanted) -> list[str]:
    """What whoever reads on may read by now.

    Raises:
        Unauthenticated, Forbidden: their key has ended, or may not read what they asked for any more.
    """
    principal = await request.app.state.authenticator.authenticate(request.headers.get("authorization"))
    if not principal.may(READ):
        raise Forbidden("This key may read events no more. Use a key with that permission.", param=READ)
    return readable_types(principal, wanted.asked)


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdecimal() or int(cursor) > MOST_NUMBER:
        raise Invalid(f"after: {quoted(cursor)} is no cursor: take `last_id` of a page, or `latest`.", param="after")
    return int(cursor)
