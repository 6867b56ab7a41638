"""Attempts at messages: each is handled, fails, or is given up."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import Gauge

from chassis.errors import PERMANENT, SartorError, Transient
from eventbus.consume.handlers import Handlers, event_of, handling
from eventbus.consume.parking import ParkedClaim
from eventbus.consume.retry_policy import RetryPolicy
from eventbus.messages.outcome import CONSUMED, GiveUp, Outcome
from schemas import Event, MalformedEvent
from stores.mongo import PyMongoError

log = structlog.get_logger()

DEAD_IN_A_ROW = Gauge("dead_letters_in_a_row", "Events dead-lettered since one was last handled.")

DEAD_LETTERS_IN_A_ROW = 20
"""Poison is rare: so many in a row mean that the consumer itself is wrong."""

LOST_RACES = ("stale_write", "stale_fence")
"""Conflicts that the next attempt, on the newer document, need not have."""


class Attempts:
    """Hands events to their handlers, and decides what an error means for the message.

    Args:
        handlers: of the service.
        policy: how long and how often a message is tried.
    """

    def __init__(self, handlers: Handlers, policy: RetryPolicy) -> None:
        self.policy = policy
        self._handlers = handlers
        self._given_up_in_a_row = 0

    def check(self) -> None:
        """Raise when every message of late was given up.

        Raises:
            Transient: it says how many.
        """
        if self._given_up_in_a_row >= DEAD_LETTERS_IN_A_ROW:
            raise Transient(f"The last {self._given_up_in_a_row} events were given up; see `sartor dlq list`.")

    async def attempt(self, event: Event, attempts: int) -> Outcome | GiveUp:
        """One attempt, which handles the event, fails, or gives it up.

        Args:
            event: what the message says.
            attempts: how often it has failed before.
        """
        try:
            async with asyncio.timeout(self.policy.handler_seconds):
                await self._handlers[type(event)](event)
        except Exception as error:  # the boundary of a consumer: every failure is retried or dead-lettered
            failed = attempts + 1
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, PERMANENT) and error.code not in LOST_RACES:
                return self.give_up(error.code or "permanent", error.message, failed)
            away = isinstance(error, PyMongoError) or (isinstance(error, SartorError) and error.transient)
            last = failed >= (self.policy.attempts_while_away if away else self.policy.attempts)
            log.warning("event_failed", type=event.type, attempt=failed, error=reason, exc_info=last)
            return self.give_up("exhausted", reason, failed) if last else Outcome.FAILED
        self._given_up_in_a_row = 0
        DEAD_IN_A_ROW.set(0)
        CONSUMED.labels(event.type, "handled").inc()
        return Outcome.HANDLED

    async def attempt_parked(self, claim: ParkedClaim) -> Outcome | GiveUp:
        """One attempt at the oldest message of a parked key."""
        try:
            event, envelope = event_of(claim.message, self._handlers)
        except MalformedEvent as error:  # this release reads it differently from the one that parked it
            return self.give_up("malformed", str(error), claim.attempts)
        if event is None or envelope is None:
            return Outcome.HANDLED
        with handling(envelope):
            return await self.attempt(event, claim.attempts)

    def give_up(self, code: str, reason: str, attempts: int) -> GiveUp:
        """Count a message that is given up; see `GiveUp`."""
        self._given_up_in_a_row += 1
        DEAD_IN_A_ROW.set(self._given_up_in_a_row)
        return GiveUp(code, reason, attempts)
