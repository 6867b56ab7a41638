"""Tests side by side: those that share a running service go to one process, and the longest begin first."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

WHOLE_STACK = "tests/e2e/"
"""Tests below this folder share one running stack, so one process runs them all."""


def together(nodeid: str) -> str:
    """The name of what a test is run together with: its file, or the tests of the whole stack."""
    return WHOLE_STACK if nodeid.startswith(WHOLE_STACK) else nodeid.split("::", 1)[0]


class InOneProcess(LoadScopeScheduling):
    """Hands out what is run `together`, in the order of collection."""

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)
