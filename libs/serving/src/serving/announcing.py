"""What a replica says of its base model and adapters; each fact is said again at every start, so it needs no outbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from chassis.crash import crash_point
from eventbus.bus import Bus
from eventbus.envelopes import envelope_of
from schemas import AdapterEvicted, AdapterLoadFailed, AdapterResident, Event, ReplicaReady
from schemas.http.registry import AdapterToLoad
from serving.attestation import Proof
from serving.failures import Failure
from serving.host import AdapterHost

log = structlog.get_logger()

Publish = Callable[[Event], Awaitable[None]]


def announcer(bus: Bus, service: str) -> Publish:
    """A function that publishes an event of this service and waits for the broker."""

    async def publish(event: Event) -> None:
        await bus.publish(event.topic, envelope_of(event, service), event.model_dump(mode="json"))

    return publish


class Announcements:
    """Says which base is held and what became of each adapter, once; what the broker did not take is said later.

    Args:
        publish: sends an event and waits for the broker.
        replica_id: this replica's name.
        replica_url: where its engine answers.
    """

    def __init__(self, publish: Publish, replica_id: str, replica_url: str) -> None:
        self._publish = publish
        self._replica_id = replica_id
        self._replica_url = replica_url
        self._said: dict[str, bool] = {}
        self._ready_said = False

    async def say_ready(self, host: AdapterHost) -> None:
        """Say which base model is held, once."""
        if self._ready_said:
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
        self._ready_said = True
        log.info("replica_ready", base_model=host.base.id, base_digest=host.base.digest)

    async def say(self, item: AdapterToLoad, proof: Proof | None) -> None:
        """Say that the adapter is resident, or is no longer, unless that was said last.

        Args:
            item: the adapter.
            proof: that it is resident.
        """
        resident = proof is not None
        if resident == self._said.get(item.adapter_id, False):
            return
        await self._publish(self._evicted(item) if proof is None else self._resident(item, proof))
        crash_point("residency.told")
        self._said[item.adapter_id] = resident
        log.info("adapter_resident" if resident else "adapter_evicted", adapter_id=item.adapter_id)

    async def say_absent(self, item: AdapterToLoad) -> None:
        """Say that an adapter is not resident of which this life has said nothing: an earlier one may have held it."""
        if item.adapter_id not in self._said:
            await self._publish(self._evicted(item))
            self._said[item.adapter_id] = False

    async def say_failure(self, item: AdapterToLoad, failure: Failure) -> None:
        """Say that the adapter cannot be loaded now, or never will be, unless that was said; its model waits for it."""
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
