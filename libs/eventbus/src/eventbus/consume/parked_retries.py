"""Parked keys are tried again as their time comes, several at a time, without slowing what does not fail."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog

from chassis.crash import crash_point
from eventbus.consume.keyed_dispatch import KeyedDispatch
from eventbus.consume.parking import ParkedClaim, Parking
from eventbus.messages.message import Message
from eventbus.messages.outcome import GiveUp, Outcome
from stores.mongo import PyMongoError

log = structlog.get_logger()

IDLE_SECONDS = 2.0
PARALLEL_RETRIES = 16
"""Parked keys tried at the same time, so that slow ones do not hold up the others."""

YIELD_SECONDS = 0.25
"""Between parked keys while new messages come faster than they are handled: what fails takes little from them."""


class ParkedRetries:
    """One replica's attempts at the parked keys of its consumer group.

    Args:
        parking: where they lie.
        dispatch: of the messages that are new.
        attempt: one attempt at the oldest message of a key.
        dead_letter: writes one; raises where it cannot.
        pause: seconds before the next attempt, by the number of those that failed.
    """

    def __init__(
        self,
        parking: Parking,
        dispatch: KeyedDispatch,
        attempt: Callable[[ParkedClaim], Awaitable[Outcome | GiveUp]],
        dead_letter: Callable[[Message, GiveUp], Awaitable[None]],
        pause: Callable[[int], float],
    ) -> None:
        self._parking = parking
        self._dispatch = dispatch
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
                claim = await self._claim()
                if claim is None:
                    self._room.release()
                    await asyncio.sleep(IDLE_SECONDS)
                    continue
                started = asyncio.create_task(self._try(claim, attempt_seconds))
                self._tries.add(started)
                started.add_done_callback(self._tries.discard)
                if self._dispatch.are_pressed():
                    await asyncio.sleep(YIELD_SECONDS)
        finally:
            if self._tries:
                _, late = await asyncio.wait(self._tries, timeout=stop_seconds)
                for task in late:
                    task.cancel()

    async def _claim(self) -> ParkedClaim | None:
        try:
            return await self._parking.claim()
        except PyMongoError as error:
            log.warning("parked_key_not_claimed", error=f"{type(error).__name__}: {error}")
            return None

    async def _try(self, claim: ParkedClaim, attempt_seconds: float) -> None:
        try:
            await self._try_in_order(claim, attempt_seconds)
        except Exception as error:  # the key stays parked, and comes again when its lease is over
            log.error("retry_failed", key=claim.id, error=f"{type(error).__name__}: {error}")
        finally:
            self._room.release()

    async def _try_in_order(self, claim: ParkedClaim, attempt_seconds: float) -> None:
        """Try the messages of a key, until one fails."""
        following: ParkedClaim | None = claim
        while following is not None:
            claim = following
            crash_point("parked.claimed")
            outcome = await self._attempt(claim)
            if outcome is Outcome.FAILED:
                await self._parking.failed(claim, self._pause(claim.attempts + 1))
                return
            if isinstance(outcome, GiveUp):
                await self._dead_letter(claim.message, outcome)
            crash_point("parked.handled")
            following = await self._parking.done(claim, math.inf if self._dispatch.closed else attempt_seconds)
