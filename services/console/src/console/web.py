"""What every page shares: the session it needs, the form token it checks, and friendly errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException

from chassis.errors import SartorError
from chassis.http import error_response
from console.pages import HEADERS, render
from console.sessions import COOKIE, Session, Sessions

SEE_OTHER = 303


class SignedOut(Exception):
    """The page needs a session and there is none."""


class Web:
    """Sessions and rendering for the routes.

    Args:
        sessions: who is signed in.
        secure: whether cookies are for https only.
    """

    def __init__(self, sessions: Sessions, *, secure: bool) -> None:
        self.sessions = sessions
        self._secure = secure

    async def session(self, request: Request) -> Session:
        """The signed-in person.

        Raises:
            SignedOut: nobody is; the browser is sent to the sign-in page.
        """
        session = await self.sessions.find(request.cookies.get(COOKIE))
        if session is None:
            raise SignedOut
        return session

    async def form(self, request: Request, session: Session) -> dict[str, str]:
        """The fields of a form that this session made.

        Raises:
            Forbidden: another site made it.
        """
        fields = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
        self.sessions.check_form(session.id, fields.get("form_token"))
        return fields

    def page(self, name: str, session: Session | None, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A rendered page."""
        token = self.sessions.form_token(session.id) if session else ""
        body = render(name, session=session, form_token=token, **values)
        return HTMLResponse(body, status_code=status, headers=HEADERS)

    def signed_in(self, cookie: str) -> Response:
        """To the first page, with the cookie set."""
        answer = RedirectResponse("/", SEE_OTHER)
        answer.set_cookie(COOKIE, cookie, httponly=True, samesite="lax", secure=self._secure, path="/")
        return answer

    def signed_out(self) -> Response:
        """To the sign-in page, with the cookie gone."""
        answer = RedirectResponse("/sign-in", SEE_OTHER)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    def install(self, app: FastAPI) -> None:
        """Show errors as pages to browsers."""

        async def on_signed_out(_request: Request, _error: Exception) -> Response:
            return RedirectResponse("/sign-in", SEE_OTHER)

        async def on_error(request: Request, error: Exception) -> Response:
            assert isinstance(error, SartorError)
            if "text/html" not in request.headers.get("accept", ""):
                return error_response(error)
            session = await self.sessions.find(request.cookies.get(COOKIE))
            return self.page("problem", session, status=error.status, message=error.message)

        async def on_missing(request: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            session = await self.sessions.find(request.cookies.get(COOKIE))
            return self.page("problem", session, status=error.status_code, message="There is no such page.")

        app.add_exception_handler(SignedOut, on_signed_out)
        app.add_exception_handler(SartorError, on_error)
        app.add_exception_handler(HTTPException, on_missing)
