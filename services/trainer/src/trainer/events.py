"""The events the trainer consumes."""

from __future__ import annotations

from eventbus import Handlers
from schemas import (
    DatasetDeleted,
    DatasetPrepared,
    DatasetRejected,
    DocumentParsed,
    FileDeleted,
    LabelingRequested,
    ModelDeleted,
    ModelPinned,
    ModelPromoted,
    ModelRejected,
    ModelRetired,
    ModelUnpinned,
    ModelWaiting,
)
from trainer.job_data import JobData
from trainer.outcomes import Outcomes
from trainer.use_cases import TuneOnUpload


def subscriptions(data: JobData, tune_on_upload: TuneOnUpload, outcomes: Outcomes) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_dataset_prepared(event: DatasetPrepared) -> None:
        await data.arrive(event)
        await tune_on_upload.consider(event)

    async def on_dataset_rejected(event: DatasetRejected) -> None:
        await data.arrive(event)

    async def on_dataset_deleted(event: DatasetDeleted) -> None:
        await data.leave(event)

    async def on_document_parsed(event: DocumentParsed) -> None:
        await data.arrive_text(event)

    async def on_labeling_requested(event: LabelingRequested) -> None:
        await data.arrive_text(event)

    async def on_file_deleted(event: FileDeleted) -> None:
        await data.leave_text(event)

    async def on_model_waiting(event: ModelWaiting) -> None:
        await outcomes.waits(event)

    async def on_model_promoted(event: ModelPromoted) -> None:
        await outcomes.promoted(event)

    async def on_model_pinned(event: ModelPinned) -> None:
        await outcomes.pinned(event)

    async def on_model_unpinned(event: ModelUnpinned) -> None:
        await outcomes.pinned(event)

    async def on_model_rejected(event: ModelRejected) -> None:
        await outcomes.rejected(event)

    async def on_model_retired(event: ModelRetired) -> None:
        await outcomes.retired(event)

    async def on_model_deleted(event: ModelDeleted) -> None:
        await outcomes.deleted(event)

    return {
        DatasetPrepared: on_dataset_prepared,
        DatasetRejected: on_dataset_rejected,
        DatasetDeleted: on_dataset_deleted,
        DocumentParsed: on_document_parsed,
        LabelingRequested: on_labeling_requested,
        FileDeleted: on_file_deleted,
        ModelWaiting: on_model_waiting,
        ModelPromoted: on_model_promoted,
        ModelPinned: on_model_pinned,
        ModelUnpinned: on_model_unpinned,
        ModelRejected: on_model_rejected,
        ModelRetired: on_model_retired,
        ModelDeleted: on_model_deleted,
    }
