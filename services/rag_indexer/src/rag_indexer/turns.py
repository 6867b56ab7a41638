"""One thread shared fairly: whoever waits gets it in turn, for one small piece of work at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from chassis.errors import RateLimited

T = TypeVar("T")
Waiting = tuple["asyncio.Future[Any]", Callable[[], Any]]


class Turns:
    """Runs work in one thread, and counts the requests that wait for it.

    Args:
        most: requests at the same time.
        most_of_a_tenant: of those, of one tenant.
    """

    def __init__(self, most: int, most_of_a_tenant: int) -> None:
        self._most = most
        self._most_of_a_tenant = most_of_a_tenant
        self._requests: dict[str, int] = {}
        self._waiting: dict[str, deque[Waiting]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="turns")
        self._busy = False

    @contextmanager
    def entered(self, tenant_id: str) -> Iterator[None]:
        """Be counted as a request while the context lasts.

        Raises:
            RateLimited: there are too many.
        """
        mine = self._requests.get(tenant_id, 0)
        if mine >= self._most_of_a_tenant or sum(self._requests.values()) >= self._most:
            raise RateLimited("Too many texts wait to be embedded; try again shortly.", retry_after=2)
        self._requests[tenant_id] = mine + 1
        try:
            yield
        finally:
            self._requests[tenant_id] -= 1
            if not self._requests[tenant_id]:
                del self._requests[tenant_id]

    async def take(self, who: str, work: Callable[[], T]) -> T:
        """Run `work` in the thread when it is the turn of `who`; one who stops waiting loses the turn."""
        turn: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append((turn, work))
        self._start()
        return await turn

    def _start(self) -> None:
        """Give the thread to who waits longest; who has more to do then goes to the end of the line."""
        while self._waiting and not self._busy:
            who = next(iter(self._waiting))
            line = self._waiting.pop(who)
            turn, work = line.popleft()
            if line:
                self._waiting[who] = line
            if turn.done():
                continue
            self._busy = True
            running = asyncio.get_running_loop().run_in_executor(self._pool, work)
            running.add_done_callback(lambda done, turn=turn: self._finish(turn, done))  # type: ignore[misc]

    def _finish(self, turn: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
        self._busy = False
        error = done.exception()
        if turn.done():
            pass
        elif error is not None:
            turn.set_exception(error)
        else:
            turn.set_result(done.result())
        self._start()
