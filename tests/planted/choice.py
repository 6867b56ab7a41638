"""Which planted bugs a run takes: by name, by what changed, and without those that were caught before."""

from __future__ import annotations

import json
import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from tests.planted.bug import SIM, Planted
from tests.planted.points import ROOT, find

SIMULATION = ROOT / "tests/simulation"


@dataclass(frozen=True)
class Checked:
    """Whether a bug was caught, the last words of its suite, and how long that took.

    Attributes:
        state: digest of the row, its source and its suite as they were.
    """

    name: str
    caught: bool
    word: str
    seconds: float
    state: str = ""


def arguments() -> ArgumentParser:
    """What one may ask of a run."""
    parser = ArgumentParser(prog="python -m tests.planted", description="plant known bugs, and see each one caught")
    parser.add_argument("parts", nargs="*", help="parts of a bug's name or of its point, such as eventbus:")
    parser.add_argument(
        "--changed", metavar="REF", help="only bugs whose row, source or suite changed since this git ref"
    )
    parser.add_argument(
        "--resume", metavar="FILE", type=Path, help="note results here, and leave out what was caught as it is"
    )
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
        changed, rows = changed_since(asked.changed, ROOT), rows_at(asked.changed, ROOT)
        found = [bug for bug in found if bug not in rows or not changed.isdisjoint(files_of(bug))]
    before = caught_before(asked.resume) if asked.resume else set()
    return [bug for bug in found if (bug.name, state_of(bug)) not in before]


def is_named(bug: Planted, parts: list[str]) -> bool:
    """Whether one of the parts is in the bug's name or points, or none is asked for."""
    return not parts or any(part in text for part in parts for text in (bug.name, *(one.point for one in bug.edits)))


def files_of(bug: Planted) -> set[Path]:
    """Where a bug is planted, and the file of the suite that must notice."""
    suite = SIMULATION.glob("*.py") if bug.suite == SIM else [ROOT / bug.suite.partition("::")[0]]
    return {*suite, *(find(ROOT, edit.point)[0] for edit in bug.edits)}


def state_of(bug: Planted) -> str:
    """Digest of a row, of where it is planted and of the suite that must notice."""
    texts = [repr(bug), *(path.read_text() for path in sorted(files_of(bug)) if path.is_file())]
    return sha256("\0".join(texts).encode()).hexdigest()


def rows_at(ref: str, tree: Path) -> set[Planted]:
    """The rows as they were at a git ref."""
    listed = _git(tree, "ls-tree", "--name-only", ref, "tests/planted/rows/")
    found: set[Planted] = set()
    for name in listed.splitlines():
        room: dict[str, object] = {"__name__": name}
        if not name.endswith("__init__.py"):
            exec(compile(_git(tree, "show", f"{ref}:{name}"), name, "exec"), room)
            found.update(bug for bug in room["BUGS"] if isinstance(bug, Planted))  # type: ignore[attr-defined]
    return found


def changed_since(ref: str, tree: Path) -> set[Path]:
    """Files that differ from a git ref, and new ones."""
    differing = _git(tree, "diff", "--name-only", ref, "--")
    new = _git(tree, "ls-files", "--others", "--exclude-standard")
    return {tree / name for name in (differing + new).splitlines()}


def caught_before(file: Path) -> set[tuple[str, str]]:
    """Names of the bugs that a file notes as caught, each with the state it was caught in."""
    if not file.exists():
        return set()
    noted = map(json.loads, file.read_text().splitlines())
    return {(one["name"], one.get("state", "")) for one in noted if one["caught"]}


def note(checked: Checked, file: Path) -> None:
    """Write a result down, a line each."""
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(checked)) + "\n")


def _git(tree: Path, *words: str) -> str:
    """What git says.

    Raises:
        SystemExit: It refuses.
    """
    said = subprocess.run(["git", *words], cwd=tree, capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(said.stderr.strip())
    return said.stdout
