"""Keeps this replica's adapters in step with the registry: download, verify, prove, say so."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from prometheus_client import Gauge

from chassis.crash import crash_point
from chassis.errors import SartorError
from chassis.ids import derived_id
from chassis.peers import Peer
from chassis.private_folders import PrivateFolders
from model_server.adapters import AdapterRefused, Proof, verify
from schemas import (
    AdapterEvicted,
    AdapterLoadFailed,
    AdapterResident,
    Event,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    ObjectRef,
)
from schemas.artifacts import MANIFEST, AdapterManifest, BaseModelSpec
from schemas.http.registry import AdapterToLoad
from stores.objects import Objects

log = structlog.get_logger()

ADAPTERS = Gauge("model_server_adapters", "Adapters this replica should hold, by what became of them.", ["state"])

MOST_NAMED = 20
"""Adapters named in one line of the log."""

TOLD_AFTER = 3
"""Failures in a row of one adapter after which this replica says that it cannot load it now."""

LONGEST_PAUSE_SECONDS = 60.0
"""Longest wait before an adapter that could not be loaded is tried again; the first retry is at once."""

FINAL = (AdapterRefused, ValueError, LookupError, TypeError, AttributeError)
"""What an adapter's own files bring about, so that trying it again is pointless."""

LONGEST_REASON = 500

Publish = Callable[[Event], Awaitable[None]]


@dataclass
class Failing:
    """An adapter that could not be loaded when last tried.

    Attributes:
        times: how often in a row.
        reason: what went wrong last.
        permanent: the adapter itself is wrong for this replica; it is not tried again.
        again_at: when to try it again, on the monotonic clock.
        told: whether this was said, with the `permanent` it has now.
    """

    times: int = 0
    reason: str = ""
    permanent: bool = False
    again_at: float = 0.0
    told: bool = False

    @property
    def persists(self) -> bool:
        """Whether those who wait for the adapter should know."""
        return self.permanent or self.times >= TOLD_AFTER


class Holder(Protocol):
    """What holds adapters: our own engine, or a TGI container.

    Attributes:
        base: contents of its base model's `base.json`.
        proofs: of the adapters it serves, by id.
        used: when an adapter was last asked for, on the monotonic clock, as far as it knows.
        at_once: how many adapters it is best given at a time.
    """

    base: BaseModelSpec
    proofs: dict[str, Proof]
    used: dict[str, float]
    at_once: int

    @property
    def present(self) -> set[str]:
        """Ids of all adapters it has anything of, proven or not."""

    async def prepare(self, folders: Mapping[str, Path]) -> list[str]:
        """Make ready to hold these verified adapters (id -> folder); returns those that can be held now.

        The turn of the others comes with a later call.
        """

    async def hold(self, folder: Path) -> Proof:
        """Take the adapter in `folder`, prove it, and remember the proof under its id.

        Raises:
            AdapterRefused: it is not what it says, or was proven to be another one.
            Transient: it could not be tried; that says nothing about the adapter.
        """

    async def drop(self, adapter_id: str) -> None:
        """Let go of an adapter and its proof."""


