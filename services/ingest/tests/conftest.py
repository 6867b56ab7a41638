"""Makes `ingest_harness` importable and its fixtures known to the tests of this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ingest_harness import harness, shared

__all__ = ["harness", "shared"]
