"""Objects that nothing points at: counted, and removed where their owner's document says that nothing ever will."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from prometheus_client import Gauge

from stores.objects import Objects

log = structlog.get_logger()

FOUND = Gauge("orphan_objects", "Objects that the last sweep found no document to point at.", ["service", "folder"])

OWNERS_AT_ONCE = 500
SHOWN = 10


@dataclass(frozen=True)
class Orphans:
    """Keys that no document points at.

    Attributes:
        removable: of owners whose documents are in a state from which nothing can point at them any more.
        unknown: of owners without a document. The database may be an older copy than the objects: a person decides.
    """

    removable: list[str]
    unknown: list[str]


Judge = Callable[[str, Mapping[str, list[str]]], Awaitable[Orphans]]
"""Tells, of a tenant, the orphans among keys by owner."""


class OrphanSweep:
    """Looks through a service's objects, `tenants/{tenant}/{folder}/{owner}/...`.

    What was written of late is left alone: whoever wrote it may be about to point at it. The age is a wide margin and
    not the reason why a removal is safe; that is the owner's state.

    Args:
        objects: where they lie.
        service: whose they are.
        folders: by folder, who knows what its owners point at.
        every: seconds between sweeps.
        age: seconds for which an object is left alone.
    """

    def __init__(
        self, objects: Objects, service: str, folders: Mapping[str, Judge], *, every: float, age: float
    ) -> None:
        self._objects = objects
        self._service = service
        self._folders = folders
        self._every = every
        self._age = age

    async def run(self) -> None:
        """Sweep until cancelled; replicas that start together do not sweep together."""
        await asyncio.sleep(self._every * random.random())  # noqa: S311 - jitter
        while True:
            await self.sweep()
            await asyncio.sleep(self._every)

    async def sweep(self) -> None:
        """Look at every tenant once."""
        found = dict.fromkeys(self._folders, 0)
        for tenant_id in await self._objects.folders("tenants/"):
            for folder, judge in self._folders.items():
                found[folder] += await self._sweep(tenant_id, folder, judge)
        for folder, count in found.items():
            FOUND.labels(self._service, folder).set(count)

    async def _sweep(self, tenant_id: str, folder: str, judge: Judge) -> int:
        prefix, count = f"tenants/{tenant_id}/{folder}/", 0
        old = await self._objects.keys(prefix, before=datetime.now(UTC) - timedelta(seconds=self._age))
        owned: dict[str, list[str]] = defaultdict(list)
        for key in old:
            owned[key.removeprefix(prefix).split("/")[0]].append(key)
        owners = sorted(owned)
        for start in range(0, len(owners), OWNERS_AT_ONCE):
            batch = {owner: owned[owner] for owner in owners[start : start + OWNERS_AT_ONCE]}
            orphans = await judge(tenant_id, batch)
            count += len(orphans.removable) + len(orphans.unknown)
            for key in orphans.removable:
                await self._objects.delete(key)
            if orphans.removable:
                log.warning("orphans_removed", count=len(orphans.removable), keys=orphans.removable[:SHOWN])
            if orphans.unknown:
                log.warning("orphans_found", count=len(orphans.unknown), keys=orphans.unknown[:SHOWN])
        return count
