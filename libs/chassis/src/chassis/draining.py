"""An answer waits for the end of its request: one given earlier gets lost on the way, in proxies and in clients."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 64 * 1024 * 1024
MOST_SECONDS = 30.0


class DrainBody:
    """ASGI middleware: reads what is left of a request's body, and drops it, before the answer begins.

    A proxy that gets an answer while it still sends the body may cut both off ("aborting with incomplete response"),
    and a client that is sent a reset does not read what came before it. A body that is declared larger than
    `most_bytes`, or turns out so, or takes longer than `seconds`, is answered at once.

    Args:
        app: the application below.
        most_bytes: that are read and dropped.
        seconds: that this may take.
    """

    def __init__(self, app: ASGIApp, most_bytes: int = MOST_BYTES, seconds: float = MOST_SECONDS) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        ended = declared == b"0" and b"transfer-encoding" not in headers
        is_small = declared.isdigit() and int(declared) <= self.most_bytes

        async def receive_to_the_end() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def drain() -> None:
            left = self.most_bytes
            while not ended and left >= 0:
                left -= len((await receive_to_the_end()).get("body", b""))

        async def send_after_the_end(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended and is_small:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(drain(), self.seconds)
            await send(message)

        await self.app(scope, receive_to_the_end, send_after_the_end)
