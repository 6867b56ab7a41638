"""The events labeling consumes."""

from __future__ import annotations

from eventbus.bus import Handlers
from labeling.use_cases import Projects
from schemas import FeedbackRecorded, LabelingRequested


def subscriptions(projects: Projects) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_labeling_requested(event: LabelingRequested) -> None:
        await projects.create_for(event)

    async def on_feedback_recorded(event: FeedbackRecorded) -> None:
        await projects.keep_feedback(event)

    return {LabelingRequested: on_labeling_requested, FeedbackRecorded: on_feedback_recorded}
