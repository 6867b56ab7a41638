"""The work in one collection of aggregates: claimed in fair turns, and given back with what its lease counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from chassis.clock import wall
from chassis.ids import SERVER_MS
from eventbus.aggregate import Aggregate
from eventbus.outbox import AggregateStore
from stores.mongo import ASCENDING, Collection, Query, ensure_index

A = TypeVar("A", bound=Aggregate)


def tenants_with_work(state: str) -> list[Query]:
    """The pipeline for those who have a free one in a state.

    Sorted by an index, and asked for the first of each, MongoDB reads one of its entries for each tenant, however much
    waits: https://www.mongodb.com/docs/manual/reference/operator/aggregation/group/#optimizations
    """
    return [
        {"$match": {"state": state}},
        {"$sort": {"state": 1, "tenant_id": 1, "lease.until_ms": 1}},
        {"$group": {"_id": "$tenant_id", "free": {"$first": "$lease.until_ms"}}},
        {"$match": {"$expr": {"$lt": ["$free", SERVER_MS]}}},
    ]


class WorkQueue(Generic[A]):
    """Work is what is in one of some states and whose lease is free.

    Args:
        store: where it lies.
        states: those in which an aggregate is work.
        turns: by tenant, when it last had a turn.
        first: which work goes before everybody's turn.
    """

    def __init__(
        self,
        store: AggregateStore[A],
        states: Sequence[str],
        turns: Collection,
        *,
        first: Query | None = None,
    ) -> None:
        self._store = store
        self._states = list(states)
        self._turns = turns
        self._first = first

    @property
    def query(self) -> Query:
        """Which aggregates are work."""
        return {"state": self._states[0] if len(self._states) == 1 else {"$in": self._states}}

    async def prepare(self) -> None:
        """Create the index by which a tenant's oldest work is found; that by which is free, the store has."""
        keys = [(name, ASCENDING) for name in ("state", "tenant_id", "created_at")]
        await ensure_index(self._store.collection, keys)

    async def claim(
        self, owner: str, seconds: float, *, where: Mapping[str, Any] | None = None, but_of: Sequence[str] = ()
    ) -> A | None:
        """Claim the oldest work of the tenant that waited longest for a turn: nobody's many hold up one's few.

        Args:
            owner: the worker's name, for people.
            seconds: length of the lease.
            where: further conditions of the work.
            but_of: tenants that have enough under way.
        """
        if self._first is not None:
            interrupted = await self._store.claim(self._first, owner, seconds)
            if interrupted is not None:
                return interrupted
        waiting = [tenant_id for tenant_id in await self._tenants() if tenant_id not in but_of]
        if not waiting:
            return None
        had = {turn["_id"]: turn["at"] async for turn in self._turns.find({"_id": {"$in": waiting}})}
        for tenant_id in sorted(waiting, key=lambda tenant: (had.get(tenant, 0), str(tenant))):
            one = await self._store.claim({**self.query, **(where or {}), "tenant_id": tenant_id}, owner, seconds)
            if one is not None:
                await self._turns.update_one({"_id": tenant_id}, {"$set": {"at": wall()}}, upsert=True)
                return one
        return None

    async def _tenants(self) -> list[str]:
        """Who has work that is free: nobody is asked in vain whose work is only under way or put off."""
        found: dict[str, None] = {}
        for state in self._states:
            found |= {one["_id"]: None async for one in self._store.collection.aggregate(tenants_with_work(state))}
        return list(found)

    async def others_wait(self, one: A) -> bool:
        """Whether another tenant than that of `one` has work that is free."""
        return any(tenant_id != one.tenant_id for tenant_id in await self._tenants())

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
        """Count a failed attempt; how many there were since the work last got further, None when it is not ours."""
        return await self._store.leases.count_failure(one.id, one.lease.fence)

    async def progress(self, one: A, mark: int) -> None:
        """Note how far the work got: further than ever before, and nothing counts against it any more."""
        await self._store.leases.progress(one.id, one.lease.fence, mark)

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self._store.collection.name
