"""Keeps this replica's adapters in step with the registry: download, verify, prove, say so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import structlog

from chassis.auth import Peer
from chassis.errors import SartorError
from model_server.adapters import AdapterRefused, Proof
from schemas import AdapterEvicted, AdapterResident, Event, ModelRegistered, ModelRejected, ModelRetired, ObjectRef
from stores.objects import Objects

log = structlog.get_logger()

Publish = Callable[[Event], Awaitable[None]]


class Holder(Protocol):
    """What holds adapters: our own engine, or a TGI container."""

    base_id: str
    proofs: dict[str, Proof]

    async def hold(self, folder: Path) -> Proof:
        """Take the adapter in `folder`, prove it, and remember the proof under its id.

        Raises:
            AdapterRefused: it is not what it says, or could not be proven.
        """

    async def drop(self, adapter_id: str) -> None:
        """Let go of an adapter and its proof."""


class Residency:
    """Makes the adapters held equal to those wanted.

    The registry's list is the truth and is asked every few seconds; events only make that sooner. A replica that
    starts with nothing so comes back to what it must hold.

    Args:
        holder: holds the adapters.
        registry: says which.
        objects: where their files lie.
        publish: sends an event and waits for the broker.
        replica_id: this replica's name.
        replica_url: where its API answers.
        every: seconds between two looks.
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
    ) -> None:
        self._holder = holder
        self._registry = registry
        self._objects = objects
        self._publish = publish
        self._replica_id = replica_id
        self._replica_url = replica_url
        self._every = every
        self._awake = asyncio.Event()
        self._refused: set[str] = set()
        self._told: set[str] = set()
        self._tenants: dict[str, str] = {}

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

    async def synchronise(self) -> None:
        """One look: load what is missing, let go of what is not wanted any more."""
        parameters = {"base_model": self._holder.base_id, "replica_id": self._replica_id}
        wanted: list[dict[str, Any]] = await self._registry.get("/internal/adapters", tenant_id="", params=parameters)
        self._tenants |= {item["adapter_id"]: item["tenant_id"] for item in wanted}
        for item in wanted:
            if item["adapter_id"] not in self._told and item["adapter_id"] not in self._refused:
                await self._hold(item)
        for adapter_id in set(self._holder.proofs) - {item["adapter_id"] for item in wanted}:
            await self._holder.drop(adapter_id)
            self._told.discard(adapter_id)
            tenant_id = self._tenants.pop(adapter_id, "")
            evicted = AdapterEvicted(tenant_id=tenant_id, adapter_id=adapter_id, replica_id=self._replica_id)
            await self._publish(evicted)
            log.info("adapter_evicted", adapter_id=adapter_id)

    async def _hold(self, item: dict[str, Any]) -> None:
        """Load, prove and announce one adapter; a refused one is not tried again until this replica restarts."""
        adapter_id = item["adapter_id"]
        try:
            if adapter_id not in self._holder.proofs:
                with tempfile.TemporaryDirectory(prefix="adapter-") as folder:
                    await self._fetch(ObjectRef.model_validate(item["manifest"]), Path(folder))
                    held = await self._holder.hold(Path(folder))
                    if held.adapter_id != adapter_id:
                        await self._holder.drop(held.adapter_id)
                        raise AdapterRefused(f"{adapter_id}: the manifest is that of {held.adapter_id}.")
        except AdapterRefused as error:
            self._refused.add(adapter_id)
            log.error("adapter_refused", adapter_id=adapter_id, reason=str(error))
            return
        except SartorError as error:
            log.warning("adapter_not_fetched", adapter_id=adapter_id, error=error.message)
            return
        proof = self._holder.proofs[adapter_id]
        await self._publish(
            AdapterResident(
                tenant_id=item["tenant_id"],
                adapter_id=adapter_id,
                model_id=item["model_id"],
                replica_id=self._replica_id,
                replica_url=self._replica_url,
                fingerprint_delta=proof.fingerprint_delta,
                base_delta=proof.base_delta,
            )
        )
        self._told.add(adapter_id)
        log.info("adapter_resident", adapter_id=adapter_id, fingerprint_delta=proof.fingerprint_delta)

    async def _fetch(self, manifest: ObjectRef, folder: Path) -> None:
        body = await self._objects.get_bytes(manifest)
        prefix = manifest.key.rsplit("/", 1)[0]
        for name, facts in json.loads(body)["files"].items():
            ref = ObjectRef(bucket=manifest.bucket, key=f"{prefix}/{name}", sha256=facts["sha256"], size=facts["size"])
            await self._objects.download(ref, folder / Path(name).name)
        (folder / "manifest.json").write_bytes(body)
