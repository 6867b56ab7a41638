"""One replica at a time: the lease under which a replica may stop serving in order to start again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog

from chassis.ids import now
from stores.leases import Lease, Leases, keep_renewed
from stores.mongo import Collection, DuplicateKeyError, PyMongoError

log = structlog.get_logger()

LEASE_SECONDS = 60.0


class RestartLease:
    """Lets one replica of a base model at a time start again, so that the others serve meanwhile.

    Args:
        collection: one document for each base model.
        base_id: the base model that the replicas serve.
        owner: this replica's name.
    """

    def __init__(self, collection: Collection, base_id: str, owner: str) -> None:
        self._collection = collection
        self._leases = Leases(collection)
        self._base_id = base_id
        self._owner = owner

    @asynccontextmanager
    async def held(self) -> AsyncIterator[bool]:
        """Yields whether this replica holds the lease, which ends with the block, or soon after the replica's death.

        Nobody holds it while the database is away: adapters then wait, and all replicas serve those they hold.
        """
        fence = await self._claim()
        if fence is None:
            yield False
            return
        renewal = asyncio.create_task(self._renew(fence))
        try:
            yield True
        finally:
            renewal.cancel()
            with contextlib.suppress(PyMongoError):  # it ends by itself
                await self._leases.release(self._base_id, fence)

    async def _claim(self) -> int | None:
        lease = {"created_at": now(), "version": 1, "lease": Lease().model_dump()}
        try:
            with contextlib.suppress(DuplicateKeyError):  # another replica made it at the same moment
                await self._collection.update_one({"_id": self._base_id}, {"$setOnInsert": lease}, upsert=True)
            claimed = await self._leases.claim({"_id": self._base_id}, self._owner, LEASE_SECONDS)
        except PyMongoError as error:
            log.warning("restart_lease_not_asked", error=f"{type(error).__name__}: {error}")
            return None
        return None if claimed is None else int(claimed["lease"]["fence"])

    async def _renew(self, fence: int) -> None:
        renew = partial(self._leases.renew, self._base_id, fence, LEASE_SECONDS)
        await keep_renewed(renew, LEASE_SECONDS, _not_renewed)
        log.warning("restart_lease_lost", owner=self._owner)


def _not_renewed(error: PyMongoError) -> None:
    log.warning("restart_lease_not_renewed", error=f"{type(error).__name__}: {error}")
