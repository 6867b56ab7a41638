"""A lease in its worker's hand: renewed beside the work, and known to be lost as soon as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import structlog

from chassis.settings import ServiceSettings
from eventbus.aggregate import Aggregate
from stores.mongo import PyMongoError
from work.ends import Lost
from work.heartbeat import Heartbeat
from work.queue import WorkQueue

log = structlog.get_logger()

A = TypeVar("A", bound=Aggregate)
T = TypeVar("T")


class Held(Generic[A]):
    """The claim of one piece of work.

    Args:
        queue: where it was claimed.
        one: the work.
        seconds: length of its lease; renewed at a quarter of that.
    """

    def __init__(self, queue: WorkQueue[A], one: A, seconds: float) -> None:
        self._queue = queue
        self._one = one
        self._seconds = seconds
        self._lost = asyncio.Event()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the lease while the block runs."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeping.cancel()

    async def renew(self) -> bool:
        """Renew the lease now; False when another worker has the work or nobody wants it any more."""
        return await self._queue.renew(self._one, self._seconds)

    async def while_ours(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what may be broken off at any point, and break it off when the lease is lost.

        What must not be left half-way is done outside of this; its writes are refused, should the lease be lost.

        Raises:
            Lost: another worker has the work, or nobody wants it any more.
        """
        working, losing = asyncio.ensure_future(work), asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait((working, losing), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Lost("another worker has it, or nobody wants it any more")
            return await working
        finally:
            for task in (working, losing):
                task.cancel()
            await asyncio.gather(working, losing, return_exceptions=True)

    async def progress(self, mark: int) -> None:
        """Note how far the work got; further than ever before, nothing counts against it any more."""
        await self._queue.progress(self._one, mark)

    def heartbeat(self, settings: ServiceSettings, service: str, group: int) -> Heartbeat:
        """A process that renews the lease, however busy this one is, and ends a process group when it is lost.

        Args:
            settings: where MongoDB is.
            service: whose database.
            group: the process group that works.
        """
        return Heartbeat(
            settings,
            service=service,
            collection=self._queue.collection,
            document_id=self._one.id,
            fence=self._one.lease.fence,
            lease_seconds=self._seconds,
            group=group,
        )

    async def _keep(self) -> None:
        """Renew until the lease is lost, or could not be renewed in time."""
        clock = asyncio.get_running_loop().time
        held_until = clock() + self._seconds
        try:
            while clock() < held_until:
                await asyncio.sleep(self._seconds / 4)
                asked = clock()
                try:
                    if not await self.renew():
                        return
                    held_until = asked + self._seconds
                except PyMongoError as error:
                    log.warning("lease_not_renewed", error=type(error).__name__)
        finally:
            self._lost.set()
