"""What every page shares: the session it needs, the form token it checks, and friendly errors."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException

from chassis.errors import Forbidden, SartorError, Unauthenticated
from chassis.http import error_response
from chassis.roles import ROLES, SCOPES, covers
from console.navigation import home_of, navigation_of
from console.rendering import HEADERS, render
from console.sessions import COOKIE, Person, Session, Sessions

SEE_OTHER = 303
MOST_FIELDS = 20


class SignedOut(Exception):
    """The page needs a session and there is none."""


class Web:
    """Sessions and rendering for the routes.

    Args:
        sessions: who is signed in.
        public_url: where people open the console; with https, cookies are for https only.
    """

    def __init__(self, sessions: Sessions, public_url: str) -> None:
        self.sessions = sessions
        self.public_url = public_url.rstrip("/")
        self._secure = public_url.startswith("https:")
        self._public_host = urlsplit(public_url).netloc

    async def anybody(self, request: Request) -> Session:
        """Who is signed in, a person or the operator.

        Raises:
            SignedOut: nobody is; a page is sent to the sign-in page, a script is told.
        """
        session = await self.sessions.find(request.cookies.get(COOKIE))
        if session is None:
            raise SignedOut
        return session

    async def session(self, request: Request) -> Session:
        """The signed-in person.

        Raises:
            SignedOut: as `anybody`.
            Forbidden: it is the operator, who is of no organization.
        """
        session = await self.anybody(request)
        if session.role == "operator":
            raise Forbidden("This is a page of an organization, and the operator is of none. Sign in as a person.")
        return session

    async def operator(self, request: Request) -> Session:
        """The operator.

        Raises:
            SignedOut: as `anybody`.
            Forbidden: it is somebody else.
        """
        session = await self.anybody(request)
        if session.role != "operator":
            raise Forbidden("This page is for the operator of the installation.")
        return session

    async def form(self, request: Request, session: Session) -> dict[str, str]:
        """The fields of a form that this session made.

        Raises:
            Forbidden: another site made it.
        """
        fields = await _fields(request)
        self.sessions.check_form(session.id, fields.get("form_token"))
        return fields

    async def strangers_form(self, request: Request) -> dict[str, str]:
        """The fields of a form that somebody without a session sent from one of our own pages.

        There is no session yet to bind a token to, so this goes by what browsers say themselves. Without it another
        site could sign somebody into its own account, where what they upload is read by others. Only browsers can be
        led astray like this: who says nothing is none.

        Raises:
            Forbidden: another site's page sent it.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        said_ours = site in ("same-origin", "none") or (site is None and origin is None)
        sender = (origin or "").partition("://")[2]
        if not said_ours and (not sender or sender not in (self._public_host, request.headers.get("host"))):
            raise Forbidden(
                "This form was sent by a page of another site. Open this site yourself and try again there.",
                code="foreign_form",
            )
        return await _fields(request)

    def page(self, name: str, session: Session | None, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A rendered page."""
        token = self.sessions.form_token(session.id) if session else ""
        navigation = navigation_of(session.principal) if session else []
        home = home_of(session.principal) if session else "/"
        body = render(name, session=session, form_token=token, navigation=navigation, home=home, **values)
        return HTMLResponse(body, status_code=status, headers=HEADERS)

    def problem(self, session: Session | None, status: int, message: str, lacks: str | None = None) -> HTMLResponse:
        """A page that says what did not work, and which roles have a right that is missing."""
        scope = lacks if lacks in SCOPES else None
        having = [role for role, may in ROLES.items() if scope and role != "operator" and covers(may, scope)]
        return self.page("parts/problem", session, status=status, message=message, having=having)

    async def signed_in(self, request: Request, person: Person, place: str = "/") -> Response:
        """Open a session for a person, end the one before, and lead to a page, the first where none is named."""
        if before := await self.sessions.find(request.cookies.get(COOKIE)):
            await self.sessions.end(before)
        cookie = await self.sessions.open(person)
        answer = RedirectResponse(place, SEE_OTHER)
        answer.set_cookie(COOKIE, cookie, httponly=True, samesite="lax", secure=self._secure, path="/")
        return answer

    def signed_out(self) -> Response:
        """To the sign-in page, with the cookie gone."""
        answer = RedirectResponse("/sign-in", SEE_OTHER)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    def install(self, app: FastAPI) -> None:
        """Show errors as pages to browsers."""

        async def on_signed_out(request: Request, _error: Exception) -> Response:
            if _wants_page(request):
                return RedirectResponse("/sign-in", SEE_OTHER)
            return error_response(Unauthenticated("You are signed out. Sign in again.", code="signed_out"))

        async def on_error(request: Request, error: Exception) -> Response:
            assert isinstance(error, SartorError)
            if not _wants_page(request):
                return error_response(error)
            session = await self.sessions.find(request.cookies.get(COOKIE))
            return self.problem(session, error.status, error.message, error.param)

        async def on_missing(request: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            session = await self.sessions.find(request.cookies.get(COOKIE))
            message = "There is no such page." if error.status_code in (404, 405) else f"{error.detail}."
            return self.problem(session, error.status_code, message)

        app.add_exception_handler(SignedOut, on_signed_out)
        app.add_exception_handler(SartorError, on_error)
        app.add_exception_handler(HTTPException, on_missing)


def address_of(request: Request) -> str:
    """The network address that somebody comes from, by our ingress, or the /64 network of an IPv6 address."""
    host = request.client.host if request.client else ""
    try:
        known = ip_address(host)
    except ValueError:
        return host
    return host if known.version == 4 else str(ip_network((known, 64), strict=False))


def _wants_page(request: Request) -> bool:
    """Whether a person looks at the answer: browsers ask for HTML where they show it, scripts do not."""
    return "text/html" in request.headers.get("accept", "")


async def _fields(request: Request) -> dict[str, str]:
    form = await request.form(max_files=0, max_fields=MOST_FIELDS)
    return {name: value for name, value in form.items() if isinstance(value, str)}
