"""The topic catalogue: what each topic carries, who writes it and who reads it. A test holds it against the code."""

from __future__ import annotations

from dataclasses import dataclass

from schemas import events
from schemas.envelope import Event
from schemas.services import SERVICES


@dataclass(frozen=True)
class Topic:
    """One topic: the events of one aggregate, keyed by its id.

    Attributes:
        name: without prefix.
        about: one sentence.
        partitions: upper bound of useful consumers per group.
        producers: the services that write it: one for each of its streams.
        consumers: the services that read it.
    """

    name: str
    about: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitions: int = 3

    @property
    def events(self) -> tuple[type[Event], ...]:
        """The types it carries, in the order of their file."""
        return tuple(event for event in EVENTS.values() if event.topic == self.name)

    @property
    def dead_letters(self) -> str:
        """The topic for messages that could not be handled."""
        return f"{self.name}-dlq"


EVERY_HTTP_SERVICE = tuple(sorted(SERVICES.keys() - {"accounts"}))

LOG = "event_gateway"
"""Publishes what services outside say, and keeps what tenants may read of all events."""

EVENTS: dict[str, type[Event]] = {
    event.type: event for event in Event.__subclasses__() if event.__module__.startswith(f"{events.__name__}.")
}
"""Every event by its type; each names its topic."""

TOPICS: tuple[Topic, ...] = (
    Topic(
        "accounts",
        "Tenants, their policies, and keys that end.",
        ("accounts",),
        EVERY_HTTP_SERVICE,
    ),
    Topic(
        "files",
        "Uploads.",
        ("ingest",),
        (LOG, "labeling", "rag_indexer", "trainer"),
    ),
    Topic(
        "datasets",
        "Dataset versions, or why a file did not become one.",
        ("ingest",),
        (LOG, "evaluator", "registry", "trainer"),
    ),
    Topic(
        "documents",
        "Text documents to retrieve from, or to learn.",
        ("ingest",),
        ("rag_indexer", "trainer"),
    ),
    Topic("indexes", "Documents that can be searched.", ("rag_indexer",), (LOG,)),
    Topic("labeling", "Rows that need answers from people.", ("ingest",), (LOG, "labeling", "trainer")),
    Topic(
        "labels",
        "Answers people gave.",
        ("labeling",),
        (LOG, "ingest"),
    ),
    Topic(
        "finetunes",
        "Training jobs.",
        ("trainer",),
        (LOG, "ingest", "registry"),
    ),
    Topic(
        "models",
        "Model versions and what the gate decided.",
        ("registry",),
        (LOG, "evaluator", "inference_proxy", "ingest", "model_server", "serving_agent", "trainer"),
    ),
    Topic(
        "adapters",
        "Which replica holds which adapter, proved.",
        ("model_server", "serving_agent"),
        ("inference_proxy", "registry"),
    ),
    Topic(
        "replicas",
        "Which replica answers with which base model, proved.",
        ("model_server", "serving_agent"),
        ("inference_proxy", "registry"),
    ),
    Topic(
        "evaluations",
        "Evidence about candidates.",
        ("evaluator",),
        (LOG, "ingest", "registry"),
    ),
    Topic("chats", "Answers given: counts and lineage.", ("inference_proxy",), ()),
    Topic(
        "feedback",
        "Ratings.",
        ("inference_proxy", LOG),
        (LOG, "labeling"),
    ),
    Topic("drift", "What is asked of a model has changed.", (LOG,), (LOG,)),
)

BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}
