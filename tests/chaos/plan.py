"""Which crash points are armed in which round of the sweep: one tenant's work passes many services, and each dies."""

from __future__ import annotations

ROUNDS: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "accounts": ("relay.read",),
        "ingest": (
            "ingest.bytes_stored",
            "ingest.claimed",
            "relay.read",
        ),
        "trainer": (
            "trainer.claimed",
            "trainer.arm_ordered",
            "save.written",
            "idempotency.begun",
        ),
        "evaluator": (
            "evaluator.claimed",
            "evaluator.planned",
        ),
        "registry": (
            "registry.registered",
            "registry.evaluation_read",
        ),
        "model_server": ("residency.fetched",),
        "rag_indexer": (
            "indexer.claimed",
            "relay.read",
        ),
        "labeling": ("consumer.fetched",),
        "inference_proxy": ("relay.read",),
    },
    {
        "accounts": (
            "relay.acked",
            "idempotency.begun",
        ),
        "ingest": (
            "ingest.accepted",
            "ingest.parsed",
            "ingest.marked_deleted",
            "relay.acked",
        ),
        "trainer": (
            "trainer.started",
            "save.synced",
            "trainer.checkpoint_stored",
            "trainer.arm_stored",
            "idempotency.done",
        ),
        "evaluator": (
            "evaluator.answered",
            "relay.read",
        ),
        "registry": (
            "registry.judged",
            "registry.held",
        ),
        "model_server": ("residency.loaded",),
        "rag_indexer": (
            "indexer.planned",
            "consumer.fetched",
        ),
        "labeling": ("consumer.handled",),
        "inference_proxy": ("relay.acked",),
    },
    {
        "accounts": (
            "relay.removed",
            "idempotency.done",
        ),
        "ingest": (
            "ingest.parts_stored",
            "ingest.manifest_stored",
            "relay.removed",
        ),
        "trainer": (
            "trainer.files_stored",
            "trainer.arm_files_stored",
            "save.manifest_written",
            "relay.read",
            "idempotency.stored",
        ),
        "evaluator": (
            "evaluator.evidence_stored",
            "relay.acked",
        ),
        "registry": (
            "registry.alias_pointed",
            "relay.read",
        ),
        "model_server": ("residency.told",),
        "rag_indexer": (
            "indexer.texts_written",
            "consumer.handled",
        ),
        "inference_proxy": (
            "relay.removed",
            "idempotency.done",
        ),
    },
    {
        "accounts": ("idempotency.stored",),
        "ingest": (
            "ingest.dataset_saved",
            "consumer.fetched",
            "objects.hashed",
        ),
        "trainer": (
            "save.renamed",
            "trainer.checkpoint_saved",
            "trainer.arm_published",
            "relay.acked",
            "consumer.fetched",
        ),
        "evaluator": (
            "evaluator.completed",
            "relay.removed",
        ),
        "registry": (
            "registry.deleted",
            "relay.acked",
        ),
        "model_server": ("residency.unloaded",),
        "rag_indexer": (
            "indexer.vectors_written",
            "relay.acked",
            "idempotency.begun",
        ),
        "labeling": (
            "relay.read",
            "idempotency.begun",
        ),
        "inference_proxy": ("idempotency.stored",),
    },
    {
        "ingest": (
            "ingest.published",
            "consumer.handled",
            "objects.stored",
        ),
        "trainer": (
            "trainer.trained",
            "trainer.adapter_stored",
            "relay.removed",
            "consumer.handled",
            "objects.hashed",
        ),
        "evaluator": ("consumer.fetched",),
        "registry": (
            "consumer.fetched",
            "relay.removed",
        ),
        "rag_indexer": (
            "indexer.completed",
            "relay.removed",
            "indexer.marked_deleted",
            "idempotency.done",
        ),
        "labeling": (
            "relay.acked",
            "idempotency.done",
        ),
        "inference_proxy": ("idempotency.begun",),
    },
    {
        "trainer": (
            "trainer.job_saved",
            "objects.stored",
            "consumer.dead_lettered",
        ),
        "evaluator": ("consumer.handled",),
        "registry": ("consumer.handled",),
        "rag_indexer": (
            "indexer.vectors_deleted",
            "indexer.removed",
            "indexer.store_deleted",
            "indexer.added_to_own",
            "idempotency.stored",
        ),
        "labeling": (
            "relay.removed",
            "idempotency.stored",
        ),
    },
    {
        "trainer": (
            "consumer.parked",
            "parked.claimed",
            "parked.handled",
        ),
    },
)
"""A file may be claimed three times before it is taken for the cause: so ingest's worker ends at most twice a round."""

POINTS = {(service, point) for armed in ROUNDS for service, points in armed.items() for point in points}
