"""One thread shared fairly: whoever waits gets it in turn, for one small piece of work at a time."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")
G = TypeVar("G")

Lane: TypeAlias = Literal["people", "background"]
"""`people` is what somebody waits for who reads the answer; indexing, fits and tests are `background`."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """One piece of work that waits.

    Attributes:
        work: makes an outcome of what each piece was given.
        given: to this piece.
        size: its share of a turn; pieces of the same `work` are done together up to 1.
        turn: what its owner waits for.
    """

    work: Callable[[list[Any]], Sequence[Any]]
    given: Any = None
    size: float = math.inf
    turn: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairExecutor:
    """Runs work in one thread: the two lanes take turns, and in each lane those who wait there.

    So whoever is next among people waits for one turn of the background at most, however many wait there. Pieces that
    may be done together are, once it is the turn of one: nobody waits for company that is not there yet.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[str, deque[Waiting]]] = {"people": {}, "background": {}}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fair_executor")
        self._busy = False

    async def run(self, who: str, work: Callable[[], T], lane: Lane = "people") -> T:
        """Run `work` in the thread when it is the turn of `who`; one who stops waiting loses the turn."""
        done: T = await self._wait(who, Waiting(lambda _: [work()]), lane)
        return done

    async def run_together(
        self, who: str, work: Callable[[list[G]], Sequence[T]], given: G, size: float, lane: Lane = "people"
    ) -> T:
        """As `run`, together with others of the lane that wait for the same `work`.

        Args:
            who: as in `run`.
            work: makes one outcome of each thing it is given, in their order.
            given: to it here.
            size: share of a turn that it takes.
            lane: as in `run`.
        """
        done: T = await self._wait(who, Waiting(work, given, size), lane)
        return done

    async def _wait(self, who: str, one: Waiting, lane: Lane) -> Any:
        self._lanes[lane].setdefault(who, deque()).append(one)
        self._start()
        return await one.turn

    def _start(self) -> None:
        """Give the thread to who is next in the lane whose turn is longest ago, unless somebody has it."""
        for lane in [*self._lanes]:
            if self._busy or not (following := _next(self._lanes[lane])):
                continue
            self._lanes[lane] = self._lanes.pop(lane)
            self._busy = True
            work, given = following[0].work, [one.given for one in following]
            running = asyncio.get_running_loop().run_in_executor(self._pool, _outcomes, work, given)
            running.add_done_callback(lambda done, following=following: self._finish(following, done))  # type: ignore[misc]

    def _finish(self, waited: list[Waiting], done: asyncio.Future[list[Any]]) -> None:
        self._busy = False
        try:
            for one, outcome in zip(waited, done.result(), strict=True):
                if one.turn.done():
                    continue
                if isinstance(outcome, BaseException):
                    one.turn.set_exception(outcome)
                else:
                    one.turn.set_result(outcome)
        finally:
            self._start()


def _outcomes(work: Callable[[list[Any]], Sequence[Any]], given: list[Any]) -> list[Any]:
    """What comes of each, or its error: where all fail together, each is done alone."""
    try:
        made = [*work(given)]
        if len(made) != len(given):
            raise RuntimeError(f"{len(made)} outcomes were made of {len(given)} things.")
        return made
    except BaseException as error:  # told to who waits for it
        if len(given) == 1:
            return [RuntimeError(repr(error)) if isinstance(error, StopIteration) else error]
        return [outcome for one in given for outcome in _outcomes(work, [one])]


def _next(waiting: dict[str, deque[Waiting]]) -> list[Waiting]:
    """Take what is next of who waits longest, and what may be done with it, one of each who waits, until it is full.

    Whoever is taken from goes to the end of the line; who is passed over keeps the place.
    """
    taken: list[Waiting] = []
    room, found = 1.0, True
    while found and room > 0:
        found = False
        for who in [*waiting]:
            if room <= 0:
                break
            one = _first(waiting, who)
            if one is not None and (not taken or (one.work == taken[0].work and one.size <= room)):
                taken.append(one)
                room -= one.size
                found = True
                line = waiting.pop(who)
                line.popleft()
                if line:
                    waiting[who] = line
    return taken


def _first(waiting: dict[str, deque[Waiting]], who: str) -> Waiting | None:
    """What is next of somebody and still waited for; None, and no line any more, where nothing is."""
    line = waiting[who]
    while line and line[0].turn.done():
        line.popleft()
    if not line:
        del waiting[who]
        return None
    return line[0]
