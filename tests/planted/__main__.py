"""`python -m tests.planted [part of a name]`: plants each bug in a copy and runs the suite that must notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.planted.table import BUGS, SIM, Planted

ROOT = Path(__file__).parents[2]
SEEDS = 600
SECONDS = 240
LEFT_OUT = shutil.ignore_patterns(".venv", ".git", ".sartor", "__pycache__", ".*_cache", "shared", "*.egg-info")


def copy_tree(to: Path) -> None:
    """The working tree without what is built."""
    shutil.copytree(ROOT, to, ignore=LEFT_OUT)


def environment(tree: Path) -> dict[str, str]:
    """The copy's packages come before those the virtual environment names."""
    sources = [*tree.glob("*/src"), *tree.glob("*/*/src")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [tree, *sources])), "PYTHONHASHSEED": "0"}


def plant(bug: Planted, tree: Path) -> dict[Path, str]:
    """Apply a bug; returns what the files held before."""
    before: dict[Path, str] = {}
    for edit in bug.edits:
        path = tree / edit.file
        text = path.read_text()
        before.setdefault(path, text)
        path.write_text(text.replace(edit.old, edit.new))
        compile(path.read_text(), str(path), "exec")
    return before


def caught(bug: Planted, tree: Path) -> tuple[bool, str]:
    """Whether the suite fails, by a violation or a failed test and by nothing else; and its last words."""
    if bug.suite == SIM:
        command = [sys.executable, "-m", "tests.sim", "--seeds", str(SEEDS), "--fail-fast"]
    else:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", bug.suite]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False, "took too long"
    says = [line for line in done.stdout.splitlines() if line.strip()]
    mark = "with violations" if bug.suite == SIM else "failed"
    word = next(
        (line for line in says if line.startswith(("seed ", "FAILED"))), says[-1] if says else done.stderr[-200:]
    )
    return done.returncode == 1 and any(mark in line for line in says), word


def main() -> int:
    """Plant the bugs whose name holds the argument, or all; 1 if one is missed."""
    wanted = " ".join(sys.argv[1:])
    bugs = [bug for bug in BUGS if wanted in bug.name]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="sartor-planted-") as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        for bug in bugs:
            began = time.monotonic()
            before = plant(bug, tree)
            found, word = caught(bug, tree)
            for path, text in before.items():
                path.write_text(text)
            missed += not found
            verdict = "caught" if found else "MISSED"
            print(f"{verdict}  {time.monotonic() - began:5.1f} s  {bug.name:45} {word[:110]}", flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
