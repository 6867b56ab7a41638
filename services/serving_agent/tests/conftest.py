"""Makes `tgi_harness` importable, and the launcher be looked at often."""

import sys
from pathlib import Path

import pytest

from serving_agent import launcher

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than a real TGI, which takes minutes to start, needs."""
    monkeypatch.setattr(launcher, "POLL_SECONDS", 0.1)
