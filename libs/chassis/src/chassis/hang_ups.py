"""Work for a client ends where that client hangs up: nobody would read its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from chassis.errors import Transient

T = TypeVar("T")


class HungUp(Transient):
    """The client hung up; the answer that says so is read by nobody."""

    def __init__(self) -> None:
        super().__init__("The client hung up.")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The outcome of the work, which is cancelled where the client hangs up.

    Args:
        request: whose body was read.
        work: a whole answer, or the first part of a streamed one; Starlette watches over the parts after it.

    Raises:
        HungUp: the client hung up.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body was read: what comes next is the disconnect
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HungUp
        return await working
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)
