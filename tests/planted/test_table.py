"""The planted bugs still fit the source, so that `make planted` plants what it says."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.planted.bug import SIM, Edit, Planted
from tests.planted.choice import Checked, arguments, changed_since, chosen, note
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


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_fits_the_source_and_names_a_suite(bug: Planted) -> None:
    for file, text in planted(bug, ROOT).items():
        compile(text, str(file), "exec")
        assert text != ast.unparse(ast.parse(file.read_text()))
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


def test_a_run_takes_what_is_named_and_was_not_caught_before(tmp_path: Path) -> None:
    lease, door = Planted("no lease", (Edit("work:Held.keep", "a", "b"),)), Planted("open door", ())
    results = tmp_path / "results"
    for parts, expected in (([], [lease, door]), (["lea", "no"], [lease]), (["door", "work:"], [lease, door])):
        assert chosen([lease, door], arguments().parse_args([*parts, "--resume", str(results)])) == expected
    note(Checked(lease.name, caught=True, word="", seconds=1), results)
    note(Checked(door.name, caught=False, word="", seconds=1), results)
    assert chosen([lease, door], arguments().parse_args(["--resume", str(results)])) == [door]
    assert chosen([lease, door], arguments().parse_args(["lease", "--resume", str(results)])) == []
    with pytest.raises(SystemExit, match="no planted bug has 'leak' in its name"):
        chosen([lease, door], arguments().parse_args(["leak"]))


def test_a_run_takes_what_changed_since_a_git_ref(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = next(bug for bug in BUGS if bug.suite != SIM)
    source, suite = find(ROOT, bug.edits[0].point)[0], ROOT / bug.suite.partition("::")[0]
    for changed, expected in ((source, [bug]), (suite, [bug]), (ROOT / "README.md", [])):
        monkeypatch.setattr("tests.planted.choice.changed_since", lambda *_, one=changed: {one})
        assert chosen([bug], arguments().parse_args(["--changed", "main"])) == expected


def test_new_files_count_as_changed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for name in ("kept.py", "changed.py"):
        (tmp_path / name).write_text(SQUARE)
    git("add", ".")
    git("commit", "-m", "Two squares")
    for name in ("changed.py", "new.py"):
        (tmp_path / name).write_text("side = 3\n")
    assert changed_since("HEAD", tmp_path) == {tmp_path / "changed.py", tmp_path / "new.py"}
    with pytest.raises(SystemExit, match="nowhere"):
        changed_since("nowhere", tmp_path)
