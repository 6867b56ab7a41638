"""The events ingest consumes."""

from __future__ import annotations

from eventbus import Handlers
from ingest.use_cases import Retention, Uploads
from schemas import (
    EvaluationCompleted,
    EvidenceDeleted,
    FinetuneAdapterDeleted,
    FinetuneArmFitted,
    FinetuneCancelled,
    FinetuneFailed,
    FinetuneRequested,
    FinetuneSucceeded,
    FinetuneTrained,
    LabelsDeleted,
    LabelsPublished,
    ModelDeleted,
    ModelRegistered,
    ModelRejected,
)


def subscriptions(uploads: Uploads, retention: Retention) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_labels_published(event: LabelsPublished) -> None:
        await uploads.take_labels(event)

    async def on_labels_deleted(event: LabelsDeleted) -> None:
        await uploads.take_back_labels(event)

    async def on_finetune_requested(event: FinetuneRequested) -> None:
        await retention.requested(event)

    async def on_finetune_trained(event: FinetuneTrained) -> None:
        await retention.trained(event)

    async def on_model_registered(event: ModelRegistered) -> None:
        await retention.registered(event)

    async def on_finetune_arm_fitted(event: FinetuneArmFitted) -> None:
        await retention.arm_fitted(event)

    async def on_finetune_succeeded(event: FinetuneSucceeded) -> None:
        await retention.succeeded(event)

    async def on_job_ended(event: FinetuneFailed | FinetuneCancelled) -> None:
        await retention.ended(event)

    async def on_version_lost(event: ModelRejected | ModelDeleted) -> None:
        await retention.lost(event)

    async def on_evaluation_completed(event: EvaluationCompleted) -> None:
        await retention.evaluated(event)

    async def on_evidence_deleted(event: EvidenceDeleted) -> None:
        await retention.lost_evidence(event)

    async def on_finetune_adapter_deleted(event: FinetuneAdapterDeleted) -> None:
        await retention.lost_adapter(event)

    return {
        LabelsPublished: on_labels_published,
        LabelsDeleted: on_labels_deleted,
        FinetuneRequested: on_finetune_requested,
        FinetuneTrained: on_finetune_trained,
        FinetuneArmFitted: on_finetune_arm_fitted,
        FinetuneSucceeded: on_finetune_succeeded,
        FinetuneFailed: on_job_ended,
        FinetuneCancelled: on_job_ended,
        FinetuneAdapterDeleted: on_finetune_adapter_deleted,
        ModelRegistered: on_model_registered,
        ModelRejected: on_version_lost,
        ModelDeleted: on_version_lost,
        EvaluationCompleted: on_evaluation_completed,
        EvidenceDeleted: on_evidence_deleted,
    }
