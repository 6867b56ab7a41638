"""What the gateway keeps in MongoDB: received events, readable events, refusals, endpoints and deliveries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta

from chassis.clock import utc_now
from chassis.errors import NotFound, Transient
from chassis.ids import new_id, now
from chassis.text import quoted
from event_gateway.domain import CloudEvent, Delivery, Endpoint, Received, Refused
from eventbus import AggregateStore
from stores.mongo import Collection, Document, DuplicateKeyError, ensure_index
from stores.paging import page
from work import WorkQueue

LOST_PLACES = 50
"""Attempts at the next place of a tenant's log, each lost to another event."""


class Log:
    """The newest events of each tenant, numbered without gaps, so that a reader who has one number misses nothing.

    Args:
        entries: the events as they may be read, dropped as they expire.
        heads: by tenant, the number of its newest event.
        kept_seconds: how long they can be read.
        most: of one tenant.
    """

    def __init__(self, entries: Collection, heads: Collection, *, kept_seconds: int, most: int) -> None:
        self._entries = entries
        self._heads = heads
        self._kept = timedelta(seconds=kept_seconds)
        self._most = most

    async def prepare(self) -> None:
        """Create the indexes."""
        await ensure_index(self._entries, [("tenant_id", 1), ("number", 1)], unique=True)
        await ensure_index(self._entries, "expires_at", expireAfterSeconds=0)

    async def append(self, tenant_id: str, shown: CloudEvent) -> None:
        """Keep an event behind those that are there, once.

        Raises:
            Transient: too many others came at the same time.
        """
        for _ in range(LOST_PLACES):
            there = await self._entries.find_one({"_id": shown["id"]}, {"number": 1})
            number = there["number"] if there else await self._next(tenant_id)
            try:
                if not there:
                    expires = utc_now() + self._kept
                    entry = {"_id": shown["id"], "tenant_id": tenant_id, "number": number, "type": shown["type"]}
                    await self._entries.insert_one({**entry, "event": dict(shown), "expires_at": expires})
            except DuplicateKeyError:
                continue
            await self._heads.update_one({"_id": tenant_id}, {"$max": {"number": number}}, upsert=True)
            await self._entries.delete_one({"tenant_id": tenant_id, "number": number - self._most})
            return
        raise Transient("Too many events of one tenant came at the same time.")

    async def _next(self, tenant_id: str) -> int:
        newest = await self._entries.find_one({"tenant_id": tenant_id}, {"number": 1}, sort=[("number", -1)])
        return max(await self.head(tenant_id), newest["number"] if newest else 0) + 1

    async def head(self, tenant_id: str) -> int:
        """Number of the tenant's newest event."""
        found = await self._heads.find_one({"_id": tenant_id})
        return int(found["number"]) if found else 0

    async def heads(self, tenants: Sequence[str]) -> dict[str, int]:
        """The same of many tenants."""
        return {one["_id"]: one["number"] async for one in self._heads.find({"_id": {"$in": list(tenants)}})}

    async def page(
        self, tenant_id: str, types: Sequence[str], *, after: int | None, limit: int
    ) -> tuple[list[CloudEvent], int]:
        """The events of these types that follow a number, oldest first.

        Args:
            tenant_id: whose.
            types: of these.
            after: the number; None for the oldest that is kept.
            limit: at most so many.

        Returns:
            The events with their `cursor`, and the number behind which the next page begins.

        Raises:
            NotFound: events that follow the number are kept no more, or none ever had it.
        """
        head = await self.head(tenant_id)
        query = {"tenant_id": tenant_id, "number": {"$gt": after or 0, "$lte": head}, "type": {"$in": list(types)}}
        found = await page(self._entries, query, [("number", 1)], limit=limit)
        if after is not None:  # after the events were found: the oldest go meanwhile
            await self._expect_kept(tenant_id, after, head)
        shown: list[CloudEvent] = [{**one["event"], "cursor": str(one["number"])} for one in found]
        return shown, found[-1]["number"] if len(found) == limit else head

    async def newest(self, tenant_id: str, types: Sequence[str], *, before: int | None, limit: int) -> list[CloudEvent]:
        """The events of these types before a number, newest first; those before the end where there is none."""
        behind = {"number": {"$lt": before}} if before is not None else {}
        query = {"tenant_id": tenant_id, **behind, "type": {"$in": list(types)}}
        found = await page(self._entries, query, [("number", -1)], limit=limit)
        return [{**one["event"], "cursor": str(one["number"])} for one in found]

    async def _expect_kept(self, tenant_id: str, after: int, head: int) -> None:
        if after == head:
            return
        oldest = await self._entries.find_one({"tenant_id": tenant_id}, {"number": 1}, sort=[("number", 1)])
        if after > head or oldest is None or oldest["number"] > after + 1:
            raise NotFound(
                f"after: events that followed {after} are not here. Leave it out to read on from the oldest.",
                param="after",
                code="cursor_expired",
            )


