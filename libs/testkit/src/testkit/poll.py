"""Waiting for something to become true, with a deadline instead of a sleep."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

SLOWER, SLOWEST = 1.2, 0.15
"""By which each pause is longer than the one before, and up to how many seconds: who looks keeps others from work."""


async def eventually(probe: Callable[[], Any], *, within: float = 60.0, every: float = 0.05) -> Any:
    """Call `probe` (plain or async) until it returns something truthy, and return that.

    An `AssertionError` inside the probe counts as "not yet"; at the deadline it is raised.

    Raises:
        AssertionError: the deadline of `within` seconds passed.
    """
    deadline = time.monotonic() + within
    last: AssertionError | None = None
    while True:
        try:
            result = probe()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return result
            last = None
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise last or AssertionError(f"not true within {within} s: {inspect.getsource(probe).strip()}")
        await asyncio.sleep(every)
        every = max(every, min(every * SLOWER, SLOWEST))
