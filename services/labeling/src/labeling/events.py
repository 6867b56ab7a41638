"""The events labeling consumes."""

from __future__ import annotations

from eventbus import Handlers
from labeling.use_cases import Projects
from schemas import FeedbackDeleted, FeedbackRecorded, FileDeleted, LabelingRequested


def subscriptions(projects: Projects) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_labeling_requested(event: LabelingRequested) -> None:
        await projects.create_for(event)

    async def on_feedback_recorded(event: FeedbackRecorded) -> None:
        await projects.keep_feedback(event)

    async def on_feedback_deleted(event: FeedbackDeleted) -> None:
        await projects.forget_feedback(event)

    async def on_file_deleted(event: FileDeleted) -> None:
        await projects.forget_file(event)

    return {
        LabelingRequested: on_labeling_requested,
        FeedbackRecorded: on_feedback_recorded,
        FeedbackDeleted: on_feedback_deleted,
        FileDeleted: on_file_deleted,
    }
