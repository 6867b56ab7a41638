"""The relay: publishes what lies in the outboxes, in order per aggregate, and gives up what cannot be published."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable
from typing import Any

import structlog
from prometheus_client import Counter, Gauge

from chassis.clock import wall
from chassis.crash import crash_point
from chassis.errors import PERMANENT, Transient
from eventbus.aggregates.repository import AggregateStore
from eventbus.publish.given_up import GivenUp
from eventbus.publish.producer import PUBLISH_SECONDS, Producer
from schemas import Envelope
from stores.leases import Holds
from stores.mongo import Collection, Document, PyMongoError, Query

log = structlog.get_logger()

PUBLISHED = Counter("outbox_published_total", "Events published from the outbox.", ["topic"])
OLDEST = Gauge("outbox_oldest_seconds", "Age of the oldest event not yet published.", ["collection"])

SWEEP_SECONDS = 2.0
RELAY_LEASE_SECONDS = 20
"""Longer than a publish may take, twice: what this replica began is over before another one begins."""

PARALLEL = 64
"""Aggregates published at the same time: what is sent together shares an acknowledgement."""

MOST_FAILING = 16 * PARALLEL
"""Aggregates of a collection that fail, after which no others are begun: the broker is away."""

UNPUBLISHABLE = (*PERMANENT, ValueError)
"""Errors of the event itself, which no later attempt mends."""

WAITING: Query = {"outbox.0.at": {"$exists": True}}


Outboxes = AggregateStore[Any]
"""A collection of aggregates, of whichever kind."""


class Relay:
    """Publishes what lies in the outboxes of some collections, oldest first, then removes it.

    One replica of the service relays at a time (a lease); its sweep is the truth, a wake-up after each
    write makes it fast. An event is removed only after the broker acknowledged it, so a crash between the two
    publishes it again: consumers are idempotent. An aggregate whose event is not acknowledged is tried again beside all
    others, which do not wait for it; an event that cannot be published is given up, and what follows it goes on.

    Args:
        producer: publishes.
        stores: the collections; all are looked at side by side.
        leases: where the lease lies.
        given_up: where what cannot be published is kept.
        owner: this replica's name in the lease.
    """

    def __init__(
        self, producer: Producer, stores: list[Outboxes], leases: Collection, given_up: Collection, owner: str
    ) -> None:
        self._producer = producer
        self._stores = stores
        self._holds = Holds(leases)
        self._given_up = GivenUp(given_up)
        self._owner = owner
        self._awake = asyncio.Event()
        self._until = 0.0
        self._failing: defaultdict[str, set[str]] = defaultdict(set)

    def wake(self) -> None:
        """Look now rather than at the next sweep."""
        self._awake.set()

    async def watch_given_up(self) -> None:
        """Keep the gauge of what was given up current, until cancelled."""
        await self._given_up.watch()

    async def run(self) -> None:
        """Relay until cancelled; failures are logged and tried again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep())
            for store in self._stores:
                tasks.create_task(self._retry(store))

    async def _sweep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._awake.wait()
            except TimeoutError:
                pass
            self._awake.clear()
            await _survive(self.drain())

    async def _retry(self, store: Outboxes) -> None:
        """Publish again what failed, beside the sweep: the broker may take its time to fail again."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await _survive(self._drain_failing(store))

    async def drain(self) -> None:
        """Publish everything that waits now and has not failed, if this replica is the one that relays.

        Raises:
            Transient: an event was not acknowledged, or the lease was lost half-way; the rest waits for the next sweep.
        """
        if not await self._hold_lease():
            self._let_go()
            return
        work = (self._drain_store(store) for store in self._stores)
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _drain_store(self, store: Outboxes) -> None:
        """Publish what waits in one collection; what fails is left to be tried again, so the rest goes on."""
        failure: Exception | None = None
        while fresh := await self._oldest(store):
            failure = await self._publish_all(store, fresh) or failure
        if failure:
            raise failure

    async def _drain_failing(self, store: Outboxes) -> None:
        """Publish what failed in one collection; what another replica has published since fails no more."""
        failing = self._failing[store.collection.name]
        failure: Exception | None = None
        keys = list(failing)
        for start in range(0, len(keys), PARALLEL):
            if not await self._hold_lease():
                return
            some = keys[start : start + PARALLEL]
            again = await self._waiting(store, WAITING | {"_id": {"$in": some}})
            failing -= set(some) - {document["_id"] for document in again}
            failure = await self._publish_all(store, again) or failure
        if failure:
            raise failure

    async def _publish_all(self, store: Outboxes, documents: list[Document]) -> Exception | None:
        """Publish these side by side, and note which of them fail; the last failure."""
        failing = self._failing[store.collection.name]
        failure: Exception | None = None
        # All are waited for, so that nothing is published beside what is still under way of the same aggregate.
        outcomes = await asyncio.gather(*(self._publish(store, one) for one in documents), return_exceptions=True)
        for document, outcome in zip(documents, outcomes, strict=True):
            if outcome is None:
                failing.discard(document["_id"])
            elif isinstance(outcome, Exception) and not isinstance(outcome, _LeaseLost):
                failing.add(document["_id"])
                failure = outcome
            else:
                raise outcome
        return failure

    async def _oldest(self, store: Outboxes) -> list[Document]:
        """The documents that have waited longest, but for those that failed."""
        failing = self._failing[store.collection.name]
        room = min(PARALLEL, MOST_FAILING - len(failing))
        others = WAITING | ({"_id": {"$nin": list(failing)}} if failing else {})
        fresh = await self._waiting(store, others, room) if room > 0 else []
        oldest = (await self._waiting(store, WAITING, 1) if failing else fresh)[:1]
        age = wall() - oldest[0]["outbox"][0]["at"] if oldest else 0.0
        OLDEST.labels(store.collection.name).set(max(0.0, age))
        return fresh

    async def _waiting(self, store: Outboxes, query: Query, most: int = PARALLEL) -> list[Document]:
        found: list[Document] = await (
            store.collection.find(query, {"outbox": 1}).sort("outbox.0.at", 1).limit(most).to_list(most)
        )
        return found

    async def _publish(self, store: Outboxes, document: Document) -> None:
        for record in document["outbox"]:
            if not await self._hold_lease():
                raise _LeaseLost("Another replica relays now.")
            crash_point("relay.read")
            await self._publish_or_give_up(store, document, record)
            crash_point("relay.acked")
            await store.collection.update_one({"_id": document["_id"]}, {"$pull": {"outbox": {"id": record["id"]}}})
            crash_point("relay.removed")

    async def _publish_or_give_up(self, store: Outboxes, document: Document, record: Document) -> None:
        try:
            await self._producer.publish(record["topic"], Envelope.model_validate(record["envelope"]), record["data"])
        except UNPUBLISHABLE as error:
            await self._given_up.keep(store.collection.name, document["_id"], record, error)
        else:
            PUBLISHED.labels(record["topic"]).inc()

    async def _hold_lease(self) -> bool:
        """Whether this replica is the one that relays, for at least as long as a publish may take."""
        if time.monotonic() < self._until - PUBLISH_SECONDS:
            return True
        asked = time.monotonic()
        held = await self._holds.take({"_id": "relay"}, self._owner, RELAY_LEASE_SECONDS, upsert=True)
        if held is None:
            return False
        self._until = asked + RELAY_LEASE_SECONDS
        return time.monotonic() < self._until - PUBLISH_SECONDS

    def _let_go(self) -> None:
        """Say nothing of events that another replica answers for."""
        for store in self._stores:
            OLDEST.labels(store.collection.name).set(0.0)

    async def release(self) -> None:
        """Give the lease back, so that another replica relays at once."""
        try:
            await self._holds.give_back("relay", self._owner)
        except PyMongoError as error:
            log.warning("relay_lease_not_released", error=str(error))


async def _survive(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:  # the boundary of a background task: it must survive a broker or database cut
        log.warning("relay_failed", error=f"{type(error).__name__}: {error}")


class _LeaseLost(Transient):
    """Nothing more may be published by this replica."""
