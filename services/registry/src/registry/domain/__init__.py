"""Model versions, what is known of them, and the names they serve under: the only functions that change them."""

from registry.domain.downloads import expect_files, has_files, note_download
from registry.domain.model import Model
from registry.domain.names import is_version_id, model_name, name_of, version_id, versions_of
from registry.domain.parts import (
    LOADED,
    Arm,
    Awaited,
    Decision,
    Download,
    Evaluation,
    Lineage,
    LoadFailure,
    Pin,
    Replica,
    State,
)
from registry.domain.pins import Bound, Unsaid, decisions_of, hands_over_below, is_pinned, pin, pins_of, unpin

__all__ = [
    "LOADED",
    "Arm",
    "Awaited",
    "Bound",
    "Decision",
    "Download",
    "Evaluation",
    "Lineage",
    "LoadFailure",
    "Model",
    "Pin",
    "Replica",
    "State",
    "Unsaid",
    "decisions_of",
    "expect_files",
    "hands_over_below",
    "has_files",
    "is_pinned",
    "is_version_id",
    "model_name",
    "name_of",
    "note_download",
    "pin",
    "pins_of",
    "unpin",
    "version_id",
    "versions_of",
]
