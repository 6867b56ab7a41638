"""One thread shared fairly: whoever waits gets it in turn, for one small piece of work at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeAlias, TypeVar

T = TypeVar("T")

Begin = Callable[[], bool]
"""Gives somebody the thread; False where they wait no more."""

Lane: TypeAlias = Literal["people", "background"]
"""`people` is what somebody waits for who reads the answer; indexing, fits and tests are `background`."""


class FairExecutor:
    """Runs work in one thread: the two lanes take turns, and in each lane those who wait there.

    So whoever is next among people waits for one piece of the background at most, however many wait there.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[str, deque[Begin]]] = {"people": {}, "background": {}}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fair_executor")
        self._busy = False

    async def run(self, who: str, work: Callable[[], T], lane: Lane = "people") -> T:
        """Run `work` in the thread when it is the turn of `who`; one who stops waiting loses the turn."""
        turn: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def begin() -> bool:
            if turn.done():
                return False
            running = asyncio.get_running_loop().run_in_executor(self._pool, work)
            running.add_done_callback(lambda done: self._finish(turn, done))
            return True

        self._lanes[lane].setdefault(who, deque()).append(begin)
        self._start()
        return await turn

    def _start(self) -> None:
        """Give the thread to who is next in the lane whose turn is longest ago, unless somebody has it."""
        for lane in [*self._lanes]:
            if not self._busy and _begin_next(self._lanes[lane]):
                self._lanes[lane] = self._lanes.pop(lane)
                self._busy = True

    def _finish(self, turn: asyncio.Future[T], done: asyncio.Future[T]) -> None:
        self._busy = False
        error = done.exception()
        if turn.done():
            pass
        elif error is not None:
            turn.set_exception(error)
        else:
            turn.set_result(done.result())
        self._start()


def _begin_next(waiting: dict[str, deque[Begin]]) -> bool:
    """Begin what is next of who waits longest; who has more to do then goes to the end of the line."""
    while waiting:
        who = next(iter(waiting))
        line = waiting.pop(who)
        begin = line.popleft()
        if line:
            waiting[who] = line
        if begin():
            return True
    return False
