"""Which planted bugs a run takes: by name, by what changed, and without those that were caught before."""

from __future__ import annotations

import json
import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.planted.bug import Planted
from tests.planted.points import ROOT, find


@dataclass(frozen=True)
class Checked:
    """Whether a bug was caught, the last words of its suite, and how long that took."""

    name: str
    caught: bool
    word: str
    seconds: float


def arguments() -> ArgumentParser:
    """What one may ask of a run."""
    parser = ArgumentParser(prog="python -m tests.planted", description="plant known bugs, and see each one caught")
    parser.add_argument("parts", nargs="*", help="parts of a bug's name or of its point, such as eventbus:")
    parser.add_argument("--changed", metavar="REF", help="only bugs whose source or suite changed since this git ref")
    parser.add_argument("--resume", metavar="FILE", type=Path, help="note results here, and leave out what was caught")
    return parser


def chosen(bugs: Iterable[Planted], asked: Namespace) -> list[Planted]:
    """The bugs that a run takes.

    Raises:
        SystemExit: Nothing is called so, or git knows no such ref.
    """
    found = [bug for bug in bugs if is_named(bug, asked.parts)]
    if not found:
        raise SystemExit(f"no planted bug has {' or '.join(map(repr, asked.parts))} in its name or point")
    if asked.changed:
        changed = changed_since(asked.changed, ROOT)
        found = [bug for bug in found if not changed.isdisjoint(files_of(bug))]
    before = caught_before(asked.resume) if asked.resume else set()
    return [bug for bug in found if bug.name not in before]


def is_named(bug: Planted, parts: list[str]) -> bool:
    """Whether one of the parts is in the bug's name or points, or none is asked for."""
    return not parts or any(part in text for part in parts for text in (bug.name, *(one.point for one in bug.edits)))


def files_of(bug: Planted) -> set[Path]:
    """Where a bug is planted, and the file of the suite that must notice."""
    return {ROOT / bug.suite.partition("::")[0], *(find(ROOT, edit.point)[0] for edit in bug.edits)}


def changed_since(ref: str, tree: Path) -> set[Path]:
    """Files that differ from a git ref, and new ones."""
    differing = ["git", "diff", "--name-only", ref, "--"]
    new = ["git", "ls-files", "--others", "--exclude-standard"]
    said = [subprocess.run(one, cwd=tree, capture_output=True, text=True, check=False) for one in (differing, new)]
    if failed := next((one for one in said if one.returncode), None):
        raise SystemExit(failed.stderr.strip())
    return {tree / name for one in said for name in one.stdout.splitlines()}


def caught_before(file: Path) -> set[str]:
    """Names of the bugs that a file notes as caught."""
    if not file.exists():
        return set()
    return {one["name"] for one in map(json.loads, file.read_text().splitlines()) if one["caught"]}


def note(checked: Checked, file: Path) -> None:
    """Write a result down, a line each."""
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(checked)) + "\n")
