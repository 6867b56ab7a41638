"""Streams that are answered once their first piece is there, so that a refusal until then has a status of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing


async def begun(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A stream of which the first piece was taken: that piece and the others, which are closed with it."""
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece
