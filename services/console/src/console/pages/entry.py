"""Pages before a session: signing up and in, joining by an invitation, the operator's entry; and signing out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from chassis.auth import Peer, hash_key
from chassis.errors import SartorError
from console.web import Web, address_of

SIGN_UP_FIELDS = ("organization", "email", "password")


def entry_routes(web: Web, accounts: Peer) -> APIRouter:
    """Sign up, sign in, join, sign out."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sign-up")
    async def sign_up_page() -> Response:
        return web.page("entry/sign_up", None, problem="", fields=dict.fromkeys(SIGN_UP_FIELDS, ""))

    @router.post("/sign-up")
    async def sign_up(request: Request) -> Response:
        fields = await web.strangers_form(request)
        wanted = {name: fields.get(name, "") for name in SIGN_UP_FIELDS}
        try:
            asked = {**wanted, "address": address_of(request)}
            person = await accounts.post("/internal/users/sign_up", tenant_id="", json=asked)
        except SartorError as error:
            return web.page("entry/sign_up", None, status=error.status, problem=error.message, fields=wanted)
        return await web.signed_in(request, person)

    @router.get("/sign-in")
    async def sign_in_page() -> Response:
        return web.page("entry/sign_in", None, problem="", email="")

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        fields = await web.strangers_form(request)
        wanted = {name: fields.get(name, "") for name in ("email", "password")}
        try:
            asked = {**wanted, "address": address_of(request)}
            person = await accounts.post("/internal/users/sign_in", tenant_id="", json=asked)
        except SartorError as error:
            return web.page("entry/sign_in", None, status=error.status, problem=error.message, email=wanted["email"])
        return await web.signed_in(request, person)

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
        try:
            person = await accounts.post("/internal/users/join", tenant_id="", json=wanted)
        except SartorError as error:
            return web.page("entry/join", None, status=error.status, problem=error.message, code=wanted["code"])
        return await web.signed_in(request, person)

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
