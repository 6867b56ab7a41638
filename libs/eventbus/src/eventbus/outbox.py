"""Aggregates and their events in one document write, and the relay that publishes the events in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from chassis.crash import crash_point
from chassis.errors import Conflict, NotFound, Transient
from chassis.ids import SERVER_MS, new_id
from eventbus.aggregate import Aggregate, Lease
from eventbus.bus import PUBLISH_SECONDS, Bus
from eventbus.leases import Leases
from schemas import Envelope, Event
from schemas.envelope import utc_now
from stores.mongo import ASCENDING, Collection, DuplicateKeyError, PyMongoError

log = structlog.get_logger()

PUBLISHED = Counter("outbox_published_total", "Events published from the outbox.", ["topic"])
OLDEST = Gauge("outbox_oldest_seconds", "Age of the oldest event not yet published.", ["collection"])

A = TypeVar("A", bound=Aggregate)

SWEEP_SECONDS = 2.0
RELAY_LEASE_SECONDS = 20
"""Longer than a publish may take, twice: what this replica began is over before another one begins."""

PARALLEL = 64
"""Aggregates published at the same time: what is sent together shares an acknowledgement."""


class AggregateStore(Generic[A]):
    """One collection of one kind of aggregate, each carrying its own outbox.

    Every read names the tenant. Every write is a compare-and-set on `version`, so two writers cannot overwrite each
    other, and appends the recorded events in the same update.

    Args:
        collection: where the documents lie.
        kind: the aggregate class.
        service: put into the events' `source`.
        wake: called after a write that has events, so the relay need not wait for its sweep.
    """

    def __init__(self, collection: Collection, kind: type[A], service: str, wake: Callable[[], None]) -> None:
        self.collection = collection
        self.kind = kind
        self.leases = Leases(collection)
        self._source = f"/sartor/{service}"
        self._wake = wake

    async def prepare(self) -> None:
        """Create the indexes every aggregate collection has."""
        await self.collection.create_index([("outbox.0.id", ASCENDING)], sparse=True)
        await self.collection.create_index([("tenant_id", ASCENDING), ("created_at", ASCENDING)])

    async def add(self, aggregate: A) -> None:
        """Insert a new aggregate with its events.

        Raises:
            Conflict: its id, or another unique field, is taken.
        """
        outbox = self._envelop(aggregate)
        document = {**aggregate.to_document(), "_id": aggregate.id, "version": 1, "lease": Lease().model_dump()}
        try:
            await self.collection.insert_one({**document, "outbox": outbox})
        except DuplicateKeyError as error:
            raise Conflict(f"{self.kind.__name__} {aggregate.id} exists already.") from error
        aggregate.version = 1
        if outbox:
            self._wake()

    async def add_once(self, aggregate: A) -> A:
        """Insert, or return the one that is there: the same cause, seen again, has one effect."""
        try:
            await self.add(aggregate)
        except Conflict:
            existing = await self.find_one(aggregate.tenant_id, {"_id": aggregate.id})
            if existing is None:
                raise
            return existing
        return aggregate

    async def find_one(self, tenant_id: str, query: dict[str, Any]) -> A | None:
        """The tenant's aggregate that matches, if there is one."""
        document = await self.collection.find_one({**query, "tenant_id": tenant_id})
        return self._load(document) if document else None

    async def get(self, tenant_id: str, aggregate_id: str, where: Mapping[str, Any] | None = None) -> A:
        """The tenant's aggregate of that id, if it meets the further conditions of `where`.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        found = await self.find_one(tenant_id, {**(where or {}), "_id": aggregate_id})
        if found is None:
            raise NotFound(f"No such {self.kind.__name__.lower()}: '{aggregate_id}'.")
        return found

    async def find(
        self,
        tenant_id: str,
        query: dict[str, Any] | None = None,
        *,
        limit: int = 0,
        after: str | None = None,
        newest_first: bool = True,
    ) -> list[A]:
        """The tenant's aggregates that match, by `created_at` then id.

        Args:
            tenant_id: whose.
            query: further conditions.
            limit: at most this many; 0 for all.
            after: id of the last one of the previous page.
            newest_first: order.
        """
        direction = -1 if newest_first else 1
        conditions: dict[str, Any] = {**(query or {}), "tenant_id": tenant_id}
        if after is not None:
            last = await self.collection.find_one({"_id": after, "tenant_id": tenant_id})
            if last is None:
                raise NotFound(f"No such {self.kind.__name__.lower()}: '{after}'.", param="after")
            beyond = "$lt" if newest_first else "$gt"
            conditions = {
                "$and": [
                    conditions,
                    {
                        "$or": [
                            {"created_at": {beyond: last["created_at"]}},
                            {"created_at": last["created_at"], "_id": {beyond: after}},
                        ]
                    },
                ]
            }
        cursor = self.collection.find(conditions).sort([("created_at", direction), ("_id", direction)]).limit(limit)
        return [self._load(document) async for document in cursor]

    async def for_service(self, query: dict[str, Any]) -> AsyncIterator[A]:
        """Aggregates of all tenants that match, for background work only; never behind a route of a tenant."""
        async for document in self.collection.find(query):
            yield self._load(document)

    async def save(self, aggregate: A, *, fence: int | None = None) -> None:
        """Write the aggregate and its recorded events if nobody changed it since it was loaded.

        Args:
            aggregate: as loaded and changed.
            fence: the worker's fence; the write is refused when somebody claimed the aggregate after it.

        Raises:
            Conflict: the document changed meanwhile, or the fence is old.
        """
        outbox = self._envelop(aggregate)
        query: dict[str, Any] = {
            "_id": aggregate.id,
            "tenant_id": aggregate.tenant_id,
            "version": aggregate.version,
        }
        if fence is not None:
            query["lease.fence"] = fence
        change: dict[str, Any] = {"$set": aggregate.to_document(), "$inc": {"version": 1}}
        if outbox:
            change["$push"] = {"outbox": {"$each": outbox}}
        result = await self.collection.update_one(query, change)
        if result.matched_count == 0:
            raise Conflict(f"{self.kind.__name__} {aggregate.id} was changed by someone else.", code="stale_write")
        aggregate.version += 1
        if outbox:
            self._wake()

    async def update(
        self, tenant_id: str, aggregate_id: str, change: Callable[[A], None], *, fence: int | None = None
    ) -> A:
        """Load, apply `change`, save; again from the start when somebody else was faster.

        Raises:
            NotFound: no such aggregate for the tenant.
            Conflict: the fence is old, or the document kept changing.
        """
        for _ in range(8):
            aggregate = await self.get(tenant_id, aggregate_id)
            if fence is not None and aggregate.lease.fence != fence:
                raise Conflict(
                    f"{self.kind.__name__} {aggregate_id} was claimed by another worker.", code="stale_fence"
                )
            change(aggregate)
            try:
                await self.save(aggregate, fence=fence)
            except Conflict as error:
                if error.code != "stale_write":
                    raise
                continue
            return aggregate
        raise Conflict(f"{self.kind.__name__} {aggregate_id} is too busy; try again.", code="stale_write")

    async def claim(self, query: dict[str, Any], owner: str, seconds: float) -> A | None:
        """Claim one aggregate that matches `query` and that nobody holds a lease on; the oldest first."""
        document = await self.leases.claim(query, owner, seconds)
        return self._load(document) if document else None

    async def claim_in_turn(self, query: dict[str, Any], turns: Collection, owner: str, seconds: float) -> A | None:
        """Claim the oldest that matches of the tenant that waited longest for a turn: nobody's many hold up one's few.

        Args:
            query: which aggregates are work; should use an index.
            turns: by tenant, when it last had one.
            owner: the worker's name, for people.
            seconds: length of the lease.
        """
        waiting = await self.collection.distinct("tenant_id", query)
        if not waiting:
            return None
        had = {turn["_id"]: turn["at"] async for turn in turns.find({"_id": {"$in": waiting}})}
        for tenant_id in sorted(waiting, key=lambda tenant: (had.get(tenant, 0), tenant)):
            aggregate = await self.claim({**query, "tenant_id": tenant_id}, owner, seconds)
            if aggregate is not None:
                await turns.update_one({"_id": tenant_id}, {"$set": {"at": time.time()}}, upsert=True)
                return aggregate
        return None

    def _load(self, document: dict[str, Any]) -> A:
        return self.kind.model_validate({**document, "id": document["_id"]})

    def _envelop(self, aggregate: A) -> list[dict[str, Any]]:
        context = structlog.contextvars.get_contextvars()
        return [self._record(event, aggregate, context) for event in aggregate.take_pending()]

    def _record(self, event: Event, aggregate: A, context: dict[str, Any]) -> dict[str, Any]:
        envelope = Envelope(
            id=new_id("evt_"),
            source=self._source,
            type=event.type,
            time=utc_now(),
            subject=event.aggregate_id,
            seq=aggregate.count(event),
            origin=aggregate.id,
            tenantid=event.tenant_id,
            correlationid=str(context.get("correlation_id") or context.get("request_id") or ""),
            causationid=str(context.get("event_id") or ""),
        )
        return {
            "id": envelope.id,
            "topic": event.topic,
            "envelope": envelope.model_dump(mode="json"),
            "data": event.model_dump(mode="json"),
            "at": time.time(),
        }


class Relay:
    """Publishes what lies in the outboxes of some collections, oldest first per aggregate, then removes it.

    One replica of the service relays at a time (a lease); its sweep is the truth, a wake-up after each
    write makes it fast. An event is removed only after the broker acknowledged it, so a crash between the two
    publishes it again: consumers are idempotent.
    """

    def __init__(self, bus: Bus, stores: list[AggregateStore[Any]], leases: Collection, owner: str) -> None:
        self._bus = bus
        self._stores = stores
        self._leases = leases
        self._owner = owner
        self._awake = asyncio.Event()
        self._until = 0.0

    def wake(self) -> None:
        """Look now rather than at the next sweep."""
        self._awake.set()

    async def run(self) -> None:
        """Relay until cancelled; failures are logged and tried again at the next sweep."""
        while True:
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._awake.wait()
            except TimeoutError:
                pass
            self._awake.clear()
            try:
                await self.drain()
            except Exception as error:  # the boundary of a background task: it must survive a broker or database cut
                log.warning("relay_failed", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(SWEEP_SECONDS)

    async def drain(self) -> None:
        """Publish everything that waits now, if this replica is the one that relays.

        Raises:
            Transient: an event was not acknowledged, or the lease was lost half-way; the rest waits for the next sweep.
        """
        if not await self._hold_lease():
            return
        for store in self._stores:
            oldest = time.time()
            documents = await store.collection.find({"outbox.0.id": {"$exists": True}}, {"outbox": 1}).to_list(200)
            gate = asyncio.Semaphore(PARALLEL)
            for document in documents:
                oldest = min(oldest, document["outbox"][0]["at"])
            OLDEST.labels(store.collection.name).set(time.time() - oldest)
            # All are waited for, so that no publish of this sweep runs beside the next one's.
            work = (self._publish(store, document, gate) for document in documents)
            for outcome in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _publish(self, store: AggregateStore[Any], document: dict[str, Any], gate: asyncio.Semaphore) -> None:
        async with gate:
            for record in document["outbox"]:
                if not await self._hold_lease():
                    raise Transient("Another replica relays now.")
                crash_point("relay.read")
                await self._bus.publish(record["topic"], Envelope.model_validate(record["envelope"]), record["data"])
                crash_point("relay.acked")
                await store.collection.update_one({"_id": document["_id"]}, {"$pull": {"outbox": {"id": record["id"]}}})
                crash_point("relay.removed")
                PUBLISHED.labels(record["topic"]).inc()

    async def _hold_lease(self) -> bool:
        """Whether this replica is the one that relays, for at least as long as a publish may take."""
        if time.monotonic() < self._until - PUBLISH_SECONDS:
            return True
        asked = time.monotonic()
        try:
            held = await self._leases.find_one_and_update(
                {
                    "_id": "relay",
                    "$or": [{"owner": self._owner}, {"$expr": {"$lt": ["$until_ms", SERVER_MS]}}],
                },
                [{"$set": {"owner": self._owner, "until_ms": {"$add": [SERVER_MS, RELAY_LEASE_SECONDS * 1000]}}}],
                upsert=True,
                return_document=True,
            )
        except DuplicateKeyError:
            return False
        self._until = asked + RELAY_LEASE_SECONDS
        return held is not None and time.monotonic() < self._until - PUBLISH_SECONDS

    async def release(self) -> None:
        """Give the lease back, so that another replica relays at once."""
        try:
            await self._leases.delete_one({"_id": "relay", "owner": self._owner})
        except PyMongoError as error:
            log.warning("relay_lease_not_released", error=str(error))
