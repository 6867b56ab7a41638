"""One thread shared fairly: whoever waits gets it in turn, for one small piece of work at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")
Waiting = tuple["asyncio.Future[Any]", Callable[[], Any]]

Lane: TypeAlias = Literal["people", "background"]
"""`people` is what somebody waits for who reads the answer; indexing, fits and tests are `background`."""


class FairExecutor:
    """Runs work in one thread: the two lanes take turns, and in each lane those who wait there.

    So whoever is next among people waits for one piece of the background at most, however many wait there.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[str, deque[Waiting]]] = {"people": {}, "background": {}}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fair_executor")
        self._busy = False

    async def run(self, who: str, work: Callable[[], T], lane: Lane = "people") -> T:
        """Run `work` in the thread when it is the turn of `who`; one who stops waiting loses the turn."""
        turn: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._lanes[lane].setdefault(who, deque()).append((turn, work))
        self._start()
        return await turn

    def _start(self) -> None:
        """Give the thread to who is next in the lane whose turn is longest ago, unless somebody has it."""
        for lane in [*self._lanes]:
            if self._busy or (following := _next(self._lanes[lane])) is None:
                continue
            self._lanes[lane] = self._lanes.pop(lane)
            turn, work = following
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


def _next(waiting: dict[str, deque[Waiting]]) -> Waiting | None:
    """Take what is next of who waits longest; who has more to do then goes to the end of the line."""
    while waiting:
        who = next(iter(waiting))
        line = waiting.pop(who)
        following = line.popleft()
        if line:
            waiting[who] = line
        if not following[0].done():
            return following
    return None
