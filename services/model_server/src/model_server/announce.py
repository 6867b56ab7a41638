"""Says what is resident; a fact that is said again at every start, so it needs no outbox."""

from __future__ import annotations

from chassis.ids import new_id
from eventbus.bus import Bus
from model_server.residency import Publish
from schemas import Envelope, Event
from schemas.envelope import utc_now


def announcer(bus: Bus) -> Publish:
    """A function that publishes an event and waits for the broker."""

    async def publish(event: Event) -> None:
        envelope = Envelope(
            id=new_id("evt_"),
            source="/sartor/model_server",
            type=event.type,
            time=utc_now(),
            subject=event.aggregate_id,
            seq=1,
            tenantid=event.tenant_id,
        )
        await bus.publish(event.topic, envelope, event.model_dump(mode="json"))

    return publish
