"""Whoever was let in by one service finds a place at the next, by the defaults of both."""

from __future__ import annotations

import pytest

from inference_proxy.settings import Settings as Proxy
from rag_indexer.settings import Settings as Indexer


@pytest.mark.parametrize(
    ("let_in", "places"),
    [
        ("inference_in_flight", "arms_waiting"),
        ("inference_tenant_in_flight", "arms_tenant_waiting"),
        ("inference_evaluation_in_flight", "arms_testing"),
    ],
)
def test_what_the_proxy_lets_in_is_not_refused_by_the_indexer(let_in: str, places: str) -> None:
    assert Proxy.model_fields[let_in].default <= Indexer.model_fields[places].default
