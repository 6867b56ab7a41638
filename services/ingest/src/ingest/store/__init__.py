"""Files and dataset versions in MongoDB and their bytes in the object store, and what rests on them."""

from ingest.store.files import (
    DATASETS_TO_PURGE,
    LEFT_BEHIND,
    TO_PARSE,
    TO_PURGE,
    Files,
    StoredElsewhere,
    dataset_id_of,
)
from ingest.store.uses import Uses, Version

__all__ = [
    "DATASETS_TO_PURGE",
    "LEFT_BEHIND",
    "TO_PARSE",
    "TO_PURGE",
    "Files",
    "StoredElsewhere",
    "Uses",
    "Version",
    "dataset_id_of",
]
