"""Pages for signing up, in and out, and for API keys."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from chassis.auth import Peer
from chassis.errors import SartorError
from console.paging import Listed, cursor
from console.sessions import Session
from console.web import SEE_OTHER, Web

KEYS_SHOWN = 50
SIGN_UP_FIELDS = ("organization", "email", "password")


def account_routes(web: Web, accounts: Peer) -> APIRouter:
    """Sign up, sign in, sign out, API keys."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sign-up")
    async def sign_up_page() -> Response:
        return web.page("sign_up", None, problem="", fields=dict.fromkeys(SIGN_UP_FIELDS, ""))

    @router.post("/sign-up")
    async def sign_up(request: Request) -> Response:
        fields = await web.strangers_form(request)
        wanted = {name: fields.get(name, "") for name in SIGN_UP_FIELDS}
        try:
            person = await accounts.post("/internal/users/sign_up", tenant_id="", json=wanted)
        except SartorError as error:
            return web.page("sign_up", None, status=error.status, problem=error.message, fields=wanted)
        return web.signed_in(await web.sessions.open(person))

    @router.get("/sign-in")
    async def sign_in_page() -> Response:
        return web.page("sign_in", None, problem="", email="")

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        fields = await web.strangers_form(request)
        wanted = {name: fields.get(name, "") for name in ("email", "password")}
        try:
            person = await accounts.post("/internal/users/sign_in", tenant_id="", json=wanted)
        except SartorError as error:
            return web.page("sign_in", None, status=error.status, problem=error.message, email=wanted["email"])
        return web.signed_in(await web.sessions.open(person))

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        session = await web.session(request)
        await web.form(request, session)
        await web.sessions.end(session)
        return web.signed_out()

    @router.get("/keys")
    async def keys_page(request: Request, after: str | None = None) -> Response:
        session = await web.session(request)
        return web.page("keys", session, keys=await _keys(session, after), made="")

    async def _keys(session: Session, after: str | None) -> Listed:
        found = await accounts.get("/v1/organization/keys", params=cursor(KEYS_SHOWN, after), **session.who)
        return Listed(found["data"], found["has_more"], after)

    @router.post("/keys")
    async def make_key(request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        asked = {"name": fields.get("name") or "key", "role": "engineer"}
        made = await accounts.post("/v1/organization/keys", json=asked, **session.who)
        return web.page("keys", session, keys=await _keys(session, None), made=made["api_key"])

    @router.post("/keys/{key_id}/revoke")
    async def revoke_key(key_id: str, request: Request) -> Response:
        session = await web.session(request)
        await web.form(request, session)
        who = session.who
        await accounts.request("DELETE", "/v1/organization/keys/{}", key_id, **who)
        return RedirectResponse("/keys", SEE_OTHER)

    return router
