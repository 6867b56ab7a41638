"""The events ingest consumes."""

from __future__ import annotations

from eventbus.bus import Handlers
from ingest.use_cases import Uploads
from schemas import LabelsPublished


def subscriptions(uploads: Uploads) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_labels_published(event: LabelsPublished) -> None:
        await uploads.take_labels(event)

    return {LabelsPublished: on_labels_published}
