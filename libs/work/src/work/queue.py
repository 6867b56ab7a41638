"""The work in one collection of aggregates: claimed in fair turns, and given back with what its lease counts."""

from __future__ import annotations

import asyncio
from collections.abc import Collection as Some
from collections.abc import Sequence
from typing import Generic, TypeVar

import structlog

from chassis.ids import SERVER_MS
from eventbus import Aggregate, AggregateStore
from stores.mongo import ASCENDING, Collection, PyMongoError, Query, ensure_index

log = structlog.get_logger()

A = TypeVar("A", bound=Aggregate)

NOW_AS_TURN: list[Query] = [{"$set": {"at": {"$divide": [SERVER_MS, 1000]}}}]
"""In Unix seconds, as the release before reads and writes it."""


def tenants_with_work(state: str, only: Query | None = None) -> list[Query]:
    """The pipeline for those who have a free one in a state.

    Sorted by an index, and asked for the first of each, MongoDB reads one of its entries for each tenant, however much
    waits: https://www.mongodb.com/docs/manual/reference/operator/aggregation/group/#optimizations
    """
    return [
        {"$match": {"state": state, **(only or {})}},
        {"$sort": {"state": 1, "tenant_id": 1, "lease.until_ms": 1}},
        {"$group": {"_id": "$tenant_id", "free": {"$first": "$lease.until_ms"}}},
        {"$match": {"$expr": {"$lt": ["$free", SERVER_MS]}}},
    ]


class WorkQueue(Generic[A]):
    """Work is what is in one of some states and whose lease is free.

    Args:
        store: where it lies.
        states: those in which an aggregate is work.
        turns: by tenant, when it was last given a worker, or kept one for a further slice.
        first: which work goes before everybody's turn.
        only: further conditions of all its work, where others do the rest; an index begins with what they name.
    """

    def __init__(
        self,
        store: AggregateStore[A],
        states: Sequence[str],
        turns: Collection,
        *,
        first: Query | None = None,
        only: Query | None = None,
    ) -> None:
        self._store = store
        self._states = list(states)
        self._turns = turns
        self._first = first
        self._only = only or {}

    @property
    def query(self) -> Query:
        """Which aggregates are work."""
        return {"state": self._states[0] if len(self._states) == 1 else {"$in": self._states}, **self._only}

    async def prepare(self) -> None:
        """Create the index by which a tenant's oldest work is found; that by which is free, the store has."""
        keys = [(name, ASCENDING) for name in ("state", "tenant_id", "created_at")]
        await ensure_index(self._store.collection, keys)

    async def claim(
        self, owner: str, seconds: float, *, where: Query | None = None, but_of: Sequence[str] = ()
    ) -> A | None:
        """Claim the oldest work of the tenant that waited longest for a turn: nobody's many hold up one's few.

        Whoever stops while it claims gives back what it claimed, as nobody else knows of it.

        Args:
            owner: the worker's name, for people.
            seconds: length of the lease.
            where: further conditions of the work.
            but_of: tenants that have enough under way.
        """
        claiming = asyncio.ensure_future(self._claim(owner, seconds, where or {}, but_of))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await asyncio.shield(self._unclaim(claiming))
            raise

    async def _claim(self, owner: str, seconds: float, where: Query, but_of: Sequence[str]) -> A | None:
        if self._first is not None:
            interrupted = await self._store.claim(self._first, owner, seconds)
            if interrupted is not None:
                await self.take_turn(interrupted.tenant_id)
                return interrupted
        for tenant_id in await self._in_turn([one for one in await self._tenants() if one not in but_of]):
            one = await self._store.claim({**self.query, **where, "tenant_id": tenant_id}, owner, seconds)
            if one is not None:
                await self.take_turn(tenant_id)
                return one
        return None

    async def _unclaim(self, claiming: asyncio.Future[A | None]) -> None:
        try:
            one = await claiming
            if one is not None:
                await self.release(one)
        except Exception as error:  # nothing may take the place of the cancellation; the lease runs out by itself
            log.warning("claim_not_released", error=f"{type(error).__name__}: {error}")

    async def _in_turn(self, tenants: Some[str]) -> list[str]:
        """Tenants, that one first whose last turn is longest ago."""
        if not tenants:
            return []
        had = {turn["_id"]: turn["at"] async for turn in self._turns.find({"_id": {"$in": list(tenants)}})}
        return sorted(tenants, key=lambda tenant: (had.get(tenant, 0), str(tenant)))

    async def take_turn(self, tenant_id: str) -> None:
        """Note that a tenant has a turn now, by the database's clock as workers' differ.

        Where that cannot be, its next one comes too early.
        """
        try:
            await self._turns.update_one({"_id": tenant_id}, NOW_AS_TURN, upsert=True)
        except PyMongoError as error:  # the work is claimed, and done
            log.warning("turn_not_noted", tenant_id=tenant_id, error=f"{type(error).__name__}: {error}")

    async def next_turn(self, one: A) -> str | None:
        """The tenant whose turn would be next if `one` were given back, or None where no other tenant waits."""
        waiting = {*await self._tenants()} - {one.tenant_id}
        return (await self._in_turn({*waiting, one.tenant_id}))[0] if waiting else None

    async def _tenants(self) -> list[str]:
        """Who has work that is free: nobody is asked in vain whose work is only under way or put off."""
        found: dict[str, None] = {}
        for state in self._states:
            pipeline = tenants_with_work(state, self._only)
            found |= {one["_id"]: None async for one in self._store.collection.aggregate(pipeline)}
        return list(found)

    async def renew(self, one: A, seconds: float) -> bool:
        """Extend a lease; False when another worker has the work or nobody wants it any more."""
        return await self._store.leases.renew(one.id, one.lease.fence, seconds, self.query)

    async def release(self, one: A) -> None:
        """Give the work back: somebody may go on at once."""
        await self._store.leases.release(one.id, one.lease.fence)

    async def put_off(self, one: A, seconds: float) -> None:
        """Give the work back: somebody may go on in some seconds."""
        await self._store.leases.delay(one.id, one.lease.fence, seconds)

    async def finish(self, one: A) -> None:
        """Give the work back for good: nothing counts against it any more."""
        await self._store.leases.finish(one.id, one.lease.fence)

    async def count_failure(self, one: A) -> int | None:
        """Count a failed attempt, and return how many there were since the work got further, or None if not ours."""
        return await self._store.leases.count_failure(one.id, one.lease.fence)

    async def progress(self, one: A, mark: int) -> None:
        """Note how far the work got: further than ever before, and nothing counts against it any more."""
        await self._store.leases.progress(one.id, one.lease.fence, mark)

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self._store.collection.name
