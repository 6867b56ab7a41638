"""The planted bugs still fit the source, so that `make planted` plants what it says."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.planted.bug import SIM, Edit, Planted
from tests.planted.choice import Checked, arguments, changed_since, chosen, note, rows_at, state_of
from tests.planted.points import ROOT, edited, find, planted
from tests.planted.rows import BUGS

HOUSE = '''
class House:
    """A house."""

    rooms = 3

    def enter(self, who: str) -> None:
        if (
            who in self.guests  # asked in
        ):
            self.open("door",
                      "wide")
            self.greet(who)
'''
SQUARE = "def side() -> int:\n    return 2\n"


@cache
def unparsed(file: Path) -> str:
    return ast.unparse(ast.parse(file.read_text()))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_fits_the_source_and_names_a_suite(bug: Planted) -> None:
    for file, text in planted(bug, ROOT).items():
        compile(text, str(file), "exec")
        assert text != unparsed(file)
    path, _, node = bug.suite.partition("::")
    assert bug.suite == SIM or f"def {node}(" in (ROOT / path).read_text() or (not node and (ROOT / path).exists())


def test_there_are_many_and_each_has_its_name() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25


def test_layout_and_comments_do_not_matter() -> None:
    text = edited(HOUSE, "House.enter", "self.open('door', 'wide')\nself.greet(who)", "self.greet(who)\nself.close()")
    assert "if who in self.guests:\n            self.greet(who)\n            self.close()" in text
    assert "rooms = 4" in edited(HOUSE, "House.rooms", "rooms = 3", "rooms = 4")


@pytest.mark.parametrize(("old", "times"), [("self.guests.all", 0), ("who", 3), ("self.open('door', 'wide')\n\nx", 0)])
def test_a_part_that_is_not_there_once_is_refused(old: str, times: int) -> None:
    with pytest.raises(LookupError, match=f"occurs {times} times, not once, in House.enter"):
        edited(HOUSE, "House.enter", old, "pass")


def test_a_point_is_found_wherever_it_lies_in_its_package_and_only_if_it_is_one(tmp_path: Path) -> None:
    package = tmp_path / "libs" / "shapes" / "src" / "shapes"
    for name in ("square.py", "rooms/square.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
    (package / "rooms" / "square.py").write_text(SQUARE)
    assert find(tmp_path, "shapes:side") == (package / "rooms" / "square.py", "side")
    (package / "square.py").write_text(SQUARE)
    with pytest.raises(LookupError, match="shapes:side names 2 places"):
        find(tmp_path, "shapes:side")
    assert find(tmp_path, "shapes.rooms:side") == (package / "rooms" / "square.py", "side")
    with pytest.raises(LookupError, match="shapes:corner names 0 places"):
        find(tmp_path, "shapes:corner")


def test_two_edits_of_one_file_are_both_in_it(tmp_path: Path) -> None:
    (tmp_path / "square.py").write_text(SQUARE)
    both = (Edit("square:side", "return 2", "return 3 + 2"), Edit("square:side", "+ 2", "+ 5"))
    assert planted(Planted("both", both), tmp_path) == {tmp_path / "square.py": "def side() -> int:\n    return 3 + 5"}


def test_a_run_takes_what_is_named_and_was_not_caught_as_it_is(tmp_path: Path) -> None:
    point, nowhere = "eventbus:Relay", "tests/none.py"
    lease, door = Planted("no lease", (Edit(point, "a", "b"),), nowhere), Planted("open door", (), nowhere)
    results = tmp_path / "results"
    for parts, expected in (([], [lease, door]), (["lea", "no"], [lease]), (["door", "eventbus:"], [lease, door])):
        assert chosen([lease, door], arguments().parse_args([*parts, "--resume", str(results)])) == expected
    note(Checked(lease.name, caught=True, word="", seconds=1, state=state_of(lease)), results)
    note(Checked(door.name, caught=False, word="", seconds=1, state=state_of(door)), results)
    assert chosen([lease, door], arguments().parse_args(["--resume", str(results)])) == [door]
    assert chosen([lease, door], arguments().parse_args(["lease", "--resume", str(results)])) == []
    harder = Planted(lease.name, (Edit(point, "a", "c"),), nowhere)
    assert chosen([harder, door], arguments().parse_args(["--resume", str(results)])) == [harder, door]
    with pytest.raises(SystemExit, match="no planted bug has 'leak' in its name"):
        chosen([lease, door], arguments().parse_args(["leak"]))


def test_the_state_of_a_bug_is_that_of_its_row_source_and_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, suite = tmp_path / "square.py", tmp_path / "test_square.py"
    for file in (source, suite):
        file.write_text(SQUARE)
    for name in ("points.ROOT", "choice.ROOT"):
        monkeypatch.setattr(f"tests.planted.{name}", tmp_path)
    bug = Planted("round", (Edit("square:side", "2", "3"),), "test_square.py::test_it")
    seen = {state_of(bug), state_of(Planted("round", (Edit("square:side", "2", "4"),), bug.suite))}
    for file in (source, suite):
        file.write_text(SQUARE + "\n")
        seen.add(state_of(bug))
    assert len(seen) == 4


def test_a_run_takes_what_changed_since_a_git_ref(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = next(bug for bug in BUGS if bug.suite != SIM)
    simulated = next(bug for bug in BUGS if bug.suite == SIM)
    source, suite = find(ROOT, bug.edits[0].point)[0], ROOT / bug.suite.partition("::")[0]
    cases = [(bug, source, {bug}), (bug, suite, {bug}), (simulated, ROOT / "tests/simulation/world.py", {simulated})]
    for one, changed, rows in cases:
        monkeypatch.setattr("tests.planted.choice.changed_since", lambda *_, file=changed: {file})
        monkeypatch.setattr("tests.planted.choice.rows_at", lambda *_, then=rows: then)
        assert chosen([one], arguments().parse_args(["--changed", "main"])) == [one]
    monkeypatch.setattr("tests.planted.choice.changed_since", lambda *_: {ROOT / "README.md"})
    assert chosen([bug, simulated], arguments().parse_args(["--changed", "main"])) == [bug]


def test_a_row_that_changed_since_a_git_ref_is_known(tmp_path: Path) -> None:
    rows = tmp_path / "tests/planted/rows"
    rows.mkdir(parents=True)
    (rows / "__init__.py").write_text("")
    (rows / "shapes.py").write_text("from tests.planted.bug import bug\n\nBUGS = (bug('a', 'b:c', 'd', 'e'),)\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "A row")
    (rows / "shapes.py").write_text("BUGS = ()\n")
    assert rows_at("HEAD", tmp_path) == {Planted("a", (Edit("b:c", "d", "e"),))}


def git(tree: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *words], cwd=tree, check=True, capture_output=True)


def test_new_files_count_as_changed(tmp_path: Path) -> None:
    git(tmp_path, "init")
    for name in ("kept.py", "changed.py"):
        (tmp_path / name).write_text(SQUARE)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "Two squares")
    for name in ("changed.py", "new.py"):
        (tmp_path / name).write_text("side = 3\n")
    assert changed_since("HEAD", tmp_path) == {tmp_path / "changed.py", tmp_path / "new.py"}
    with pytest.raises(SystemExit, match="nowhere"):
        changed_since("nowhere", tmp_path)
