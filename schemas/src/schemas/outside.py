"""What services that are none of ours need to publish events over HTTP: which there are, and how one is written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from schemas.envelope import Event
from schemas.events import DriftDetected, FeedbackRecorded

STRUCTURED = "application/cloudevents+json"
"""Content type of one event as JSON."""

BATCH = "application/cloudevents-batch+json"
"""Content type of a list of events as JSON."""

PUBLISHABLE: dict[str, type[Event]] = {event.type: event for event in (FeedbackRecorded, DriftDetected)}
"""The types that services outside may publish: none moves a model, a right or a bill."""


def cloudevent(
    event_type: str, data: Mapping[str, JsonValue], *, event_id: str, source: str, time: datetime | None = None
) -> dict[str, JsonValue]:
    """An event in CloudEvents 1.0's JSON form, as `POST /v1/events` takes it.

    The tenant is left out: it is that of the API key.

    Args:
        event_type: one of `PUBLISHABLE`, for example `feedback.recorded.v1`.
        data: the payload, as `schemas/json` describes it, without `tenant_id` and `producer`.
        event_id: unique within `source`; the same again is the same event.
        source: a URI or path that names the sender.
        time: when it happened, with a zone.

    Raises:
        ValueError: no service outside may publish this type, or the time has no zone.
    """
    if event_type not in PUBLISHABLE:
        raise ValueError(f"{event_type}: services outside publish {', '.join(PUBLISHABLE)}.")
    if time is not None and time.tzinfo is None:
        raise ValueError("time: say in which zone.")
    when = {"time": time.isoformat()} if time else {}
    attributes = {"specversion": "1.0", "id": event_id, "source": source, "type": event_type, **when}
    return {**attributes, "datacontenttype": "application/json", "data": dict(data)}
