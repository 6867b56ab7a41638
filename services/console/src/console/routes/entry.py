"""The pages by which people and the operator come in, and signing out."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from chassis.auth import hash_key
from chassis.errors import SartorError
from chassis.peers import Peer
from chassis.routes import Router
from console.sessions import Person
from console.web import Web, address_of

SIGN_UP_FIELDS = ("organization", "email", "password")


def entry_routes(web: Web, accounts: Peer) -> Router:
    """Sign up, sign in, join, sign out."""
    router = Router(include_in_schema=False)

    @router.get("/sign-up")
    async def sign_up_page() -> Response:
        return web.page("entry/sign_up", None, problem="", fields=dict.fromkeys(SIGN_UP_FIELDS, ""))

    async def enter(
        request: Request, place: str, asked: Mapping[str, str], page: str, shown: Mapping[str, str | Mapping[str, str]]
    ) -> Response:
        """In, if accounts lets them, else the page again with what was `shown` there and why not."""
        try:
            person = Person.model_validate(await accounts.post(place, tenant_id="", json=asked))
        except SartorError as error:
            return web.page(page, None, status=error.status, problem=error.message, **shown)
        return await web.signed_in(request, person)

    @router.post("/sign-up")
    async def sign_up(request: Request) -> Response:
        fields = await web.strangers_form(request)
        wanted = {name: fields.get(name, "") for name in SIGN_UP_FIELDS}
        asked = {**wanted, "address": address_of(request)}
        return await enter(request, "/internal/users/sign_up", asked, "entry/sign_up", {"fields": wanted})

    @router.get("/sign-in")
    async def sign_in_page() -> Response:
        return web.page("entry/sign_in", None, problem="", email="")

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        fields = await web.strangers_form(request)
        wanted = {name: fields.get(name, "") for name in ("email", "password")}
        asked = {**wanted, "address": address_of(request)}
        return await enter(request, "/internal/users/sign_in", asked, "entry/sign_in", {"email": wanted["email"]})

    @router.get("/join")
    async def join_page() -> Response:
        return web.page("entry/join", None, problem="", code="")

    @router.post("/join/look")
    async def look(request: Request) -> Response:
        """Whom a code was given to, for the page to say so before a password is chosen."""
        fields = await web.strangers_form(request)
        found = await accounts.post("/internal/users/look", tenant_id="", json={"code": fields.get("code", "")})
        return JSONResponse(found)

    @router.post("/join")
    async def join(request: Request) -> Response:
        fields = await web.strangers_form(request)
        wanted = {name: fields.get(name, "") for name in ("code", "password")}
        return await enter(request, "/internal/users/join", wanted, "entry/join", {"code": wanted["code"]})

    @router.get("/operator/sign-in")
    async def operator_page() -> Response:
        return web.page("entry/operator", None, problem="")

    @router.post("/operator/sign-in")
    async def operator(request: Request) -> Response:
        fields = await web.strangers_form(request)
        try:
            person = await web.sessions.begin_operator(hash_key(fields.get("key", "").strip()))
        except SartorError as error:
            return web.page("entry/operator", None, status=error.status, problem=error.message)
        return await web.signed_in(request, person)

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        session = await web.anybody(request)
        await web.form(request, session)
        await web.sessions.end(session)
        return web.signed_out()

    return router
