"""Requests go by the clock that their service was built with."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.clock import CLOCK, Clock


class ByClock:
    """ASGI middleware: serves each request by a clock.

    Args:
        app: the application below.
        clock: its clock.
    """

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self.app = app
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's life, which goes by the clock anyway."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        before = CLOCK.set(self.clock)
        try:
            await self.app(scope, receive, send)
        finally:
            CLOCK.reset(before)
