"""Chunks, filters and identifiers."""

from __future__ import annotations

import time

import pytest

from chassis.errors import Invalid, TooLarge
from rag_indexer.chunking import chunks
from rag_indexer.filters import passes
from rag_indexer.milvus import checked

PAGE = "# Help\n\nIntro.\n\n## Refunds\n\nFive days.\n\n## 営業時間\n\n" + "窓口は七時から二十二時までです。" * 40


def test_chunks_know_where_they_stand_and_keep_within_the_limit() -> None:
    found = [chunk.text for chunk in chunks(PAGE, limit=300, most=99)]
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
    assert chunks(text, limit=100, most=99) == []


def test_a_word_longer_than_a_chunk_is_cut() -> None:
    assert "".join(chunk.text for chunk in chunks("x" * 1000, limit=100, most=99)).replace("\n", "") == "x" * 1000


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000_000,
        "長" * 2_000_000,
        "a\n\n" * 1_000_000,
        "# " + "h" * 1_000_000 + "\n" + "b " * 500_000,
        "\n" * 9_000_000,
    ],
    ids=["one line", "one line of Japanese", "tiny paragraphs", "a long heading", "blank"],
)
def test_large_documents_are_cut_in_time_that_grows_with_them(text: str) -> None:
    began = time.process_time()
    found = chunks(text, limit=600, most=20_000)
    assert time.process_time() - began < 10
    assert all(len(chunk.text) <= 601 for chunk in found)
    assert sum(len(chunk.text) for chunk in found) < 2 * len(text) + 1


def test_headings_leave_half_of_a_chunk_to_the_text() -> None:
    page = f"# {'outer ' * 99}\n## {'内' * 999}\n### {'x' * 999}\nbody " + "word " * 999
    found = chunks(page, limit=600, most=99)
    assert sum(chunk.text.count("word") for chunk in found) == 999
    for chunk in found:
        title, _, body = chunk.text.partition("\n")
        assert title.endswith("x" * 99)
        assert body.strip()
        assert len(chunk.text) <= 601


def test_too_many_chunks_are_refused_before_all_are_made() -> None:
    with pytest.raises(TooLarge, match="more than 50 chunks"):
        chunks("# a\nb\n" * 500_000, limit=600, most=50)


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
