"""The glossary is in order, and each of its terms lives where it says."""

from __future__ import annotations

import re

import pytest
from tests.conftest import ROOT
from tests.planted.points import find

PAGE = ROOT / "docs/glossary.md"
TERM = re.compile(r"^\| \*\*(.+?)\*\* \| (.+) \| `([^`|]+)` \|$", re.MULTILINE)
TERMS = TERM.findall(PAGE.read_text())


def test_every_row_is_a_term_in_alphabetical_order() -> None:
    names = [name for name, _, _ in TERMS]
    assert len(names) == PAGE.read_text().count("\n| **") > 50
    assert names == sorted(set(names))


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, what, _ in TERMS])
def test_a_term_is_told_in_one_sentence(name: str, what: str) -> None:
    assert re.fullmatch(r"[A-Z][^.]*(\.\S[^.]*)*\.", what), name


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, _, place in TERMS])
def test_a_term_lives_where_the_page_says(name: str, place: str) -> None:
    if ":" in place:
        file, _ = find(ROOT, place)
        assert "tests" not in file.relative_to(ROOT).parts, name
    else:
        assert (ROOT / place).exists(), name
