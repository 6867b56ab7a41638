"""The operator's pages: services, tenants and dead letters, without any tenant's content."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx2
from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from chassis.errors import SartorError
from chassis.peers import Peer
from chassis.routes import Router
from console.answers import InvitedAnswer
from console.paging import Listed, cursor
from console.sessions import Session
from console.web import SEE_OTHER, Web
from schemas.services import SERVICES

TENANTS_SHOWN = 50
LETTERS_SHOWN = 50
READINESS_SECONDS = 6.0
CEILINGS = ("requests_per_minute", "tokens_per_minute", "keys", "people")


def operator_routes(web: Web, peer: Callable[[str], Peer]) -> Router:
    """Services, tenants, dead letters."""
    router = Router(prefix="/operator", include_in_schema=False)
    accounts = peer("accounts")
    services = services_of(peer)

    @router.get("")
    async def services_page(request: Request) -> Response:
        session = await web.operator(request)
        states = await asyncio.gather(*map(_readiness, services.values()))
        return web.page("operator/services", session, states=dict(zip(services, states, strict=True)))

    async def tenants_shown(
        session: Session,
        after: str | None = None,
        *,
        problem: str = "",
        invited: InvitedAnswer | None = None,
        status: int = 200,
    ) -> Response:
        found = await accounts.get("/v1/organization/tenants", params=cursor(TENANTS_SHOWN, after), **session.who)
        tenants = Listed(found["data"], found["has_more"], after)
        return web.page(
            "operator/tenants",
            session,
            tenants=tenants,
            url=web.public_url,
            ceilings=CEILINGS,
            problem=problem,
            invited=invited,
            status=status,
        )

    @router.get("/tenants")
    async def tenants_page(request: Request, after: str | None = None) -> Response:
        return await tenants_shown(await web.operator(request), after)

    @router.post("/tenants")
    async def make_tenant(request: Request) -> Response:
        """A tenant with its first owner."""
        session = await web.operator(request)
        fields = await web.form(request, session)
        try:
            asked = {"name": fields.get("name", ""), "owner": fields.get("email", "")}
            invited = (await accounts.post("/v1/organization/tenants", json=asked, **session.who))["owner"]
        except SartorError as error:
            return await tenants_shown(session, problem=error.message, status=error.status)
        return await tenants_shown(session, invited=invited)

    @router.post("/tenants/{tenant_id}/owners")
    async def let_owner_in(tenant_id: str, request: Request) -> Response:
        session = await web.operator(request)
        fields = await web.form(request, session)
        try:
            asked = {"email": fields.get("email", "")}
            invited = await accounts.post("/v1/organization/tenants/{}/owners", tenant_id, json=asked, **session.who)
        except SartorError as error:
            return await tenants_shown(session, problem=error.message, status=error.status)
        return await tenants_shown(session, invited=invited)

    @router.post("/tenants/{tenant_id}/limits")
    async def change_limits(tenant_id: str, request: Request) -> Response:
        session = await web.operator(request)
        fields = await web.form(request, session)
        wanted = {name: _number(fields[name]) for name in CEILINGS if fields.get(name)}
        try:
            await accounts.request("PATCH", "/v1/organization/tenants/{}", tenant_id, json=wanted, **session.who)
        except SartorError as error:
            return await tenants_shown(session, problem=error.message, status=error.status)
        return RedirectResponse("/operator/tenants", SEE_OTHER)

    async def letters_shown(
        session: Session, after: str | None = None, *, problem: str = "", status: int = 200
    ) -> Response:
        params = cursor(LETTERS_SHOWN, after)
        found = await accounts.get("/v1/organization/dead_letters", params=params, timeout=60, **session.who)
        letters = Listed(found["data"], found["has_more"], after)
        return web.page("operator/dead_letters", session, letters=letters, problem=problem, status=status)

    @router.get("/dead-letters")
    async def letters_page(request: Request, after: str | None = None) -> Response:
        return await letters_shown(await web.operator(request), after)

    @router.post("/dead-letters/{letter_id}/replay")
    async def replay(letter_id: str, request: Request) -> Response:
        session = await web.operator(request)
        await web.form(request, session)
        try:
            await accounts.post("/v1/organization/dead_letters/{}/replay", letter_id, timeout=60, **session.who)
        except SartorError as error:
            return await letters_shown(session, problem=error.message, status=error.status)
        return RedirectResponse("/operator/dead-letters", SEE_OTHER)

    return router


def services_of(peer: Callable[[str], Peer]) -> dict[str, Peer]:
    """The services to look at: all but the console itself, and those that this installation has not."""
    peers = {name: peer(name) for name in SERVICES if name != "console"}
    return {name: one for name, one in peers.items() if one.url}


def _number(text: str) -> int | str:
    """The number that a field holds, or its text where it is none, so that accounts says what is wrong."""
    return int(text) if text.isascii() and text.isdecimal() else text


async def _readiness(peer: Peer) -> dict[str, str]:
    """What a service says of each thing it needs; one entry where it says nothing."""
    try:
        async with (
            asyncio.timeout(READINESS_SECONDS),
            peer.stream("GET", "/readyz", tenant_id="") as answer,
        ):
            report = json.loads(await answer.aread())
            return {str(name): str(state) for name, state in report.items()}
    except (SartorError, httpx2.HTTPError, TimeoutError, ValueError, AttributeError) as error:
        return {"service": f"cannot be reached ({type(error).__name__})"}
