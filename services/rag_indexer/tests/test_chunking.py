"""Documents keep what they hold: each line is in some chunk, whole where it fits, under its own headings."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import TooLarge
from rag_indexer.chunking import chunks
from rag_indexer.e5 import E5

PAGE = "# Help\n\nIntro.\n\n## Refunds\n\nFive days.\n\n## 営業時間\n\n" + "窓口は七時から二十二時までです。" * 40

TABLE = "| Sheet | Plant | Place |\n|---|:--|--:|"
ROWS = [f"| H-{n} | Plant no. {n} by Dr. {n} | cupboard {n} |" for n in range(40)]
ITEMS = [f"- Plant no. {n}. By Dr. {n}: cupboard {n}" for n in range(40)]


def cut(text: str, limit: int = 300, **more: Any) -> list[str]:
    return [chunk.text for chunk in chunks(text, limit=limit, most=9_999, **more)]


def test_chunks_know_where_they_stand_and_keep_within_the_limit() -> None:
    found = cut(PAGE)
    assert found[0] == "Help\nIntro."
    assert found[1] == "Help > Refunds\nFive days."
    assert all(text.startswith("Help > 営業時間\n") for text in found[2:])
    assert all(len(text) <= 300 for text in found)
    assert (
        "".join(text.split("\n", 1)[1].replace("\n", "") for text in found[2:])
        == "窓口は七時から二十二時までです。" * 40
    )


@pytest.mark.parametrize("text", ["", "\n\n", " \t \r\n"])
def test_no_text_no_chunks(text: str) -> None:
    assert cut(text) == []


def test_headings_without_text_are_kept_where_nothing_below_shows_them() -> None:
    assert cut("# Only a heading") == ["Only a heading"]
    assert cut("# A\n## B\n## C\ntext\n# D") == ["A > B", "A > C\ntext", "D"]


@pytest.mark.parametrize(
    "block",
    [
        "```bash\n# no heading\n```",
        "~~~\n# no heading\n~~~",
        "````md\n```\n# no heading\n```\n````",
        "~~~ python `x`\n```\n# no heading\n~~~~~",
        "   ```\n   # no heading\n   ```",
        "- an item:\n\n    ```sh\n# no heading\n    ```",
        "1. ```sh\n   # no heading\n   ```",
        "text\n```\n# no heading\n```\nmore",
        "```\nleft open\n\n# no heading",
        "    # no heading\n    in indented code",
        "#no heading",
        "```\r\n# no heading\r\n```",
    ],
)
def test_code_holds_no_headings(block: str) -> None:
    found = cut(f"# Guide\n\n## Start\n\n{block}")
    assert len(found) == 1
    assert found[0].startswith("Guide > Start\n")
    assert all(line.strip() in found[0] for line in block.splitlines())


@pytest.mark.parametrize("block", ["```\n# code\n```", "~~~~\n~~~\n# code\n~~~~~", "` ``` `", "```not a fence``` x"])
def test_headings_after_code_are_headings(block: str) -> None:
    assert cut(f"# A\n\n{block}\n\n  ## B ##\n\ntext")[-1] == "A > B\ntext"


@pytest.mark.parametrize("limit", [120, 200, 333])
@pytest.mark.parametrize("overlap", [0, 50])
def test_rows_are_whole_and_each_piece_of_a_table_has_its_header(limit: int, overlap: int) -> None:
    found = cut("# Herbarium\n\nBefore. " + "x" * 60 + f"\n{TABLE}\n" + "\n".join(ROWS), limit, overlap=overlap)
    for row in ROWS:
        assert [text for text in found if row in text.splitlines()], row
    for text in found:
        assert not text.count("| H-") or text.count(TABLE) == 1
        assert all(line in (*ROWS, *TABLE.split("\n")) for line in text.splitlines() if line.startswith("|"))
        assert len(text) <= limit


@pytest.mark.parametrize("mark", ["- ", "* ", "12. ", "3) ", "・", "  - "])
def test_list_items_are_whole(mark: str) -> None:
    lines = [mark + item.removeprefix("- ") + "\n      and more of it. Its end" for item in ITEMS]
    found = cut("# List\n\n" + "\n".join(lines), 200)
    assert len(found) > 5
    for item in lines:
        assert [text for text in found if item in text], item


def test_a_row_longer_than_a_chunk_is_cut_at_blanks_with_its_header_above_each_piece() -> None:
    words = [f"word{n}" for n in range(100)]
    found = cut(f"{TABLE}\n| {' '.join(words)} |", 150)
    assert all(text.startswith(TABLE) for text in found)
    assert [word for text in found for word in re.findall(r"word\d+", text)] == words


def test_prose_is_cut_between_sentences_and_a_line_or_word_only_where_it_must_be() -> None:
    sentences = [f"This is the sentence that has the number {n}." for n in range(40)]
    assert all(text.endswith(".") for text in cut(" ".join(sentences), 200))
    assert all(text.endswith("。") for text in cut("これは文です。" * 99, 100))
    words = "word" * 5 + " " + "another" * 4
    assert set(" ".join(cut(f"{words} " * 50, 60)).split()) == set(words.split())
    assert "".join(cut("x" * 1000, 100)) == "x" * 1000
    accented = "e\u0301" * 500
    assert all(not text.startswith("\u0301") for text in cut(accented, 101))


def test_a_chunk_begins_with_the_end_of_the_one_before() -> None:
    sentences = [f"Day {n} brought box {n * 7}." for n in range(60)]
    for body in (" ".join(sentences), "\n\n".join(" ".join(sentences[n : n + 9]) for n in range(0, 60, 9))):
        found = cut(body, 200, overlap=80)
        assert all(len(text) <= 200 for text in found)
        for before, after in pairwise(found):
            shared = [one for one in sentences if one in before and one in after]
            assert len(shared) >= 2
            assert sum(map(len, shared)) <= 80
            assert after.startswith(shared[0])
    assert not set("".join(cut("# A\n\nfirst\n\n# B\n\nsecond", 200, overlap=80)[1:]).split()) & {"first"}


word = st.text(st.sampled_from("abcdefgh.,!?|`~#*-0123456789éß"), min_size=1, max_size=12)
line = st.lists(word, min_size=1, max_size=20).map(" ".join)
japanese = st.text(st.sampled_from("窓口は七時から二十二までです。、！𠮷野家"), min_size=1, max_size=200)
lines = st.lists(st.one_of(line, japanese), min_size=1, max_size=5).map("\n".join)
heading = st.builds(lambda level, text: f"{'#' * level} {text}", st.integers(1, 6), line)
fence = st.builds(
    lambda mark, body, indent: "\n".join(f"{indent}{one}" for one in (mark, *body.split("\n"), mark)),
    st.sampled_from(["```", "~~~", "`````"]),
    lines,
    st.sampled_from(["", "  "]),
)
table = st.builds(
    lambda rows: "\n".join(["| a | b |", "|---|---|", *(f"| {one} | x |" for one in rows)]), st.lists(line, max_size=9)
)
items = st.builds(
    lambda mark, found: "\n".join(mark + one for one in found),
    st.sampled_from(["- ", "1. ", "  * "]),
    st.lists(line, min_size=1, max_size=9),
)
documents = st.builds(
    lambda blocks, between: between.join(blocks),
    st.lists(st.one_of(lines, heading, fence, table, items), max_size=12),
    st.sampled_from(["\n", "\n\n", "\r\n\r\n"]),
)


@settings(max_examples=150, deadline=None)
@given(documents, st.integers(60, 400), st.sampled_from([0, 25]))
def test_every_line_of_a_document_is_in_some_chunk(text: str, limit: int, overlap: int) -> None:
    found = cut(text, limit, overlap=overlap)
    assert all(1 <= len(one) <= limit for one in found)
    joined = "".join("".join(one.split()) for one in found)
    for one in re.split(r"[\r\n]+", text):
        kept = re.sub(r"^ {0,3}#{1,6} |(?:\s#+)?\s*$", "", one).strip()
        if (
            kept and len(one) <= limit // 4
        ):  # with its headings and its table's header above it, a longer one may not fit
            assert any(kept in each for each in found), kept
        for part in kept.split():
            if len(part) <= limit // 4:
                assert any(part in each for each in found), part
            else:
                assert overlap or all(character in joined for character in part)


@pytest.fixture(scope="module")
def model() -> E5:
    return E5(1)


@pytest.mark.parametrize(
    "text",
    [
        "31415926535897932384626433832795 " * 200,
        "8" * 9_000,
        "𠮷𩸽𠀋𡚴" * 900,
        "罍罎罏罐罒罔罕罘罟罠罡罨罩罪罫置 " * 200,
        "if (a[i] != b) { return f(x->y, 0x1F); }\n" * 200,
        "The lamp burns for ten seconds. " * 300,
        "窓口は七時から二十二時までです。" * 300,
        "|a|b|\n|-|-|\n" + "|12345|67890|\n" * 500,
        "ﷺ" * 900,
        "e\u0301👩‍👩‍👧‍👦 " * 500,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize(("limit", "overlap"), [(100, 50), (200, 0), (1_000, 300)])
def test_a_limit_in_tokens_is_kept_in_every_script(model: E5, text: str, limit: int, overlap: int) -> None:
    found = cut(f"# A heading\n\n{text}", limit, overlap=overlap, count=model.count)
    sizes = [model.count(one) for one in found]
    assert max(sizes) <= limit
    assert sorted(sizes)[len(sizes) // 2] >= limit * 6 // 10
    if not overlap and not text.startswith("|"):
        assert "".join(text.split()) == "".join("".join(one.split()).removeprefix("Aheading") for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "長" * 400_000,
        "a\n\n" * 200_000,
        "# " + "h" * 200_000 + "\n" + "b " * 100_000,
        "\n" * 2_000_000,
        "# a" + " " * 200_000 + "b\n" + " " * 200_000 + "c",
        "|" * 200_000 + "\n" + "|-" * 100_000,
        "- a\n" * 100_000,
    ],
    ids=["one line", "Japanese", "tiny paragraphs", "a long heading", "blank", "blanks", "bars", "items"],
)
def test_large_documents_are_cut_in_time_that_grows_with_them(text: str) -> None:
    began = time.process_time()
    found = cut(text, 600)
    assert time.process_time() - began < 10
    assert all(len(one) <= 600 for one in found)
    assert sum(map(len, found)) < 2 * len(text) + 1


def test_headings_leave_half_of_a_chunk_to_the_text() -> None:
    page = f"# {'outer ' * 99}\n## {'内' * 999}\n### {'x' * 999}\nbody " + "word " * 999
    found = cut(page, 600)
    assert sum(text.count("word") for text in found) == 999
    for text in found:
        title, _, body = text.partition("\n")
        assert title.endswith("x" * 99)
        assert body.strip()
        assert len(text) <= 600


def test_too_many_chunks_are_refused_before_all_are_made() -> None:
    with pytest.raises(TooLarge, match="more than 50 chunks"):
        chunks("# a\nb\n" * 500_000, limit=600, most=50)
