"""The events the trainer consumes."""

from __future__ import annotations

from eventbus.bus import Handlers
from schemas import (
    DatasetDeleted,
    DatasetPrepared,
    DatasetRejected,
    ModelDeleted,
    ModelPromoted,
    ModelRejected,
    ModelWaiting,
)
from trainer.use_cases import Datasets, Outcomes, TuneOnUpload


def subscriptions(datasets: Datasets, tune_on_upload: TuneOnUpload, outcomes: Outcomes) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_dataset_prepared(event: DatasetPrepared) -> None:
        await datasets.arrive(event)
        await tune_on_upload.consider(event)

    async def on_dataset_rejected(event: DatasetRejected) -> None:
        await datasets.arrive(event)

    async def on_dataset_deleted(event: DatasetDeleted) -> None:
        await datasets.leave(event)

    async def on_model_waiting(event: ModelWaiting) -> None:
        await outcomes.waits(event)

    async def on_model_promoted(event: ModelPromoted) -> None:
        await outcomes.promoted(event)

    async def on_model_rejected(event: ModelRejected) -> None:
        await outcomes.rejected(event)

    async def on_model_deleted(event: ModelDeleted) -> None:
        await outcomes.deleted(event)

    return {
        DatasetPrepared: on_dataset_prepared,
        DatasetRejected: on_dataset_rejected,
        DatasetDeleted: on_dataset_deleted,
        ModelWaiting: on_model_waiting,
        ModelPromoted: on_model_promoted,
        ModelRejected: on_model_rejected,
        ModelDeleted: on_model_deleted,
    }