class Refusals:
    """The newest refused events of each tenant; a further one takes the place of the oldest.

    Args:
        entries: the refusals, dropped as they expire.
        kept_seconds: how long they can be read.
        most: of one tenant.
    """

    def __init__(self, entries: Collection, *, kept_seconds: int, most: int) -> None:
        self._entries = entries
        self._kept = timedelta(seconds=kept_seconds)
        self._most = most

    async def prepare(self) -> None:
        """Create the indexes."""
        await ensure_index(self._entries, [("tenant_id", 1), ("number", -1), ("_id", -1)])
        await ensure_index(self._entries, "expires_at", expireAfterSeconds=0)

    async def keep(self, tenant_id: str, refused: Refused) -> None:
        """Keep one."""
        counted = await self._entries.find_one_and_update(
            {"_id": f"{tenant_id}/count"}, {"$inc": {"count": 1}}, upsert=True, return_document=True
        )
        number = int(counted["count"]) if counted else 1
        place = {"_id": f"{tenant_id}/{number % self._most}"}
        entry = {"tenant_id": tenant_id, "number": number, "refusal_id": new_id("refused_"), "at": now()}
        about = {**asdict(refused), "expires_at": utc_now() + self._kept}
        await self._entries.replace_one(place, {**place, **entry, **about}, upsert=True)

    async def page(self, tenant_id: str, *, limit: int, after: str | None) -> list[Document]:
        """Refusals, newest first.

        Raises:
            NotFound: there is none of the id `after`.
        """
        found = await page(
            self._entries,
            {"tenant_id": tenant_id},
            [("number", -1), ("_id", -1)],
            limit=limit,
            after=None if after is None else {"tenant_id": tenant_id, "refusal_id": after},
            missing=f"No refused event {quoted(after or '')}.",
        )
        fields = ("source", "type", "key_id", "code", "reason", "param")
        return [
            {
                "id": one["refusal_id"],
                "object": "event.refused",
                "refused_at": one["at"],
                "event_id": one["id"],
                **{name: one[name] for name in fields},
            }
            for one in found
        ]


class Inbox:
    """What services outside sent, each event once.

    Args:
        received: the events as they came.
    """

    def __init__(self, received: AggregateStore[Received]) -> None:
        self._received = received

    async def prepare(self) -> None:
        """Create the index."""
        await ensure_index(self._received.collection, "created_at")

    async def find(self, tenant_id: str, received_id: str) -> Received | None:
        """What came before under an id."""
        return await self._received.find_one(tenant_id, {"_id": received_id})

    async def add(self, received: Received) -> Received:
        """Keep what came, to be published, or return what came before under its id."""
        return await self._received.add_once(received)

    async def drop_before(self, moment: int) -> None:
        """Drop what was sent before a moment; what waits to be published stays."""
        await self._received.collection.delete_many({"created_at": {"$lt": moment}, "outbox": []})


