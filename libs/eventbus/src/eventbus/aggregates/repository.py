"""Aggregates and their events in one document write; `eventbus.publish.relay` publishes the events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

import structlog
from prometheus_client import Counter
from pydantic import ValidationError

from chassis.clock import wall
from chassis.errors import Conflict, NotFound, WriteRefused
from chassis.text import quoted
from eventbus.aggregates.aggregate import Aggregate
from eventbus.messages.envelopes import envelope_of
from eventbus.messages.event_size import check_size
from schemas import Event
from stores.leases import ANEW, Lease, Leases
from stores.mongo import ASCENDING, Collection, Document, DuplicateKeyError, Query, ensure_index
from stores.paging import NEWEST_FIRST, OLDEST_FIRST, page

log = structlog.get_logger()

UNREADABLE = Counter(
    "documents_unreadable_total", "Documents that background work passed over: no aggregate of theirs.", ["collection"]
)

PUT_OFF_SECONDS = 600.0
"""For which work that cannot be read is left alone: a release that reads it may come meanwhile."""

A = TypeVar("A", bound=Aggregate)


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
        UNREADABLE.labels(collection.name)  # a counter that begins above 0 has not risen, for an alert
        self._service = service
        self._wake = wake

    async def prepare(self) -> None:
        """Create the indexes every aggregate collection has."""
        await ensure_index(self.collection, [("outbox.0.at", ASCENDING)], sparse=True)
        await ensure_index(self.collection, [("tenant_id", ASCENDING), ("created_at", ASCENDING)])
        if "state" in self.kind.model_fields:  # what waits is found by its state; whose it is, and whether it is free
            await ensure_index(
                self.collection, [(name, ASCENDING) for name in ("state", "tenant_id", "lease.until_ms")]
            )

    async def add(self, aggregate: A) -> None:
        """Insert a new aggregate with its events.

        Raises:
            Conflict: its id, or another unique field, is taken.
            TooLarge: one of its events is over `MOST_EVENT_BYTES`.
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

    async def find_one(self, tenant_id: str, query: Query) -> A | None:
        """The tenant's aggregate that matches, if there is one."""
        document = await self.collection.find_one({**query, "tenant_id": tenant_id})
        return self._load(document) if document else None

    async def get(self, tenant_id: str, aggregate_id: str, where: Query | None = None) -> A:
        """The tenant's aggregate of that id, if it meets the further conditions of `where`.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        found = await self.find_one(tenant_id, {**(where or {}), "_id": aggregate_id})
        if found is None:
            raise NotFound(f"No such {self.kind.__name__.lower()}: {quoted(aggregate_id)}.")
        return found

    async def find(
        self,
        tenant_id: str,
        query: Query | None = None,
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
        conditions = {**(query or {}), "tenant_id": tenant_id}
        owner = {name: value for name, value in conditions.items() if name == "owner"}
        documents = await page(
            self.collection,
            conditions,
            NEWEST_FIRST if newest_first else OLDEST_FIRST,
            limit=limit,
            after=None if after is None else {"_id": after, "tenant_id": tenant_id, **owner},
            missing=f"No such {self.kind.__name__.lower()}: {quoted(after or '')}.",
        )
        return [self._load(document) for document in documents]

    async def for_service(self, query: Query) -> AsyncIterator[A]:
        """Aggregates of all tenants that match, for background work only; never behind a route of a tenant."""
        async for document in self.collection.find(query):
            yield self._load(document)

    async def readable(self, query: Query) -> AsyncIterator[A]:
        """As `for_service`, but one that cannot be read is passed over and told to the operator.

        For work on each by itself; not for a list of which nothing may be missing.
        """
        async for document in self.collection.find(query):
            if (aggregate := self._read(document)) is not None:
                yield aggregate

    async def save(self, aggregate: A, *, fence: int | None = None) -> None:
        """Write the aggregate and its recorded events if nobody changed it since it was loaded.

        Args:
            aggregate: as loaded and changed.
            fence: the worker's fence; the write is refused when somebody claimed the aggregate after it.

        Raises:
            WriteRefused: the document changed meanwhile, or the fence is old.
            Conflict: a unique field is taken.
            TooLarge: one of its events is over `MOST_EVENT_BYTES`.
        """
        outbox = self._envelop(aggregate)
        query: Query = {
            "_id": aggregate.id,
            "tenant_id": aggregate.tenant_id,
            "version": aggregate.version,
        }
        if fence is not None:
            query["lease.fence"] = fence
        anew = ANEW if aggregate.take_begins_anew() else {}
        change: Document = {"$set": {**aggregate.to_document(), **anew}, "$inc": {"version": 1}}
        if outbox:
            change["$push"] = {"outbox": {"$each": outbox}}
        try:
            result = await self.collection.update_one(query, change)
        except DuplicateKeyError as error:
            raise Conflict(f"Another {self.kind.__name__.lower()} has this already.", code="duplicate") from error
        if result.matched_count == 0:
            raise WriteRefused(f"{self.kind.__name__} {aggregate.id} was changed by someone else.", code="stale_write")
        aggregate.version += 1
        if outbox:
            self._wake()

    async def update(
        self, tenant_id: str, aggregate_id: str, change: Callable[[A], None], *, fence: int | None = None
    ) -> A:
        """Load, apply `change`, save; again from the start when somebody else was faster.

        Raises:
            NotFound: no such aggregate for the tenant.
            WriteRefused: the fence is old, or the document kept changing.
        """
        for _ in range(8):
            aggregate = await self.get(tenant_id, aggregate_id)
            if fence is not None and aggregate.lease.fence != fence:
                raise WriteRefused(
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
        raise WriteRefused(f"{self.kind.__name__} {aggregate_id} is too busy; try again.", code="stale_write")

    async def claim(self, query: Query, owner: str, seconds: float) -> A | None:
        """Claim one aggregate that matches `query` and that nobody holds a lease on; the oldest first.

        One that cannot be read is put off, and told to the operator: it would be the oldest for ever.
        """
        while (document := await self.leases.claim(query, owner, seconds)) is not None:
            if (aggregate := self._read(document)) is not None:
                return aggregate
            await self.leases.delay(document["_id"], document["lease"]["fence"], PUT_OFF_SECONDS)
        return None

    def _load(self, document: Document) -> A:
        return self.kind.model_validate({**document, "id": document["_id"]})

    def _read(self, document: Document) -> A | None:
        try:
            return self._load(document)
        except ValidationError as error:
            UNREADABLE.labels(self.collection.name).inc()
            wrong = [".".join(map(str, one["loc"])) for one in error.errors(include_input=False, include_url=False)]
            log.error("document_unreadable", collection=self.collection.name, id=str(document["_id"]), fields=wrong)
            return None

    def _envelop(self, aggregate: A) -> list[Document]:
        return [self._record(event, aggregate) for event in aggregate.take_pending()]

    def _record(self, event: Event, aggregate: A) -> Document:
        context = structlog.contextvars.get_contextvars()
        envelope = envelope_of(
            event,
            self._service,
            seq=aggregate.count(event),
            origin=aggregate.id,
            correlationid=str(context.get("correlation_id") or context.get("request_id") or ""),
            causationid=str(context.get("event_id") or ""),
        )
        data = event.model_dump(mode="json")
        check_size(envelope, data)
        return {
            "id": envelope.id,
            "topic": event.topic,
            "envelope": envelope.model_dump(mode="json"),
            "data": data,
            "at": wall(),
        }
