"""Every service that has leased work, or objects of its own, keeps the watch over them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI

WATCHES = {
    "evaluator": {"leases-evaluations", "orphans"},
    "event_gateway": {"leases-deliveries"},
    "labeling": {"leases-projects", "orphans"},
    "ingest": {"leases-files", "orphans"},
    "rag_indexer": {"leases-files"},
    "trainer": {"leases-jobs", "orphans"},
}


@pytest.mark.parametrize("service", sorted(WATCHES))
def test_work_and_objects_are_watched(service: str, built: Callable[[str], FastAPI]) -> None:
    assert WATCHES[service] <= built(service).state.service._background.keys()
