"""Chunks, filters and identifiers."""

from __future__ import annotations

import pytest

from chassis.errors import Invalid
from rag_indexer.chunking import chunks
from rag_indexer.filters import passes
from rag_indexer.milvus import checked

PAGE = "# Help\n\nIntro.\n\n## Refunds\n\nFive days.\n\n## 営業時間\n\n" + "窓口は七時から二十二時までです。" * 40


def test_chunks_know_where_they_stand_and_keep_within_the_limit() -> None:
    found = [chunk.text for chunk in chunks(PAGE, limit=300)]
    assert found[0] == "Help\nIntro."
    assert found[1] == "Help > Refunds\nFive days."
    assert all(text.startswith("Help > 営業時間\n") for text in found[2:])
    assert all(len(text) <= 300 for text in found)
    assert (
        "".join(text.split("\n", 1)[1].replace("\n", "") for text in found[2:])
        == "窓口は七時から二十二時までです。" * 40
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# Only a heading"])
def test_no_text_no_chunks(text: str) -> None:
    assert chunks(text, limit=100) == []


def test_a_word_longer_than_a_chunk_is_cut() -> None:
    assert "".join(chunk.text for chunk in chunks("x" * 1000, limit=100)).replace("\n", "") == "x" * 1000


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


@pytest.mark.parametrize("filter_", [{}, {"type": "like", "key": "a", "value": 1}, {"type": "and", "filters": "x"}])
def test_bad_filters_are_told(filter_: dict) -> None:
    with pytest.raises(Invalid):
        passes(filter_, {})


@pytest.mark.parametrize("text", ['a" or tenant_id != "', "", "a b", "x" * 65, 'vs_1"]'])
def test_only_identifiers_enter_an_expression(text: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        checked(text)
