"""The HTTP application every service starts from: ids, errors in the OpenAI envelope, health, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any, Protocol, TypeVar

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from pydantic import BaseModel, JsonValue
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.bodies import UNKNOWN_FIELD
from chassis.draining import DrainBody
from chassis.errors import Invalid, NotFound, SartorError, TooLarge, Transient, envelope
from chassis.exhaustion import Exhausted, exhaustion_named
from chassis.ids import new_id
from chassis.routes import Router
from chassis.settings import ServiceSettings
from chassis.text import shown

log = structlog.get_logger()


class Identified(Protocol):
    """Something with an id."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


Item = Identified | Mapping[str, JsonValue]
"""What a page lists: a model, or JSON with an `id`."""

T = TypeVar("T", bound=Item)

REQUESTS = Counter("http_requests_total", "HTTP requests answered.", ["method", "route", "status"])
LATENCY = Histogram("http_request_seconds", "Time to the last byte of an answer.", ["method", "route"])

MOST_BODY_BYTES = 8 * 1024 * 1024
"""Of a request that is read whole; a long conversation with its context is far below."""

IDLE_SECONDS = 150
"""How long a connection without a request stays open: longer than those who send requests keep one, Caddy 120 s. On a
connection that the server closes a client may just have sent a request, which is then lost without an answer."""

Check = Callable[[], Awaitable[Any]]


def _limit_headers(scope: Scope) -> dict[str, str]:
    """What is left of the caller's allowances, once the caller is known."""
    principal = scope.get("state", {}).get("principal")
    if principal is None:
        return {}
    limiters = scope["app"].state.limiters
    return {name: value for limiter in limiters for name, value in limiter.headers(principal.allowances).items()}


class RequestContext:
    """ASGI middleware: gives each request an id, bound to the log and echoed, and measures it by route template.

    It is also the boundary for unexpected errors, so that even their answers carry the id.

    Args:
        app: the application below.
        away: whether an error says that a dependency is unavailable: answered 503, so that clients try again.
    """

    def __init__(self, app: ASGIApp, away: Callable[[Exception], bool]) -> None:
        self.app = app
        self.away = away

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _readable(headers.get(b"x-request-id", b"")) or new_id("req_")
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                elapsed = int((time.perf_counter() - started) * 1000)
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(elapsed).encode()),
                    *((name.encode(), value.encode()) for name, value in _limit_headers(scope).items()),
                ]
            await send(message)

        try:
            with exhaustion_named():
                await self.app(scope, receive, send_with_ids)
        except Exception as error:  # the boundary of a request: whoever asked gets an answer and an id to quote
            log.error("request_crashed", exc_info=error)
            if status:
                raise
            answer = AWAY if self.away(error) else CRASHED
            if isinstance(error, Exhausted):
                answer = error_response(error)
            if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":
                answer = NOT_UNICODE
            await answer(scope, receive, send_with_ids)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            REQUESTS.labels(scope["method"], route, str(status)).inc()
            LATENCY.labels(scope["method"], route).observe(time.perf_counter() - started)
            structlog.contextvars.unbind_contextvars("request_id", "tenant_id")


def _readable(request_id: bytes) -> str:
    """The client's id if other services and logs can take it over; else nothing."""
    text = request_id.decode("latin-1")[:64]
    return text if text.isascii() and text.isprintable() else ""


class BodyLimit:
    """ASGI middleware: refuses a request body over `limit` bytes before more of it is read.

    Args:
        app: the application below.
        limit: bytes.
        streamed: paths whose routes read the body in pieces, under limits of their own.
    """

    def __init__(self, app: ASGIApp, limit: int, streamed: Sequence[str] = ()) -> None:
        self.app = app
        self.limit = limit
        self.streamed = frozenset(streamed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in self.streamed:
            await self.app(scope, receive, send)
            return
        refused = f"The request body is over {self.limit} bytes"
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.limit:
            await error_response(TooLarge(f"{refused}. Send less at a time."))(scope, receive, send)
            return
        left = self.limit

        async def receive_some() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, refused)
            return message

        await self.app(scope, receive_some, send)


