"""The events the model server watches, in every replica, to look at once which adapters it should hold."""

from __future__ import annotations

from eventbus import Handlers
from schemas import ModelRegistered, ModelRejected, ModelRetired
from serving import Residency


def watched(residency: Residency) -> Handlers:
    """Each event watched, with what it leads to."""
    return dict.fromkeys((ModelRegistered, ModelRejected, ModelRetired), residency.on_change)
