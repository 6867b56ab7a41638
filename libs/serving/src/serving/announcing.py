"""What a replica says of its base model and adapters, without an outbox, as it says again what is not believed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from chassis.crash import crash_point
from schemas import AdapterEvicted, AdapterLoadFailed, AdapterResident, Event, ReplicaReady
from schemas.http.registry import AdapterToLoad
from serving.attestation import Proof
from serving.failures import Failure
from serving.host import AdapterHost

log = structlog.get_logger()

Publish = Callable[[Event], Awaitable[None]]

AGAIN_SECONDS = 60.0
"""How long after a fact was said it is said again: the base always, an adapter where the registry tells otherwise."""


@dataclass(frozen=True)
class Announced:
    """What was said last of an adapter, and when, on the monotonic clock."""

    resident: bool
    at: float


class Announcements:
    """Says which base is held and what became of each adapter; what the broker did not take is said later.

    Args:
        publish: sends an event and waits for the broker.
        replica_id: this replica's name.
        replica_url: where its engine answers.
    """

    def __init__(self, publish: Publish, replica_id: str, replica_url: str) -> None:
        self._publish = publish
        self._replica_id = replica_id
        self._replica_url = replica_url
        self._said: dict[str, Announced] = {}
        self._ready_at = float("-inf")

    async def say_ready(self, host: AdapterHost) -> None:
        """Say which base model is held; again every minute, as who heard it may have lost it."""
        if time.monotonic() < self._ready_at + AGAIN_SECONDS:
            return
        await self._publish(
            ReplicaReady(
                tenant_id="",
                replica_id=self._replica_id,
                replica_url=self._replica_url,
                engine=host.engine,
                base_model=host.base.id,
                base_digest=host.base.digest,
                capabilities=list(host.capabilities),
            )
        )
        self._ready_at = time.monotonic()
        log.info("replica_ready", base_model=host.base.id, base_digest=host.base.digest)

    async def say(self, item: AdapterToLoad, proof: Proof | None) -> None:
        """Say that the adapter is resident, or is no longer, unless that was said last and is believed.

        Args:
            item: the adapter, and whether the registry took it for resident when it was asked.
            proof: that it is resident.
        """
        resident, last = proof is not None, self._said.get(item.adapter_id)
        if last is None and not (resident or item.resident):
            return
        believed = item.resident == resident or (last and time.monotonic() < last.at + AGAIN_SECONDS)
        if last and last.resident == resident and believed:
            return
        await self._publish(self._evicted(item) if proof is None else self._resident(item, proof))
        crash_point("residency.told")
        self._said[item.adapter_id] = Announced(resident, time.monotonic())
        log.info("adapter_resident" if resident else "adapter_evicted", adapter_id=item.adapter_id)

    async def say_failure(self, item: AdapterToLoad, failure: Failure) -> None:
        """Say once that an adapter, for which its model waits, cannot be loaded now or ever."""
        if failure.persists and not failure.told:
            await self._publish(self._load_failed(item, failure))
            failure.told = True

    def forget(self, adapter_id: str) -> None:
        """The adapter is not wanted any more."""
        self._said.pop(adapter_id, None)

    def _resident(self, item: AdapterToLoad, proof: Proof) -> AdapterResident:
        return AdapterResident(
            tenant_id=item.tenant_id,
            adapter_id=item.adapter_id,
            model_id=item.model_id,
            replica_id=self._replica_id,
            replica_url=self._replica_url,
            fingerprint_delta=proof.fingerprint_delta,
            base_delta=proof.base_delta,
        )

    def _load_failed(self, item: AdapterToLoad, failure: Failure) -> AdapterLoadFailed:
        return AdapterLoadFailed(
            tenant_id=item.tenant_id,
            adapter_id=item.adapter_id,
            model_id=item.model_id,
            replica_id=self._replica_id,
            replica_url=self._replica_url,
            permanent=failure.permanent,
            reason=failure.reason,
        )

    def _evicted(self, item: AdapterToLoad) -> AdapterEvicted:
        return AdapterEvicted(tenant_id=item.tenant_id, adapter_id=item.adapter_id, replica_id=self._replica_id)
