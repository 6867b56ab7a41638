"""Makes `engine_harness` importable and its fixture known to the tests of this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from engine_harness import engine

__all__ = ["engine"]
