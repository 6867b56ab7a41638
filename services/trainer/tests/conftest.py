"""Makes the harnesses of this folder importable, and their fixtures known to its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from trainer_harness import harness, shared
from trainer_runs import base_dir, configure
from worker_shop import shop, warm

__all__ = ["base_dir", "configure", "harness", "shared", "shop", "warm"]
