"""The page that says how things are added names files that are there."""

from __future__ import annotations

import re

from tests.conftest import ROOT

PAGE = ROOT / "docs/extending.md"
PLACE = re.compile(r"`((?:docs|libs|schemas|services|tests)/[^`<{*]+|pyproject\.toml)`")


def test_every_file_that_is_named_is_there() -> None:
    named = PLACE.findall(PAGE.read_text())
    assert len(named) >= 5
    assert [place for place in named if not (ROOT / place).exists()] == []