class Webhooks:
    """Endpoints and the deliveries to them.

    Args:
        endpoints: the addresses.
        deliveries: events on their way.
        due: those that wait.
    """

    def __init__(
        self, endpoints: AggregateStore[Endpoint], deliveries: AggregateStore[Delivery], due: WorkQueue[Delivery]
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._due = due

    async def prepare(self) -> None:
        """Create the indexes."""
        await self._due.prepare()
        await ensure_index(self._deliveries.collection, [("endpoint_id", 1), ("state", 1), ("created_at", -1)])
        await ensure_index(self._deliveries.collection, "created_at")

    async def endpoint(self, tenant_id: str, endpoint_id: str) -> Endpoint:
        """An endpoint of the tenant.

        Raises:
            NotFound: there is none such.
        """
        return await self._endpoints.get(tenant_id, endpoint_id)

    async def endpoints_page(self, tenant_id: str, *, limit: int, after: str | None) -> list[Endpoint]:
        """The tenant's endpoints, newest first."""
        return await self._endpoints.find(tenant_id, limit=limit, after=after)

    async def add_endpoint(self, endpoint: Endpoint) -> Endpoint:
        """Add an endpoint, or return the one that is there."""
        return await self._endpoints.add_once(endpoint)

    async def change_endpoint(self, tenant_id: str, endpoint_id: str, change: Callable[[Endpoint], None]) -> Endpoint:
        """The endpoint, changed."""
        return await self._endpoints.update(tenant_id, endpoint_id, change)

    async def delivery(self, endpoint: Endpoint, delivery_id: str) -> Delivery:
        """A delivery to an endpoint.

        Raises:
            NotFound: there is none such.
        """
        return await self._deliveries.get(endpoint.tenant_id, delivery_id, {"endpoint_id": endpoint.id})

    async def is_known(self, delivery: Delivery) -> bool:
        """Whether a delivery was made before."""
        return await self._deliveries.find_one(delivery.tenant_id, {"_id": delivery.id}) is not None

    async def add_delivery(self, delivery: Delivery) -> None:
        """Have it delivered, once."""
        await self._deliveries.add_once(delivery)

    async def replay(self, delivery: Delivery) -> Delivery:
        """Have it delivered again.

        Raises:
            Conflict: it is under way.
        """
        return await self._deliveries.update(delivery.tenant_id, delivery.id, Delivery.replay)

    async def note(self, delivery: Delivery, change: Callable[[Delivery], None]) -> Delivery:
        """The delivery, as the worker that has it changed it.

        Raises:
            Conflict: another worker has it.
            NotFound: it was deleted.
        """
        fence = delivery.lease.fence
        return await self._deliveries.update(delivery.tenant_id, delivery.id, change, fence=fence)

    async def put_off(self, delivery: Delivery, seconds: float) -> None:
        """Give a claimed delivery back, to be tried again in some seconds."""
        await self._due.put_off(delivery, seconds)

    async def release(self, delivery: Delivery) -> None:
        """Give a claimed delivery back."""
        await self._due.release(delivery)

    async def wanting(self, tenant_id: str, event_type: str) -> list[Endpoint]:
        """The tenant's endpoints that are on and want events of this type."""
        found = await self._endpoints.find(tenant_id, {"off": ""})
        return [one for one in found if event_type in one.types]

    async def count(self, tenant_id: str) -> int:
        """The tenant's endpoints."""
        return int(await self._endpoints.collection.count_documents({"tenant_id": tenant_id}))

    async def is_full(self, endpoint: Endpoint, most: int) -> bool:
        """Whether `most` deliveries wait for an endpoint."""
        query = {"endpoint_id": endpoint.id, "state": "waiting"}
        return int(await self._deliveries.collection.count_documents(query, limit=most)) >= most

    async def count_skipped(self, endpoint: Endpoint) -> None:
        """One more event was not sent to it."""
        query = {"_id": endpoint.id, "tenant_id": endpoint.tenant_id}
        await self._endpoints.collection.update_one(query, {"$inc": {"skipped": 1, "version": 1}})

    async def claim(
        self, owner: str, seconds: float, *, but_to: Sequence[str] = (), but_of: Sequence[str] = ()
    ) -> Delivery | None:
        """A delivery that is due, of the tenant that waited longest for a turn.

        Args:
            owner: the worker's name, for people.
            seconds: length of the lease.
            but_to: none to these endpoints.
            but_of: none of these tenants.
        """
        return await self._due.claim(owner, seconds, where={"endpoint_id": {"$nin": list(but_to)}}, but_of=but_of)

    async def deliveries_page(
        self, endpoint: Endpoint, *, state: str | None, limit: int, after: str | None
    ) -> list[Delivery]:
        """Deliveries to an endpoint, newest first."""
        query = {"endpoint_id": endpoint.id, **({"state": state} if state else {})}
        return await self._deliveries.find(endpoint.tenant_id, query, limit=limit, after=after)

    async def counts(self, tenant_id: str, endpoint_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """By endpoint, its deliveries that wait and that are parked."""
        counted = {one: {"waiting": 0, "parked": 0} for one in endpoint_ids}
        match = {"endpoint_id": {"$in": list(endpoint_ids)}, "state": {"$in": ["waiting", "parked"]}}
        group = {"_id": {"endpoint": "$endpoint_id", "state": "$state"}, "deliveries": {"$sum": 1}}
        pipeline: list[Document] = [{"$match": {**match, "tenant_id": tenant_id}}, {"$group": group}]
        async for found in self._deliveries.collection.aggregate(pipeline):
            counted[found["_id"]["endpoint"]][found["_id"]["state"]] = found["deliveries"]
        return counted

    async def remove(self, endpoint: Endpoint) -> None:
        """Delete an endpoint with its deliveries; one that is made meanwhile finds no endpoint and goes too."""
        await self._endpoints.collection.delete_one({"_id": endpoint.id, "tenant_id": endpoint.tenant_id})
        await self._deliveries.collection.delete_many({"endpoint_id": endpoint.id, "tenant_id": endpoint.tenant_id})

    async def forget(self, delivery: Delivery) -> None:
        """Delete a delivery, unless another worker has claimed it since."""
        claimed = {"_id": delivery.id, "tenant_id": delivery.tenant_id, "lease.fence": delivery.lease.fence}
        await self._deliveries.collection.delete_one(claimed)

    async def drop_before(self, moment: int) -> None:
        """Drop the deliveries made before a moment."""
        await self._deliveries.collection.delete_many({"created_at": {"$lt": moment}})
