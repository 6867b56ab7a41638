"""Parked keys are tried again as their time comes, several at a time, without slowing what does not fail."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog

from chassis.crash import crash_point
from eventbus.lanes import Lanes
from eventbus.letter import Letter, Outcome
from eventbus.parking import Held, Parking, Record
from stores.mongo import PyMongoError

log = structlog.get_logger()

IDLE_SECONDS = 2.0
PARALLEL_RETRIES = 16
"""Parked keys tried at the same time, so that slow ones do not hold up the others."""

YIELD_SECONDS = 0.25
"""Between parked keys while new messages come faster than they are handled: what fails takes little from them."""


class Retries:
    """One replica's attempts at the parked keys of its consumer group.

    Args:
        parking: where they lie.
        lanes: of the messages that are new.
        attempt: one attempt at the oldest message of a key.
        dead_letter: writes one; raises where it cannot.
        pause: seconds before the next attempt, by the number of those that failed.
    """

    def __init__(
        self,
        parking: Parking,
        lanes: Lanes,
        attempt: Callable[[Held], Awaitable[Outcome | Letter]],
        dead_letter: Callable[[Record, Letter], Awaitable[None]],
        pause: Callable[[int], float],
    ) -> None:
        self._parking = parking
        self._lanes = lanes
        self._attempt = attempt
        self._dead_letter = dead_letter
        self._pause = pause
        self._room = asyncio.Semaphore(PARALLEL_RETRIES)
        self._tries: set[asyncio.Task[None]] = set()

    async def run(self, attempt_seconds: float, stop_seconds: float) -> None:
        """Claim and try, until cancelled; what has begun then may end.

        Args:
            attempt_seconds: what an attempt may take, with a dead letter at its end.
            stop_seconds: what is left then to those under way.
        """
        try:
            while True:
                await self._room.acquire()
                held = await self._claim()
                if held is None:
                    self._room.release()
                    await asyncio.sleep(IDLE_SECONDS)
                    continue
                started = asyncio.create_task(self._try(held, attempt_seconds))
                self._tries.add(started)
                started.add_done_callback(self._tries.discard)
                if self._lanes.are_pressed():
                    await asyncio.sleep(YIELD_SECONDS)
        finally:
            if self._tries:
                _, late = await asyncio.wait(self._tries, timeout=stop_seconds)
                for task in late:
                    task.cancel()

    async def _claim(self) -> Held | None:
        try:
            return await self._parking.claim()
        except PyMongoError as error:
            log.warning("parked_key_not_claimed", error=f"{type(error).__name__}: {error}")
            return None

    async def _try(self, held: Held, attempt_seconds: float) -> None:
        try:
            await self._try_in_order(held, attempt_seconds)
        except Exception as error:  # the key stays parked, and comes again when its lease is over
            log.error("retry_failed", key=held.id, error=f"{type(error).__name__}: {error}")
        finally:
            self._room.release()

    async def _try_in_order(self, held: Held, attempt_seconds: float) -> None:
        """Try the messages of a key, until one fails."""
        following: Held | None = held
        while following is not None:
            held = following
            crash_point("parked.claimed")
            outcome = await self._attempt(held)
            if outcome is Outcome.FAILED:
                await self._parking.failed(held, self._pause(held.attempts + 1))
                return
            if isinstance(outcome, Letter):
                await self._dead_letter(held.record, outcome)
            crash_point("parked.handled")
            following = await self._parking.done(held, math.inf if self._lanes.closed else attempt_seconds)