def error_response(error: SartorError) -> JSONResponse:
    """Render an error in the OpenAI envelope, telling the client whether a retry can help."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if not error.transient and error.status in (409, 500):
        headers["x-should-retry"] = "false"
    return JSONResponse(envelope(error), status_code=error.status, headers=headers)


async def _on_sartor_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SartorError)
    if error.status >= 500:
        log.warning("request_failed", code=error.code, error=error.message)
    return error_response(error)


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    loc = first["loc"][1:] if first["loc"][:1] in (("body",), ("query",), ("path",)) else first["loc"]
    where = ".".join(str(part) for part in loc)
    where = ".".join(part for part in (where, first.get("ctx", {}).get("param")) if part)[:200]
    unknown = first["type"] == "extra_forbidden"
    said = UNKNOWN_FIELD if unknown else str(first["msg"])
    message = f"{where}: {said}" if where else said
    return error_response(
        Invalid(message, param=where or None, code="unknown_parameter" if unknown else "invalid_value")
    )


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "unknown_url", 405: "method_not_allowed", 413: "too_large"}
    message = f"{request.method} {shown(request.url.path)}: {error.detail}."
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": codes.get(error.status_code)}
    return JSONResponse({"error": body}, status_code=error.status_code, headers=error.headers)


AWAY = error_response(Transient("A part of Sartor is away at the moment. Try again shortly.", retry_after=1))
NOT_UNICODE = error_response(
    Invalid("The request holds half of a surrogate pair, which is no Unicode text.", code="invalid_value")
)
CRASHED = error_response(SartorError("Something went wrong here. Quote the x-request-id when you report it."))


def create_app(
    service: str,
    *,
    routers: Sequence[Router],
    checks: Mapping[str, Check],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    reports: Mapping[str, Check] | None = None,
    away: Callable[[Exception], bool] = lambda _: False,
    middleware: Sequence[Middleware] = (),
    streamed: Sequence[str] = (),
) -> FastAPI:
    """The service's FastAPI application with health, readiness, metrics and error handling in place.

    Args:
        service: shown as the API's title.
        routers: the service's own routes.
        checks: name -> coroutine function that raises when that dependency is unusable; `/readyz` runs them all.
        lifespan: starts and stops what lives as long as the application.
        reports: as checks, but shown in `/readyz` without making the service unready.
        away: see `RequestContext`.
        middleware: further middleware, inside ours.
        streamed: see `BodyLimit`.
    """
    app = FastAPI(
        title=f"Sartor {service}",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(DrainBody),
            Middleware(RequestContext, away=away),
            Middleware(BodyLimit, limit=MOST_BODY_BYTES, streamed=streamed),
            *middleware,
        ],
    )
    app.state.stopping = False
    app.add_exception_handler(SartorError, _on_sartor_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        every = {**checks, **(reports or {})}
        results = await asyncio.gather(*(_probe(check) for check in every.values()))
        report: dict[str, str] = dict(zip(every, results, strict=True))
        if app.state.stopping:
            report["stopping"] = "draining"
        ready = not app.state.stopping and all(report[name] == "ok" for name in checks)
        return JSONResponse(report, status_code=200 if ready else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    for router in routers:
        app.router.routes.extend(router.routes)
    return app


async def _probe(check: Check) -> str:
    try:
        await asyncio.wait_for(check(), timeout=5)
    except Exception as error:  # the boundary: any failure means "not ready", and says why
        return f"{type(error).__name__}: {error}"
    return "ok"


class _Server(uvicorn.Server):
    """Tells the application of SIGTERM at once, so that it takes no new work while the last requests are answered."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._application = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn: the listening socket closes, then requests end, then the lifespan."""
        self._application.state.stopping = True
        super().handle_exit(sig, frame)


def serve(app: FastAPI, settings: ServiceSettings) -> None:
    """Run the application until SIGTERM or SIGINT, then drain for at most `stop_timeout` seconds.

    Requests under way have half of that; the other half is for what they left to be published.
    """
    config = uvicorn.Config(
        app,
        host=settings.service_host,
        port=settings.service_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=max(1, int(settings.stop_timeout / 2)),
        timeout_keep_alive=IDLE_SECONDS,
    )
    _Server(config, app).run()


class Page(BaseModel):
    """One page of an OpenAI list: `{"object": "list", "data": […], "has_more": …}`."""

    object: str = "list"
    data: list[Any]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


def page(items: Sequence[Item], *, limit: int) -> Page:
    """Make a page of the first `limit` items. A further item says that there is more.

    Items are models or dicts with an `id`.
    """
    shown = list(items[:limit])
    ids = [_id_of(item) for item in shown]
    return Page(
        data=shown,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=len(items) > limit,
    )


def behind(items: Sequence[T], after: str | None, missing: str) -> Sequence[T]:
    """The items that follow the one with an id; all of them where none is named.

    Args:
        items: models or dicts with an `id`.
        after: the id.
        missing: what to say where there is none such.

    Raises:
        NotFound: there is none such.
    """
    if after is None:
        return items
    ids = [_id_of(item) for item in items]
    if after not in ids:
        raise NotFound(missing, param="after")
    return items[ids.index(after) + 1 :]


def _id_of(item: Item) -> str:
    return str(item["id"] if isinstance(item, Mapping) else item.id)
