"""Makes `accounts_harness` importable, and its fixtures known, for tests whose passwords are hashed cheaply."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from accounts_harness import CHEAP, HASHER, seen, shared

__all__ = ["cheap_hashes", "seen", "shared"]


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `CHEAP`."""
    monkeypatch.setattr(HASHER, CHEAP)
