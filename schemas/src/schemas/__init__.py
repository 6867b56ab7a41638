"""The public contract: events, their envelope, and the topics they travel on."""

from schemas import events
from schemas.datasets import CarriesDataset, DatasetRef
from schemas.envelope import Envelope, Event, MalformedEvent, parse, read_envelope, to_message
from schemas.events import *  # noqa: F403 - its `__all__` is made from its files
from schemas.outside import BATCH, PUBLISHABLE, STRUCTURED, cloudevent
from schemas.refs import FEWEST_TRAINING_ROWS, Interval, ObjectRef, Purpose, RowCounts, Task, Usage
from schemas.topics import EVENTS, TOPICS, Topic
from schemas.webhooks import OPENAI_NAMES, WebhookRefused, signed_headers, verified

__all__ = [
    "BATCH",
    "EVENTS",
    "FEWEST_TRAINING_ROWS",
    "OPENAI_NAMES",
    "PUBLISHABLE",
    "STRUCTURED",
    "TOPICS",
    "CarriesDataset",
    "DatasetRef",
    "Envelope",
    "Event",
    "Interval",
    "MalformedEvent",
    "ObjectRef",
    "Purpose",
    "RowCounts",
    "Task",
    "Topic",
    "Usage",
    "WebhookRefused",
    "cloudevent",
    "parse",
    "read_envelope",
    "signed_headers",
    "to_message",
    "verified",
]
__all__ += events.__all__
