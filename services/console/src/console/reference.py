"""The API reference: the public routes as each service was built with them, as a page and as an OpenAPI document."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from chassis.errors import NotFound, SartorError
from chassis.peers import Peer
from chassis.routes import Router
from console.openapi import Document, merged, operations
from console.sessions import COOKIE, Session
from console.web import Web
from schemas.services import PUBLIC

log = structlog.get_logger()

BELIEVED_SECONDS = 60.0
ASKED_AGAIN_SECONDS = 5.0


class Reference:
    """Asks the services for their routes, and remembers the answers for a while.

    Args:
        peer: a client for a service, by its name.
    """

    def __init__(self, peer: Callable[[str], Peer]) -> None:
        self._peers = {name: peer(name) for name in PUBLIC}
        self._known: dict[str, Document] = {}
        self._document: Document = {}
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def document(self) -> tuple[Document, list[str]]:
        """The merged document, and the services that could not be asked and are not in it."""
        async with self._asking:
            if time.monotonic() >= self._until:
                await asyncio.gather(*map(self._ask, self._peers))
                self._document = merged(self._known)
                complete = len(self._known) == len(self._peers)
                self._until = time.monotonic() + (BELIEVED_SECONDS if complete else ASKED_AGAIN_SECONDS)
        return self._document, [name for name in self._peers if name not in self._known]

    async def _ask(self, name: str) -> None:
        """What is known already holds while a service is away."""
        try:
            self._known[name] = await self._peers[name].get("/openapi.json", tenant_id="")
        except SartorError as error:
            log.warning("routes_not_read", service=name, code=error.code, error=error.message)


def reference_routes(web: Web, reference: Reference) -> Router:
    """The reference, for everybody: it holds nothing of any tenant."""
    router = Router(prefix="/reference", include_in_schema=False)

    @router.get("")
    async def contents_page(request: Request) -> Response:
        document, missing = await reference.document()
        return web.page("reference/index", await _session(request), parts=operations(document), missing=missing)

    @router.get("/openapi.json")
    async def openapi() -> Response:
        document, _ = await reference.document()
        return JSONResponse(document)

    @router.get("/{part}")
    async def part_page(part: str, request: Request) -> Response:
        document, missing = await reference.document()
        found = operations(document).get(part)
        if found is None:
            away = f" Not shown at the moment: {', '.join(missing)}." if missing else ""
            raise NotFound(f"The reference has no such part. Its contents are at {router.prefix}.{away}")
        return web.page("reference/part", await _session(request), part=part, operations=found)

    async def _session(request: Request) -> Session | None:
        return await web.sessions.find(request.cookies.get(COOKIE))

    return router
