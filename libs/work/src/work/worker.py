"""The worker of all kinds of leased work, which claims, renews, counts attempts and gives the lease back."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar, Generic, TypeVar

import structlog
from prometheus_client import Counter, Histogram

from chassis.errors import NotFound, WriteRefused
from chassis.exhaustion import EXHAUSTED_SECONDS, Exhausted
from eventbus import Aggregate
from stores.mongo import PyMongoError
from work.ends import Done, End, Failed, GiveUp, Lost, OutOfAttempts, PutOff, end_of, message_of
from work.held import Held
from work.policy import Policy
from work.queue import WorkQueue

log = structlog.get_logger()

ATTEMPTS = Counter("work_attempts_total", "Attempts at leased work, by how they ended.", ["work", "end"])
SECONDS = Histogram(
    "work_seconds", "Time of one attempt at leased work.", ["work"], buckets=[5 * 2**n / 10 for n in range(14)]
)

A = TypeVar("A", bound=Aggregate)


class Kind(ABC, Generic[A]):
    """One kind of work: what a service does in an attempt, and what follows from its end.

    Attributes:
        name: of one piece of it, in logs and metrics.
    """

    name: ClassVar[str]

    async def prepare(self) -> None:
        """Whatever has to be done once before the first claim."""

    @abstractmethod
    async def attempt(self, one: A, held: Held[A]) -> None:
        """Do the work, from wherever an earlier attempt left it.

        Args:
            one: the work as claimed.
            held: its lease.

        Raises:
            End: as it says; `end_of` says what other errors mean.
        """

    async def ended(self, one: A, end: End) -> None:
        """Tell and write what follows from the end; the lease is held still. Doing it again changes nothing.

        What ends the work is written last: whatever fails before that is come to again.
        """


class LeasedWorker(Generic[A]):
    """Does one piece of work at a time.

    Args:
        queue: where it is claimed.
        kind: does it.
        policy: how long it is held, and how often tried.
        owner: this worker's name in leases.
    """

    def __init__(self, queue: WorkQueue[A], kind: Kind[A], policy: Policy, owner: str) -> None:
        self._queue = queue
        self._kind = kind
        self._policy = policy
        self._owner = owner
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Look for work now."""
        self._awake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        await self._kind.prepare()
        while True:
            one = await self._queue.claim(self._owner, self._policy.lease_seconds)
            if one is None:
                await self._rest()
                continue
            end = await self.work(one)
            if isinstance(end, PutOff) and isinstance(end.cause, Exhausted):
                await asyncio.sleep(EXHAUSTED_SECONDS)  # other workers may have room

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._policy.idle_seconds):
                await self._awake.wait()
        self._awake.clear()

    async def work(self, one: A) -> End:
        """One attempt at claimed work; whatever happens, it is left in a state from which somebody goes on."""
        name = self._kind.name
        held = Held(self._queue, one, self._policy)
        with structlog.contextvars.bound_contextvars(**{"tenant_id": one.tenant_id, f"{name}_id": one.id}):
            try:
                with SECONDS.labels(name).time():
                    async with held.kept():
                        end = await self._end(one, await self._attempt(one, held))
            except asyncio.CancelledError:  # this replica stops: another may go on at once
                ATTEMPTS.labels(name, "stopped").inc()
                await asyncio.shield(self._give_back(one, Lost("stopped")))
                raise
            ATTEMPTS.labels(name, end.name).inc()
            return end

    async def _attempt(self, one: A, held: Held[A]) -> End:
        lease = one.lease
        if lease.failures >= self._policy.most_failures:  # the word of that could not be written
            return OutOfAttempts(failures=lease.failures, deaths=0)
        if lease.deaths >= self._policy.most_deaths:
            return OutOfAttempts(failures=0, deaths=lease.deaths)
        try:
            await self._kind.attempt(one, held)
        except Exception as error:  # the boundary of an attempt: whatever ended it, the work is left to somebody
            return end_of(error, self._policy.retry_seconds)
        return Done()

    async def _end(self, one: A, end: End) -> End:
        """Count the attempt, have the service say what follows, and give the lease back."""
        try:
            if isinstance(end, Failed):
                end = await self._count(one, end)
            _log(end)
            await self._kind.ended(one, end)
        except Exception as error:  # the boundary of an end: it is come to again, after a pause
            if isinstance(error, (WriteRefused, NotFound)):
                end = Lost(message_of(error))
            else:
                log.warning("end_not_recorded", end=end.name, exc_info=error)
                end = PutOff(self._policy.retry_seconds, "its end could not be recorded")
        await self._give_back(one, end)
        return end

    async def _count(self, one: A, end: Failed) -> End:
        failures = await self._queue.count_failure(one)
        if failures is None:
            return Lost(str(end))
        if failures >= self._policy.most_failures:
            return OutOfAttempts(failures=failures, deaths=0, error=end.error)
        end.seconds = self._policy.pause(failures)
        return end

    async def _give_back(self, one: A, end: End) -> None:
        """Give the lease back; where the database cannot be told, it runs out by itself."""
        try:
            if isinstance(end, (Done, GiveUp)):
                await self._queue.finish(one)
            elif end.seconds > 0:
                await self._queue.put_off(one, end.seconds)
            else:
                await self._queue.release(one)
        except PyMongoError as error:
            log.warning("lease_not_released", error=f"{type(error).__name__}: {error}")


def _log(end: End) -> None:
    if isinstance(end, (Failed, GiveUp)):
        log.warning(f"attempt_{end.name}", reason=str(end), exc_info=end.error)
    else:
        log.info(f"attempt_{end.name}", reason=str(end))
