"""The events the evaluator consumes."""

from __future__ import annotations

from collections.abc import Callable

from evaluator.use_cases import Queue
from eventbus import Handlers
from schemas import DatasetDeleted, ModelDeleted, ModelRegistered, ModelRejected, ModelRetired


def subscriptions(queue: Queue, wake: Callable[[], None]) -> Handlers:
    """Each event consumed, with what it leads to; `wake` has this replica's workers look for work at once."""

    async def on_model_registered(event: ModelRegistered) -> None:
        await queue.add(event)
        wake()

    async def on_model_rejected(event: ModelRejected) -> None:
        await queue.cancel(event.tenant_id, event.model_id)

    async def on_model_retired(event: ModelRetired) -> None:
        await queue.cancel(event.tenant_id, event.model_id)

    async def on_model_deleted(event: ModelDeleted) -> None:
        await queue.forget_model(event)

    async def on_dataset_deleted(event: DatasetDeleted) -> None:
        await queue.forget_rows(event)

    return {
        ModelRegistered: on_model_registered,
        ModelRejected: on_model_rejected,
        ModelRetired: on_model_retired,
        ModelDeleted: on_model_deleted,
        DatasetDeleted: on_dataset_deleted,
    }
