"""The planted bugs still fit the source, so that `make planted` plants what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted.table import BUGS, SIM, Planted

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("planted", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_fits_the_source_and_names_a_suite(planted: Planted) -> None:
    for edit in planted.edits:
        text = (ROOT / edit.file).read_text()
        assert text.count(edit.old) == 1
        compile(text.replace(edit.old, edit.new), edit.file, "exec")
    path, _, node = planted.suite.partition("::")
    assert planted.suite == SIM or f"def {node}(" in (ROOT / path).read_text() or (not node and (ROOT / path).exists())


def test_there_are_many_and_each_has_its_name() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25
