"""The envelope of an event that is said now."""

from __future__ import annotations

from chassis.clock import utc_now
from chassis.ids import new_id
from schemas import Envelope, Event


def envelope_of(
    event: Event, service: str, *, seq: int = 1, origin: str = "", correlationid: str = "", causationid: str = ""
) -> Envelope:
    """A new envelope for an event.

    Args:
        event: what is said.
        service: who says it.
        seq: its number in its stream; 1 for a fact that nobody stores and counts.
        origin: the aggregate that counts `seq`.
        correlationid: the request this follows from.
        causationid: the event this follows from.
    """
    return Envelope(
        id=new_id("evt_"),
        source=f"/sartor/{service}",
        type=event.type,
        time=utc_now(),
        subject=event.aggregate_id,
        seq=seq,
        tenantid=event.tenant_id,
        origin=origin,
        correlationid=correlationid,
        causationid=causationid,
    )
