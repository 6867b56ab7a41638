"""What is published, read and delivered: the rules, and the only functions that change what is kept."""

from event_gateway.domain.received import Received, Refused, Sent, checked_data, digest_of
from event_gateway.domain.visible import VISIBLE, CloudEvent, cloudevent_of, readable_types
from event_gateway.domain.webhooks import (
    Delivery,
    Endpoint,
    Outcome,
    known_types,
    new_secret,
    sample_event,
    webhook_body,
)

__all__ = [
    "VISIBLE",
    "CloudEvent",
    "Delivery",
    "Endpoint",
    "Outcome",
    "Received",
    "Refused",
    "Sent",
    "checked_data",
    "cloudevent_of",
    "digest_of",
    "known_types",
    "new_secret",
    "readable_types",
    "sample_event",
    "webhook_body",
]
