"""Makes `trainer_harness` and `trainer_runs` importable and their fixtures known to the tests of this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from trainer_harness import harness, shared
from trainer_runs import base_dir, configure

__all__ = ["base_dir", "configure", "harness", "shared"]
