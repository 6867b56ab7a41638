"""The topic catalogue: what each topic carries, who writes it and who reads it. A test holds it against the code."""

from __future__ import annotations

from dataclasses import dataclass

from schemas import deletions, drift, events, keys
from schemas.envelope import Event


@dataclass(frozen=True)
class Topic:
    """One topic: the events of one aggregate, keyed by its id.

    Attributes:
        name: without prefix.
        about: one sentence.
        partitions: upper bound of useful consumers per group.
        events: the types it carries.
        producers: the services that write it: one for each of its streams.
        consumers: the services that read it.
    """

    name: str
    about: str
    events: tuple[type[Event], ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitions: int = 3

    @property
    def dead_letters(self) -> str:
        """The topic for messages that could not be handled."""
        return f"{self.name}-dlq"


EVERY_HTTP_SERVICE = (
    "console",
    "evaluator",
    "event_gateway",
    "inference_proxy",
    "ingest",
    "labeling",
    "model_server",
    "rag_indexer",
    "registry",
    "trainer",
)

LOG = "event_gateway"
"""Publishes what services outside say, and keeps what tenants may read of all events."""

TOPICS: tuple[Topic, ...] = (
    Topic(
        "accounts",
        "Tenants, their policies, and keys that end.",
        (events.TenantCreated, events.TenantPolicyChanged, keys.KeyRevoked, keys.KeyRotated),
        ("accounts",),
        EVERY_HTTP_SERVICE,
    ),
    Topic(
        "files",
        "Uploads.",
        (events.FileUploaded, deletions.FileDeleted),
        ("ingest",),
        (LOG, "labeling", "rag_indexer"),
    ),
    Topic(
        "datasets",
        "Dataset versions, or why a file did not become one.",
        (events.DatasetPrepared, events.DatasetRejected, deletions.DatasetDeleted),
        ("ingest",),
        (LOG, "evaluator", "registry", "trainer"),
    ),
    Topic(
        "documents",
        "Text documents to retrieve from.",
        (events.DocumentParsed,),
        ("ingest",),
        ("rag_indexer",),
    ),
    Topic("indexes", "Documents that can be searched.", (events.DocumentIndexed,), ("rag_indexer",), (LOG,)),
    Topic(
        "labeling", "Rows that need answers from people.", (events.LabelingRequested,), ("ingest",), (LOG, "labeling")
    ),
    Topic(
        "labels",
        "Answers people gave.",
        (events.LabelsPublished, deletions.LabelsDeleted),
        ("labeling",),
        (LOG, "ingest"),
    ),
    Topic(
        "finetunes",
        "Training jobs.",
        (
            events.FinetuneRequested,
            events.FinetuneStarted,
            events.FinetuneTrained,
            events.FinetuneSucceeded,
            events.FinetuneFailed,
            events.FinetuneCancelled,
            deletions.FinetuneAdapterDeleted,
        ),
        ("trainer",),
        (LOG, "ingest", "registry"),
    ),
    Topic(
        "models",
        "Model versions and what the gate decided.",
        (
            events.ModelRegistered,
            events.ModelWaiting,
            events.ModelPromoted,
            events.ModelRejected,
            events.ModelRetired,
            deletions.ModelDeleted,
        ),
        ("registry",),
        (LOG, "evaluator", "inference_proxy", "ingest", "model_server", "trainer"),
    ),
    Topic(
        "adapters",
        "Which replica holds which adapter, proved.",
        (events.AdapterResident, events.AdapterLoadFailed, events.AdapterEvicted),
        ("model_server",),
        ("inference_proxy", "registry"),
    ),
    Topic(
        "evaluations",
        "Evidence about candidates.",
        (events.EvaluationCompleted, deletions.EvidenceDeleted),
        ("evaluator",),
        (LOG, "ingest", "registry"),
    ),
    Topic("chats", "Answers given: counts and lineage.", (events.ChatCompleted,), ("inference_proxy",), ()),
    Topic(
        "feedback",
        "Ratings.",
        (events.FeedbackRecorded, deletions.FeedbackDeleted),
        ("inference_proxy", LOG),
        (LOG, "labeling"),
    ),
    Topic("drift", "What is asked of a model has changed.", (drift.DriftDetected,), (LOG,), (LOG,)),
)

BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}
EVENTS: dict[str, type[Event]] = {event.type: event for topic in TOPICS for event in topic.events}
