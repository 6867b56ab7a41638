"""Which replicas proved which base model, and which of them live."""

from __future__ import annotations

import time
from collections.abc import Iterable

from chassis.ids import SERVER_MS
from schemas import ReplicaReady
from stores.mongo import ASCENDING, DESCENDING, Collection, Query, ensure_index

Proven = tuple[str, str]
"""A base model that a replica proved: its id and the digest of its files."""

FORGOTTEN_SECONDS = 3600
"""A replica that was silent so long is dead for good: its document goes."""


class Replicas:
    """What each replica said of itself, and when it last asked what it must hold: a dead one is not routed to.

    While the registry was down nobody could be heard: until this process has listened as long as a replica may be
    silent, who was heard shortly before the last one heard then is no more silent than that one. The clock is the
    database's, as those of the registry's replicas may differ.

    Args:
        collection: one document for each replica.
        seconds: how long a replica may be silent.
    """

    def __init__(self, collection: Collection, seconds: float) -> None:
        self._replicas = collection
        self._silent_ms = int(1000 * seconds)
        self._listened_at = time.monotonic() + seconds
        self._last_heard_ms: int | None = None

    async def prepare(self) -> None:
        """Create the indexes, and read when the last replica was heard before this process listened."""
        await ensure_index(self._replicas, [("ready.base_model", ASCENDING), ("ready.base_digest", ASCENDING)])
        await ensure_index(self._replicas, [("ready.replica_url", ASCENDING)])
        await ensure_index(self._replicas, [("heard_ms", ASCENDING)])
        last = await self._replicas.find_one({"heard_ms": {"$gt": 0}}, sort=[("heard_ms", DESCENDING)])
        self._last_heard_ms = int(last["heard_ms"]) if last else None

    async def heard(self, replica_id: str, base_model: str, base_digest: str) -> None:
        """A replica asked: it lives, and what it proved of another base than this one it holds no more.

        Args:
            replica_id: who asked.
            base_model: it asked for.
            base_digest: of that base as it lies there; empty from a replica of an earlier release.
        """
        other: list[Query] = [{"ready.base_model": {"$ne": base_model}}]
        if base_digest:
            other.append({"ready.base_digest": {"$ne": base_digest}})
        moved = {"_id": replica_id, "ready": {"$ne": None}, "$or": other}
        await self._replicas.update_one(moved, {"$set": {"ready": None}})
        await self._replicas.update_one({"_id": replica_id}, [{"$set": {"heard_ms": SERVER_MS}}], upsert=True)

    async def ready(self, said: ReplicaReady) -> None:
        """A replica proved its base; it holds no other any more.

        That it lives shows when it asks: an event may be handed over again long after its replica died. The dead go:
        those that had its address, and those that were silent very long.
        """
        own = {"_id": said.replica_id}
        # When it spoke comes first: a document without that is a dead one's, and goes with the next who speaks.
        await self._replicas.update_one(own, [{"$set": {"said_ms": SERVER_MS}}], upsert=True)
        await self._replicas.update_one(own, {"$set": {"ready": said.model_dump()}}, upsert=True)
        if time.monotonic() >= self._listened_at:
            here = {"_id": {"$ne": said.replica_id}, "ready.replica_url": said.replica_url}
            await self._replicas.delete_many({**here, **_before(self._silent_ms)})
            await self._replicas.delete_many(_before(1000 * FORGOTTEN_SECONDS))

    async def with_bases(self, bases: Iterable[Proven]) -> dict[Proven, list[ReplicaReady]]:
        """Of these bases, what the living replicas that proved them said of themselves.

        An address is its last replica's, the one that said so last. Where living ones proved several bases at one
        address, it cannot be told who answers there: nobody is routed to.
        """
        found: dict[Proven, list[ReplicaReady]] = {base: [] for base in bases}
        if not found:
            return found
        ids, digests = (sorted({base[part] for base in found}) for part in (0, 1))
        named = {"ready.base_model": {"$in": ids}, "ready.base_digest": {"$in": digests}}
        urls = {one["ready"]["replica_url"] async for one in self._replicas.find({**named, **self._living})}
        there = self._replicas.find({"ready.replica_url": {"$in": sorted(urls)}, **self._living})
        at: dict[str, list[ReplicaReady]] = {}
        for one in sorted([document async for document in there], key=lambda document: document.get("said_ms", 0)):
            at.setdefault(one["ready"]["replica_url"], []).append(ReplicaReady.model_validate(one["ready"]))
        for said in at.values():
            proven = {(one.base_model, one.base_digest) for one in said}
            if len(proven) == 1 and (base := proven.pop()) in found:
                found[base].append(said[-1])
        return found

    async def with_base(self, base_model: str, base_digest: str) -> list[ReplicaReady]:
        """Those of one base; see `with_bases`."""
        base = (base_model, base_digest)
        return (await self.with_bases([base]))[base]

    @property
    def _living(self) -> Query:
        """Those that were heard lately."""
        since: Query | int = {"$add": [SERVER_MS, -self._silent_ms]}
        if self._last_heard_ms is not None and time.monotonic() < self._listened_at:
            since = self._last_heard_ms - self._silent_ms
        return {"$expr": {"$lt": [since, "$heard_ms"]}}


def _before(ms: int) -> Query:
    """The condition for replicas of which nothing was heard for so long."""
    long_ago = {"$add": [SERVER_MS, -ms]}
    return {"$and": [{"$expr": {"$lt": ["$heard_ms", long_ago]}}, {"$expr": {"$lt": ["$said_ms", long_ago]}}]}
