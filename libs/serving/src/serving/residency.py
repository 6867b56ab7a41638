"""Keeps this replica's adapters in step with the registry: download, verify, prove, say so."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client import Gauge

from chassis.crash import crash_point
from chassis.errors import SartorError, Transient
from chassis.peers import Peer
from schemas import ModelRegistered, ModelRejected, ModelRetired
from schemas.http.registry import AdapterToLoad
from serving.announcing import Announcements, Publish
from serving.downloads import Downloads
from serving.failures import Failures
from serving.host import AdapterHost

log = structlog.get_logger()

ADAPTERS = Gauge("replica_adapters", "Adapters this replica should hold, by what became of them.", ["state"])

MOST_NAMED = 20
"""Adapters named in one line of the log."""

T = TypeVar("T")


class Residency:
    """Makes the adapters held equal to those wanted.

    The registry's list is the truth and is asked every few seconds; events only make that sooner. A replica that
    starts with nothing so comes back to what it must hold. An adapter that is refused stays refused until the replica
    starts again; after any other failure it is tried again, later each time. A replica that cannot prove its base
    asks for nothing, so that the registry takes it for silent and nobody is routed to it. One whose engine cannot echo
    is not routed to before the registry knows what an earlier life of it held and this one does not.

    Args:
        host: holds the adapters.
        registry: says which.
        downloads: fetches their files.
        publish: sends an event and waits for the broker.
        replica_id: this replica's name.
        replica_url: where its engine answers.
        every: seconds between two looks.
        capacity: most adapters held; of more, those that are awaited, the newest and the last used are.
    """

    def __init__(
        self,
        host: AdapterHost,
        registry: Peer,
        downloads: Downloads,
        publish: Publish,
        *,
        replica_id: str,
        replica_url: str,
        every: float,
        capacity: int,
    ) -> None:
        self._host = host
        self._registry = registry
        self._downloads = downloads
        self._announcements = Announcements(publish, replica_id, replica_url)
        self._replica_id = replica_id
        self._every = every
        self._capacity = capacity
        self._awake = asyncio.Event()
        self._known: dict[str, AdapterToLoad] = {}
        self._seen: dict[str, float] = {}
        self._failures = Failures()
        self._over: set[str] = set()
        self._may_live = "echo" in host.capabilities
        self._broker_away = False

    async def on_change(self, _event: ModelRegistered | ModelRejected | ModelRetired) -> None:
        """Something changed: look now."""
        self._awake.set()

    async def run(self) -> None:
        """Keep in step until cancelled."""
        while True:
            try:
                await self.synchronise()
            except SartorError as error:
                log.warning("not_in_step", error=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._awake.wait()
            self._awake.clear()

    async def close(self) -> None:
        """Remove what was downloaded and not loaded yet."""
        self._downloads.close()

    async def synchronise(self) -> None:
        """Look once: announce the base, unload what nobody wants any more, load what is missing, and announce that."""
        await self._host.attest()
        self._broker_away = False
        await self._say()
        if not self._may_live:
            self._may_live = await self._nothing_is_lost()
            if not self._may_live:
                return
        wanted = await self._wanted()
        chosen = self._chosen(wanted)
        for adapter_id in self._host.held - chosen:
            await self._host.unload(adapter_id)
            crash_point("residency.unloaded")
        await self._say()
        due = {one for one in chosen - set(self._host.proofs) if self._failures.due(one)}
        missing = [item for adapter_id, item in wanted.items() if adapter_id in due]
        for begin in range(0, len(missing), self._host.at_once):
            await self._take(missing[begin : begin + self._host.at_once])
            await self._say()
        if not self._broker_away:
            for adapter_id in set(self._known) - set(wanted):
                self._forget(adapter_id)
        self._measure()

    async def _nothing_is_lost(self) -> bool:
        """Whether the registry takes nothing for held here that is not; what it does so is said to be evicted."""
        wanted = await self._wanted()
        lost = [item for adapter_id, item in wanted.items() if item.resident and adapter_id not in self._host.proofs]
        await self._say()
        return not lost

    async def _wanted(self) -> dict[str, AdapterToLoad]:
        """The adapters that this replica must hold. Whoever asks is known to live, and may be routed to."""
        base = {"base_model": self._host.base.id, "base_digest": self._host.base.digest}
        asked = {**base, "replica_id": self._replica_id, "lives": self._may_live}
        items = await self._registry.read(list[AdapterToLoad], "/internal/adapters", tenant_id="", params=asked)
        wanted = {item.adapter_id: item for item in items}
        self._known |= wanted
        return wanted

    def _chosen(self, wanted: Mapping[str, AdapterToLoad]) -> set[str]:
        """As many of those wanted as there is room for.

        First those whose evaluation or promotion waits, as they would wait for ever: the oldest of them, which go on
        and make room. Then the newest here and those last used, and at last those that keep failing. One that does not
        fit is not served by this replica, and never by the base in its place.
        """
        now = time.monotonic()
        for adapter_id in wanted:
            self._seen.setdefault(adapter_id, now)
        refused, failing = self._failures.refused, self._failures.failing
        oldest_first = [one for one in wanted if one not in refused and one not in failing]
        awaited = [one for one in oldest_first if wanted[one].awaited]
        recent = oldest_first[::-1]  # among those first seen together, the later ones are newer
        recent.sort(key=lambda one: max(self._seen[one], self._host.used.get(one, 0.0)), reverse=True)
        able = list(dict.fromkeys([*awaited, *recent, *(one for one in failing if one in wanted)]))
        over = set(able[self._capacity :])
        if newly := sorted(over - self._over):
            log.warning("adapters_over_capacity", capacity=self._capacity, wanted=len(able), newly=newly[:MOST_NAMED])
        self._over = over
        return set(able[: self._capacity])

    async def _take(self, items: list[AdapterToLoad]) -> None:
        """Fetch, verify, load and prove some adapters; each for itself."""
        folders: dict[str, Path] = {}
        for item in items:
            if folder := await self._tried(item.adapter_id, self._downloads.verified(item, self._host.base)):
                folders[item.adapter_id] = folder
        if not folders:
            return
        try:
            ready = await self._host.prepare(folders)
        except Exception as error:  # the boundary of one look: a later one tries again
            for adapter_id in folders:
                self._failures.note(adapter_id, error, may_be_final=False)
            return
        for adapter_id in ready:
            if await self._tried(adapter_id, self._host.load(folders[adapter_id])):
                self._failures.pop(adapter_id, None)
                crash_point("residency.loaded")
                self._downloads.discard(adapter_id)

    async def _tried(self, adapter_id: str, work: Awaitable[T]) -> T | None:
        """What `work` on one adapter came to; None if it failed, which is noted for when it is tried again."""
        try:
            return await work
        except Exception as error:  # the boundary of one adapter: whatever is wrong with it, the others are served
            if self._failures.note(adapter_id, error, may_be_final=True).permanent:
                self._downloads.discard(adapter_id)
                await self._host.unload(adapter_id)
            return None

    async def _say(self) -> None:
        """Announce what is not announced yet. What the broker does not take waits for a later look."""
        if self._broker_away:
            return
        try:
            await self._announcements.say_ready(self._host)
            for adapter_id, item in self._known.items():
                await self._announcements.say(item, self._host.proofs.get(adapter_id))
            for adapter_id, failure in self._failures.items():
                if failed := self._known.get(adapter_id):
                    await self._announcements.say_failure(failed, failure)
        except Transient as error:
            log.warning("not_said_yet", error=error.message)
            self._broker_away = True

    def _forget(self, adapter_id: str) -> None:
        self._downloads.discard(adapter_id)
        self._announcements.forget(adapter_id)
        self._known.pop(adapter_id, None)
        self._seen.pop(adapter_id, None)
        self._failures.pop(adapter_id, None)

    def _measure(self) -> None:
        ADAPTERS.labels("resident").set(len(self._host.proofs))
        ADAPTERS.labels("refused").set(len(self._failures.refused))
        ADAPTERS.labels("failing").set(len(self._failures.failing))
        ADAPTERS.labels("over_capacity").set(len(self._over))
