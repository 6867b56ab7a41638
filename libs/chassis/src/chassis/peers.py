"""Calls between services: signed for a tenant, and asked of another replica where one goes away under them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Required, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx2
import structlog
from pydantic import TypeAdapter, ValidationError

from chassis.auth import TOKEN_REFUSED, Principal
from chassis.errors import BY_STATUS, NotFound, SartorError, Transient
from chassis.tokens import Tokens

log = structlog.get_logger()

LONGEST_CALL_SECONDS = 30.0
MOST_ERRORS = 5
"""Of a whole call between services; the client's own deadline is that of each read, which a trickle never meets."""

BROKEN = (httpx2.NetworkError, httpx2.RemoteProtocolError)
"""The connection ended before the answer did; a deadline that passed is not that."""


T = TypeVar("T")


class Unreachable(Transient):
    """Nobody takes the connection: the other service has not heard of the call."""


class Sent(TypedDict, total=False):
    """What a call sends.

    Attributes:
        json: the body.
        content: the body, where it is none of JSON.
        params: of the query.
        headers: besides those of every call.
        timeout: seconds; as usual where it is None.
    """

    json: Mapping[str, Any]
    content: AsyncIterable[bytes]
    params: Mapping[str, Any]
    headers: Mapping[str, str]
    timeout: float | None


class Call(Sent, total=False):
    """What a call says besides its address.

    Attributes:
        tenant_id: acted for; empty where the call is about no tenant.
        user: acted as.
    """

    tenant_id: Required[str]
    user: Principal | None


class Peer:
    """A client for another service's HTTP API, signed for one tenant per call.

    Args:
        name: the other service's package name (the token's audience).
        url: where it listens.
        tokens: this service's signer.
        client: shared HTTP client with a deadline.
    """

    def __init__(self, name: str, url: str, tokens: Tokens, client: httpx2.AsyncClient) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._tokens = tokens
        self._client = client

    async def request(
        self,
        method: str,
        path: str,
        *ids: str,
        tenant_id: str,
        user: Principal | None = None,
        again: int = 0,
        **sent: Unpack[Sent],
    ) -> Any:
        """Call the service for `tenant_id`, as `user` if one is named, and return the decoded JSON body.

        Args:
            method: of HTTP.
            path: the address, with `{}` where an id goes; constant, as what people send must not choose the route.
            ids: quoted into the path.
            tenant_id: acted for; empty where the call is about no tenant.
            user: acted as.
            again: how often it is sent again where the connection breaks before the answer, as by a replica that dies.
            sent: see `Sent`.

        Raises:
            SartorError: the kind its status means, with its message; `Transient` when it cannot be reached, which is
                `Unreachable` where no connection could be made.
        """
        headers = {
            "authorization": f"Bearer {self._tokens.sign(self.name, tenant_id, user)}",
            **sent.pop("headers", {}),
        }
        context = structlog.contextvars.get_contextvars()
        if "request_id" in context:
            headers["x-request-id"] = str(context["request_id"])
        response = await self._send(method, self._address(path, ids), again, {**sent, "headers": headers})
        if not response.is_success:
            raise self._refusal(response)
        return response.json() if response.content else None

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *ids: str, tenant_id: str, user: Principal | None = None, **sent: Unpack[Sent]
    ) -> AsyncIterator[httpx2.Response]:
        """As `request`, but yields the open response, whatever its status, to be read as it comes.

        Raises:
            Transient: the service cannot be reached.
        """
        authorization = {"authorization": f"Bearer {self._tokens.sign(self.name, tenant_id, user)}"}
        sent["headers"] = {**authorization, **sent.get("headers", {})}
        try:
            async with self._client.stream(method, self._address(path, ids), **_given(sent)) as response:
                yield response
        except httpx2.TransportError as error:
            raise Transient(f"{self.name} cannot be reached ({type(error).__name__}); try again shortly.") from error

    async def pieces(self, path: str, *ids: str, **call: Unpack[Call]) -> AsyncGenerator[bytes, None]:
        """GET `path`, whose answer is no JSON, as it comes.

        Raises:
            SartorError: as `request`, before the first piece; `Transient` also where it breaks off.
        """
        async with self.stream("GET", path, *ids, **call) as response:
            if not response.is_success:
                await response.aread()
                raise self._refusal(response)
            async for piece in response.aiter_bytes():
                yield piece

    async def get(self, path: str, *ids: str, **call: Unpack[Call]) -> Any:
        """GET `path`, of another replica where one goes away meanwhile; see `request`."""
        return await self.request("GET", path, *ids, again=1, **call)

    async def read(self, shape: type[T], path: str, *ids: str, **call: Unpack[Call]) -> T:
        """As `get`, or with a body as `ask`, with the answer read as what `schemas.http` says that it is.

        Raises:
            Transient: the other service answers something else: another release of it.
        """
        answer = await (self.ask if "json" in call else self.get)(path, *ids, **call)
        try:
            return TypeAdapter(shape).validate_python(answer)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False, include_input=False)  # it may hold texts
            log.error("peer_answer_unknown", peer=self.name, path=path, errors=wrong[:MOST_ERRORS])
            raise Transient(f"{self.name} answered {path} in a way that is not known here.") from error

    async def ask(self, path: str, *ids: str, **call: Unpack[Call]) -> Any:
        """POST to `path` what changes nothing there, so that it may be asked like `get`; see `request`."""
        return await self.request("POST", path, *ids, again=1, **call)

    async def post(self, path: str, *ids: str, **call: Unpack[Call]) -> Any:
        """POST to `path`, once; see `request`."""
        return await self.request("POST", path, *ids, **call)

    def _refusal(self, response: httpx2.Response) -> SartorError:
        """What an answer means that says no."""
        try:
            body = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            body = {"message": f"{self.name} answered {response.status_code}."}
        kind = BY_STATUS.get(response.status_code, Transient)
        if body.get("code") == TOKEN_REFUSED:  # clocks or keys differ: no fault of the request, mended by operators
            kind = Transient
        return kind(str(body.get("message")), code=body.get("code"), param=body.get("param"))

    async def _send(self, method: str, address: str, again: int, sent: Sent) -> httpx2.Response:
        try:
            async with asyncio.timeout(sent.get("timeout") or LONGEST_CALL_SECONDS):
                while True:
                    try:
                        return await self._client.request(method, address, **_given(sent))
                    except BROKEN:
                        if again <= 0:
                            raise
                        again -= 1
        except (httpx2.HTTPError, TimeoutError) as error:
            kind = Unreachable if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)) else Transient
            raise kind(f"{self.name} cannot be reached ({type(error).__name__}); try again shortly.") from error

    def _address(self, path: str, ids: Sequence[str]) -> str:
        if any(one in ("", ".", "..") for one in ids):
            raise NotFound(f"'{next(one for one in ids if one in ('', '.', '..'))}' is no id.")
        return self.url + path.format(*(quote(one, safe="") for one in ids))


def _given(sent: Sent) -> Sent:
    """What goes to the HTTP client, whose usual deadline holds where none is named."""
    given = sent.copy()
    if not given.get("timeout"):
        given.pop("timeout", None)
    return given