class Residency:
    """Makes the adapters held equal to those wanted.

    The registry's list is the truth and is asked every few seconds; events only make that sooner. A replica that
    starts with nothing so comes back to what it must hold. An adapter that is refused stays refused until the replica
    starts again; after any other failure it is tried again, later each time.

    Args:
        holder: holds the adapters.
        registry: says which.
        objects: where their files lie.
        publish: sends an event and waits for the broker.
        replica_id: this replica's name.
        replica_url: where its API answers.
        every: seconds between two looks.
        capacity: most adapters held; of more, those that are awaited, the newest and the last used are.
    """

    def __init__(
        self,
        holder: Holder,
        registry: Peer,
        objects: Objects,
        publish: Publish,
        *,
        replica_id: str,
        replica_url: str,
        every: float,
        capacity: int,
    ) -> None:
        self._holder = holder
        self._registry = registry
        self._objects = objects
        self._publish = publish
        self._replica_id = replica_id
        self._replica_url = replica_url
        self._every = every
        self._capacity = capacity
        self._awake = asyncio.Event()
        self._folders = PrivateFolders(None, "model_server")
        self._closing = contextlib.ExitStack()
        self._fetched: Path | None = None
        self._known: dict[str, AdapterToLoad] = {}
        self._seen: dict[str, float] = {}
        self._failing: dict[str, Failing] = {}
        self._over: set[str] = set()
        self._told: dict[str, bool] = {}

    async def on_change(self, _event: ModelRegistered | ModelRejected | ModelRetired) -> None:
        """Something changed: look now."""
        self._awake.set()

    async def run(self) -> None:
        """Keep in step until cancelled."""
        while True:
            try:
                await self.synchronise()
            except SartorError as error:
                log.warning("registry_not_asked", error=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._awake.wait()
            self._awake.clear()

    async def close(self) -> None:
        """Remove what was downloaded and not held yet."""
        self._closing.close()

    async def synchronise(self) -> None:
        """One look: let go of what is not wanted any more, load what is missing, say what changed."""
        parameters = {"base_model": self._holder.base.id, "replica_id": self._replica_id}
        items = await self._registry.read(list[AdapterToLoad], "/internal/adapters", tenant_id="", params=parameters)
        wanted = {item.adapter_id: item for item in items}
        self._known |= wanted
        chosen = self._chosen(wanted)
        for adapter_id in self._holder.present - chosen:
            await self._holder.drop(adapter_id)
            crash_point("model_server.dropped")
        await self._say_changes()
        absent = chosen - set(self._holder.proofs)
        missing = [item for adapter_id, item in wanted.items() if adapter_id in absent and self._due(adapter_id)]
        for begin in range(0, len(missing), self._holder.at_once):
            await self._take(missing[begin : begin + self._holder.at_once])
            await self._say_changes()
        await self._say_absent(set(wanted) - chosen)
        await self._say_failing()
        for adapter_id in set(self._known) - set(wanted):
            self._forget(adapter_id)
        ADAPTERS.labels("resident").set(len(self._holder.proofs))
        ADAPTERS.labels("refused").set(sum(one.permanent for one in self._failing.values()))
        ADAPTERS.labels("failing").set(sum(one.persists and not one.permanent for one in self._failing.values()))
        ADAPTERS.labels("over_capacity").set(len(self._over))

    def _chosen(self, wanted: Mapping[str, AdapterToLoad]) -> set[str]:
        """As many of those wanted as there is room for.

        First those whose evaluation or promotion waits, as they would wait for ever: the oldest of them, which go on
        and make room. Then the newest here and those last used, and at last those that keep failing. One that does not
        fit is not served by this replica, and never by the base in its place.
        """
        now = time.monotonic()
        for adapter_id in wanted:
            self._seen.setdefault(adapter_id, now)
        refused = {adapter_id for adapter_id, one in self._failing.items() if one.permanent}
        failing = [adapter_id for adapter_id, one in self._failing.items() if one.persists and not one.permanent]
        oldest_first = [one for one in wanted if one not in refused and one not in failing]
        awaited = [one for one in oldest_first if wanted[one].awaited]
        recent = oldest_first[::-1]  # among those first seen together, the later ones are newer
        recent.sort(key=lambda one: max(self._seen[one], self._holder.used.get(one, 0.0)), reverse=True)
        able = list(dict.fromkeys([*awaited, *recent, *(one for one in failing if one in wanted)]))
        over = set(able[self._capacity :])
        if newly := sorted(over - self._over):
            log.warning("adapters_over_capacity", capacity=self._capacity, wanted=len(able), newly=newly[:MOST_NAMED])
        self._over = over
        return set(able[: self._capacity])

    async def _take(self, items: list[AdapterToLoad]) -> None:
        """Fetch, verify, hold and prove some adapters; each for itself."""
        verified: dict[str, Path] = {}
        for item in items:
            folder = self._folder(item.adapter_id)
            if await self._tried(item.adapter_id, self._verified(item, folder)):
                verified[item.adapter_id] = folder
        if not verified:
            return
        try:
            ready = await self._holder.prepare(verified)
        except Exception as error:  # the boundary of one look: a later one tries again
            for adapter_id in verified:
                await self._note_failure(adapter_id, error, may_be_final=False)
            return
        for adapter_id in ready:
            if await self._tried(adapter_id, self._holder.hold(verified[adapter_id])):
                self._failing.pop(adapter_id, None)
                crash_point("model_server.loaded")
                shutil.rmtree(verified[adapter_id], ignore_errors=True)

    async def _tried(self, adapter_id: str, work: Awaitable[Any]) -> bool:
        """Whether `work` on one adapter was done; if not, when and whether it is tried again is noted."""
        try:
            await work
        except Exception as error:  # the boundary of one adapter: whatever is wrong with it, the others are served
            await self._note_failure(adapter_id, error)
            return False
        return True

    async def _note_failure(self, adapter_id: str, error: Exception, *, may_be_final: bool = True) -> None:
        """What its files bring about is final; anything else may pass, and is tried again after a growing pause.

        Args:
            adapter_id: which could not be loaded.
            error: why.
            may_be_final: it came of this adapter alone.
        """
        failing = self._failing.setdefault(adapter_id, Failing())
        was_permanent = failing.permanent
        failing.times, failing.reason = failing.times + 1, _reason(error)
        failing.permanent = may_be_final and isinstance(error, FINAL)
        failing.told = failing.told and failing.permanent == was_permanent
        detail = f"{type(error).__name__}: {error}"
        if failing.permanent:
            log.error("adapter_refused", adapter_id=adapter_id, error=detail)
            shutil.rmtree(self._folder(adapter_id), ignore_errors=True)
            await self._holder.drop(adapter_id)
            return
        pause = min(2.0 ** (failing.times - 2), LONGEST_PAUSE_SECONDS) if failing.times > 1 else 0.0
        failing.again_at = time.monotonic() + pause
        log.warning("adapter_waits", adapter_id=adapter_id, error=detail, times=failing.times, seconds=round(pause))

    def _due(self, adapter_id: str) -> bool:
        failing = self._failing.get(adapter_id)
        return failing is None or time.monotonic() >= failing.again_at

    def _folder(self, adapter_id: str) -> Path:
        """Where its files are kept from the download until it is held."""
        if self._fetched is None:
            self._folders.sweep()
            self._fetched = self._closing.enter_context(self._folders.folder("adapters"))
        return self._fetched / derived_id("", adapter_id)

    async def _verified(self, item: AdapterToLoad, folder: Path) -> None:
        """Have the adapter's files in `folder`, as its manifest and the registry describe them."""
        if not (folder / MANIFEST).exists():
            await self._fetch(item.manifest, folder)
            crash_point("model_server.fetched")
        base = self._holder.base
        found = await asyncio.to_thread(verify, folder, base_id=base.id, base_digest=base.digest)
        if found != item.adapter_id:
            raise AdapterRefused(f"{item.adapter_id}: the manifest is that of {found}.")

    async def _fetch(self, manifest: ObjectRef, folder: Path) -> None:
        body = await self._objects.get_bytes(manifest)
        prefix = manifest.key.rsplit("/", 1)[0]
        for name, facts in AdapterManifest.model_validate_json(body).files.items():
            ref = ObjectRef(bucket=manifest.bucket, key=f"{prefix}/{name}", sha256=facts.sha256, size=facts.size)
            await self._objects.download(ref, folder / Path(name).name)
        folder.mkdir(exist_ok=True)
        draft = folder / f".{MANIFEST}"
        draft.write_bytes(body)  # a full disk leaves half of it
        draft.rename(folder / MANIFEST)

    async def _say_changes(self) -> None:
        for adapter_id, item in list(self._known.items()):
            held = adapter_id in self._holder.proofs
            if held != self._told.get(adapter_id, False):
                await self._publish(self._resident(item) if held else self._evicted(item))
                crash_point("model_server.told")
                self._told[adapter_id] = held
                log.info("adapter_resident" if held else "adapter_evicted", adapter_id=adapter_id)

    async def _say_failing(self) -> None:
        """Say of each adapter once that it cannot be loaded now, once that it never will: its model waits for it."""
        for adapter_id, failing in self._failing.items():
            if failing.persists and not failing.told and (item := self._known.get(adapter_id)):
                await self._publish(self._load_failed(item, failing))
                failing.told = True

    async def _say_absent(self, unheld: set[str]) -> None:
        """Say once of what is wanted and not held here that it is not: an earlier life may have held it."""
        for adapter_id in unheld - set(self._told):
            await self._publish(self._evicted(self._known[adapter_id]))
            self._told[adapter_id] = False

    def _resident(self, item: AdapterToLoad) -> AdapterResident:
        proof = self._holder.proofs[item.adapter_id]
        return AdapterResident(
            tenant_id=item.tenant_id,
            adapter_id=item.adapter_id,
            model_id=item.model_id,
            replica_id=self._replica_id,
            replica_url=self._replica_url,
            fingerprint_delta=proof.fingerprint_delta,
            base_delta=proof.base_delta,
        )

    def _load_failed(self, item: AdapterToLoad, failing: Failing) -> AdapterLoadFailed:
        return AdapterLoadFailed(
            tenant_id=item.tenant_id,
            adapter_id=item.adapter_id,
            model_id=item.model_id,
            replica_id=self._replica_id,
            replica_url=self._replica_url,
            permanent=failing.permanent,
            reason=failing.reason,
        )

    def _evicted(self, item: AdapterToLoad) -> AdapterEvicted:
        return AdapterEvicted(tenant_id=item.tenant_id, adapter_id=item.adapter_id, replica_id=self._replica_id)

    def _forget(self, adapter_id: str) -> None:
        shutil.rmtree(self._folder(adapter_id), ignore_errors=True)
        for memory in (self._known, self._seen, self._told, self._failing):
            memory.pop(adapter_id, None)


def _reason(error: Exception) -> str:
    """Why an adapter could not be loaded, for its owner: any other error may name folders and hosts."""
    if isinstance(error, SartorError):
        return error.message[:LONGEST_REASON]
    if isinstance(error, AdapterRefused):
        return str(error)[:LONGEST_REASON]
    return f"The replica could not load it ({type(error).__name__})."
