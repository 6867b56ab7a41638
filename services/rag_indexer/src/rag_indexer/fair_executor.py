"""One thread shared fairly: whoever waits gets it in turn, for one small piece of work at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
Waiting = tuple["asyncio.Future[Any]", Callable[[], Any]]


class FairExecutor:
    """Runs work in one thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Waiting]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fair_executor")
        self._busy = False

    async def run(self, who: str, work: Callable[[], T]) -> T:
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
