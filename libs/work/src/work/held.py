"""A lease in its worker's hand: renewed beside the work, and known to be lost as soon as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import structlog

from chassis.settings import ServiceSettings
from eventbus import Aggregate
from stores.heartbeat import Heartbeat
from stores.leases import keep_renewed
from stores.mongo import PyMongoError
from work.ends import Lost
from work.policy import Policy
from work.queue import WorkQueue

log = structlog.get_logger()

A = TypeVar("A", bound=Aggregate)
T = TypeVar("T")


class Held(Generic[A]):
    """The claim of one piece of work.

    Args:
        queue: where it was claimed.
        one: the work.
        policy: length of its lease, which is renewed at a quarter of that, and of its slice.
    """

    def __init__(self, queue: WorkQueue[A], one: A, policy: Policy) -> None:
        self._queue = queue
        self._one = one
        self._seconds = policy.lease_seconds
        self._slice_seconds = policy.slice_seconds
        self._slice_ends = asyncio.get_running_loop().time() + policy.slice_seconds
        self._lost = asyncio.Event()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the lease while the block runs."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def renew(self) -> bool:
        """Renew the lease now; False when another worker has the work or nobody wants it any more."""
        return await self._queue.renew(self._one, self._seconds)

    async def while_ours(self, work: Awaitable[T]) -> T:
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

    async def others_wait(self) -> bool:
        """Whether the work has had its slice and another tenant's turn comes next: it may give its place.

        Where others wait and have had a turn since, its own tenant's next turn begins here, and with it a slice.
        """
        clock = asyncio.get_running_loop().time
        if clock() < self._slice_ends:
            return False
        tenant_id = await self._queue.next_turn(self._one)
        if tenant_id == self._one.tenant_id:
            await self._queue.take_turn(tenant_id)
            self._slice_ends = clock() + self._slice_seconds
        return tenant_id not in (None, self._one.tenant_id)

    def heartbeat(self, settings: ServiceSettings, service: str, group: int) -> Heartbeat:
        """A process that renews the lease too, however busy this one is, and ends a process group when it is lost.

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
        try:
            await keep_renewed(self.renew, self._seconds, _not_renewed)
        finally:
            self._lost.set()


def _not_renewed(error: PyMongoError) -> None:
    log.warning("lease_not_renewed", error=type(error).__name__)
