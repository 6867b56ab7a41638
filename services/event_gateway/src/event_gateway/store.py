"""What the gateway keeps, in MongoDB: events that came in, events to be read, refusals, endpoints and deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from chassis.errors import NotFound, Transient
from chassis.ids import new_id, now
from chassis.text import quoted
from event_gateway.domain import Delivery, Endpoint, Received, Refused
from eventbus.outbox import AggregateStore
from stores.mongo import Collection, DuplicateKeyError, ensure_index
from work import WorkQueue

SWEEP_SECONDS = 60.0
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

    async def append(self, tenant_id: str, shown: Mapping[str, Any]) -> None:
        """Keep an event behind those that are there, once.

        Raises:
            Transient: too many others came at the same time.
        """
        for _ in range(LOST_PLACES):
            there = await self._entries.find_one({"_id": shown["id"]}, {"number": 1})
            number = there["number"] if there else await self._next(tenant_id)
            try:
                if not there:
                    expires = datetime.now(UTC) + self._kept
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
    ) -> tuple[list[dict[str, Any]], int]:
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
        found = await self._entries.find(query).sort("number", 1).limit(limit).to_list(limit)
        if after is not None:  # after the events were found: the oldest go meanwhile
            await self._expect_kept(tenant_id, after, head)
        shown = [{**one["event"], "cursor": str(one["number"])} for one in found]
        return shown, found[-1]["number"] if len(found) == limit else head

    async def newest(
        self, tenant_id: str, types: Sequence[str], *, before: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """The events of these types before a number, newest first; those before the end where there is none."""
        behind = {"number": {"$lt": before}} if before is not None else {}
        query = {"tenant_id": tenant_id, **behind, "type": {"$in": list(types)}}
        found = self._entries.find(query).sort("number", -1).limit(limit)
        return [{**one["event"], "cursor": str(one["number"])} async for one in found]

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
        await ensure_index(self._entries, [("tenant_id", 1), ("number", -1)])
        await ensure_index(self._entries, "expires_at", expireAfterSeconds=0)

    async def keep(self, tenant_id: str, refused: Refused) -> None:
        """Keep one."""
        counted = await self._entries.find_one_and_update(
            {"_id": f"{tenant_id}/count"}, {"$inc": {"count": 1}}, upsert=True, return_document=True
        )
        number = int(counted["count"]) if counted else 1
        place = {"_id": f"{tenant_id}/{number % self._most}"}
        entry = {"tenant_id": tenant_id, "number": number, "refusal_id": new_id("refused_"), "at": now()}
        about = {**asdict(refused), "expires_at": datetime.now(UTC) + self._kept}
        await self._entries.replace_one(place, {**place, **entry, **about}, upsert=True)

    async def page(self, tenant_id: str, *, limit: int, after: str | None) -> list[dict[str, Any]]:
        """Refusals, newest first.

        Raises:
            NotFound: there is none of the id `after`.
        """
        query: dict[str, Any] = {"tenant_id": tenant_id}
        if after is not None:
            last = await self._entries.find_one({**query, "refusal_id": after})
            if last is None:
                raise NotFound(f"No refused event {quoted(after)}.", param="after")
            query["number"] = {"$lt": last["number"]}
        found = self._entries.find(query).sort("number", -1).limit(limit)
        fields = ("source", "type", "key_id", "code", "reason", "param")
        return [
            {
                "id": one["refusal_id"],
                "object": "event.refused",
                "refused_at": one["at"],
                "event_id": one["id"],
                **{name: one[name] for name in fields},
            }
            async for one in found
        ]


class Webhooks:
    """Endpoints and the deliveries to them.

    Args:
        endpoints: the addresses.
        deliveries: events on their way.
        turns: by tenant, when it last had one.
    """

    def __init__(
        self, endpoints: AggregateStore[Endpoint], deliveries: AggregateStore[Delivery], turns: Collection
    ) -> None:
        self.endpoints = endpoints
        self.deliveries = deliveries
        self.due = WorkQueue(deliveries, ["waiting"], turns)

    async def prepare(self) -> None:
        """Create the indexes."""
        await self.due.prepare()
        await ensure_index(self.deliveries.collection, [("endpoint_id", 1), ("state", 1), ("created_at", -1)])
        await ensure_index(self.deliveries.collection, "created_at")

    async def wanting(self, tenant_id: str, event_type: str) -> list[Endpoint]:
        """The tenant's endpoints that are on and want events of this type."""
        found = await self.endpoints.find(tenant_id, {"off": ""})
        return [one for one in found if event_type in one.types]

    async def count(self, tenant_id: str) -> int:
        """The tenant's endpoints."""
        return int(await self.endpoints.collection.count_documents({"tenant_id": tenant_id}))

    async def is_full(self, endpoint: Endpoint, most: int) -> bool:
        """Whether `most` deliveries wait for an endpoint."""
        query = {"endpoint_id": endpoint.id, "state": "waiting"}
        return int(await self.deliveries.collection.count_documents(query, limit=most)) >= most

    async def count_skipped(self, endpoint: Endpoint) -> None:
        """One more event was not sent to it."""
        query = {"_id": endpoint.id, "tenant_id": endpoint.tenant_id}
        await self.endpoints.collection.update_one(query, {"$inc": {"skipped": 1, "version": 1}})

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
        return await self.due.claim(owner, seconds, where={"endpoint_id": {"$nin": list(but_to)}}, but_of=but_of)

    async def page(self, endpoint: Endpoint, *, state: str | None, limit: int, after: str | None) -> list[Delivery]:
        """Deliveries to an endpoint, newest first."""
        query = {"endpoint_id": endpoint.id, **({"state": state} if state else {})}
        return await self.deliveries.find(endpoint.tenant_id, query, limit=limit, after=after)

    async def counts(self, tenant_id: str, endpoint_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """By endpoint, its deliveries that wait and that are parked."""
        counted = {one: {"waiting": 0, "parked": 0} for one in endpoint_ids}
        match = {"endpoint_id": {"$in": list(endpoint_ids)}, "state": {"$in": ["waiting", "parked"]}}
        group = {"_id": {"endpoint": "$endpoint_id", "state": "$state"}, "deliveries": {"$sum": 1}}
        pipeline: list[dict[str, Any]] = [{"$match": {**match, "tenant_id": tenant_id}}, {"$group": group}]
        async for found in self.deliveries.collection.aggregate(pipeline):
            counted[found["_id"]["endpoint"]][found["_id"]["state"]] = found["deliveries"]
        return counted

    async def remove(self, endpoint: Endpoint) -> None:
        """Delete an endpoint with its deliveries; one that is made meanwhile finds no endpoint and goes too."""
        await self.endpoints.collection.delete_one({"_id": endpoint.id, "tenant_id": endpoint.tenant_id})
        await self.deliveries.collection.delete_many({"endpoint_id": endpoint.id, "tenant_id": endpoint.tenant_id})

    async def forget(self, delivery: Delivery) -> None:
        """Delete a delivery."""
        await self.deliveries.collection.delete_one({"_id": delivery.id, "tenant_id": delivery.tenant_id})


class Kept:
    """All that the gateway keeps.

    Args:
        received: what services outside sent.
        log: the events that can be read.
        refusals: what was not published.
        webhooks: endpoints and deliveries.
        kept_seconds: how long what was sent, and deliveries, are known.
    """

    def __init__(
        self,
        received: AggregateStore[Received],
        log: Log,
        refusals: Refusals,
        webhooks: Webhooks,
        *,
        kept_seconds: int,
    ) -> None:
        self.received = received
        self.log = log
        self.refusals = refusals
        self.webhooks = webhooks
        self._kept_seconds = kept_seconds

    async def prepare(self) -> None:
        """Create the indexes."""
        await ensure_index(self.received.collection, "created_at")
        for part in (self.log, self.refusals, self.webhooks):
            await part.prepare()

    async def sweep(self) -> None:
        """Drop what is older than it is kept, until cancelled; what waits to be published stays."""
        while True:
            await self.drop_before(now() - self._kept_seconds)
            await asyncio.sleep(SWEEP_SECONDS)

    async def drop_before(self, moment: int) -> None:
        """Drop what was sent, and deliveries made, before a moment."""
        old = {"created_at": {"$lt": moment}}
        await self.received.collection.delete_many({**old, "outbox": []})
        await self.webhooks.deliveries.collection.delete_many(old)
