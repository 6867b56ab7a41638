"""Answers of another service that are believed for a while, and for longer while it cannot be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from chassis.errors import Transient

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

REFRESH_SECONDS = 2.0
"""How long whoever has an old answer waits for a new one."""

REST_SECONDS = 5.0
"""After a failure, how long old answers are given without asking."""

MOST = 50_000


@dataclass
class _Answer(Generic[V]):
    value: V
    at: float
    ask_at: float
    failed: bool = False


class Believed(Generic[K, V]):
    """Remembers good answers.

    An answer is fresh for `fresh_seconds`. After that it is asked for again, by one caller for all who wait, and while
    that fails with `Transient` the old one holds until `stale_seconds` after it was given. Any other error ends it.
    Once the source has failed nobody waits for it who has an answer: it is asked now and then beside them.

    Args:
        fresh_seconds: believed without asking.
        stale_seconds: believed while the source is away.
        clock: monotonic seconds.
    """

    def __init__(self, fresh_seconds: float, stale_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._fresh = fresh_seconds
        self._stale = stale_seconds
        self._clock = clock
        self._answers: dict[K, _Answer[V]] = {}
        self._asking: dict[K, asyncio.Task[V]] = {}
        self._changes: dict[K, list[Callable[[K, V], bool]]] = {}

    async def get(self, key: K, ask: Callable[[float | None], Awaitable[V]]) -> V:
        """The answer for `key`.

        Args:
            key: what is asked about.
            ask: asks the source; it is given the seconds it may take, None for as long as such a call may.

        Raises:
            Transient: the source cannot be asked, and there is no answer that may still be believed.
        """
        known = self._answers.get(key)
        if known is not None and self._clock() < known.ask_at:
            return known.value
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._ask(key, ask, known))
            self._changes[key] = []
            asking.add_done_callback(lambda done: self._asked(key, done))
        if known is not None and known.failed and self._usable(known):
            return known.value
        return await asyncio.shield(asking)

    def _usable(self, known: _Answer[V]) -> bool:
        return self._clock() < known.at + self._stale

    def _asked(self, key: K, done: asyncio.Task[V]) -> None:
        del self._asking[key], self._changes[key]
        if not done.cancelled():
            done.exception()  # whoever waited was told; there may be nobody left

    async def _ask(self, key: K, ask: Callable[[float | None], Awaitable[V]], known: _Answer[V] | None) -> V:
        usable = known is not None and self._usable(known)
        try:
            value = await ask(REFRESH_SECONDS if usable else None)
        except Transient as error:
            if known is None or not usable or self._answers.get(key) is not known:
                raise
            log.warning("old_answer_believed", error=error.message)
            known.ask_at = min(self._clock() + REST_SECONDS, known.at + self._stale)
            known.failed = True
            return known.value
        except Exception:  # whatever the source says, it is no answer to be believed; whoever asked hears it
            self._answers.pop(key, None)
            raise
        at = self._clock()
        self._answers.pop(key, None)
        values = (value, known.value) if known else (value,)
        # What changed while it was asked: the answer may be of before.
        overtaken = any(changed(key, one) for changed in self._changes[key] for one in values)
        self._answers[key] = _Answer(value, at, at if overtaken else at + self._fresh)
        if len(self._answers) > MOST:
            self._answers.pop(next(iter(self._answers)))
        return value

    def doubt(self, matches: Callable[[K, V], bool]) -> None:
        """Ask again about these, which may have changed. What is known holds while nobody can be asked."""
        self._note(matches)
        for key, answer in self._answers.items():
            if matches(key, answer.value):
                answer.ask_at = 0.0

    def forget(self, key: K) -> None:
        """Believe an answer no more."""
        self._note(lambda asked, _: asked == key)
        self._answers.pop(key, None)

    def shorten(self, key: K, seconds: float) -> None:
        """Believe an answer without asking for so long only, from when it was given."""
        answer = self._answers.get(key)
        if answer and not answer.failed:
            answer.ask_at = min(answer.ask_at, answer.at + seconds)

    def revise(self, change: Callable[[K, V], V | None]) -> None:
        """Believe of each answer what is left of it.

        Args:
            change: gives the answer that holds from now on; None where none does.
        """
        self._note(lambda key, value: change(key, value) != value)
        for key, answer in list(self._answers.items()):
            left = change(key, answer.value)
            if left is None:
                del self._answers[key]
            else:
                answer.value = left

    def _note(self, matches: Callable[[K, V], bool]) -> None:
        for changes in self._changes.values():
            changes.append(matches)
