"""`python -m tests.planted [part of a name]`: plants each bug in a copy and runs the suite that must notice."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from tests.planted.table import BUGS, SIM, Planted

ROOT = Path(__file__).parents[2]
SEEDS = 600
PORTION = 5
SECONDS = 240
LEFT_OUT = shutil.ignore_patterns(".venv", ".git", ".sartor", "__pycache__", ".*_cache", "shared", "*.egg-info")
FOREIGN = ("aiokafka.admin", "fastapi", "faststream.kafka", "httpx2", "joserfc", "minio", "motor.motor_asyncio")
"""What takes long to import, loaded once; none of it is ours."""


def sources(tree: Path) -> list[str]:
    """The copy's packages, which come before those the virtual environment names."""
    return [str(path) for path in (tree, *tree.glob("*/src"), *tree.glob("*/*/src"))]


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


def simulate(tree: Path, answer: Connection) -> None:
    """Run seeds on the copy until one breaks, in a fork: what is not ours is imported already."""
    sys.path[:0] = sources(tree)
    from tests.sim.__main__ import play

    for first in range(0, SEEDS, PORTION):
        if broken := play(range(first, first + PORTION)).broken:
            answer.send(f"seed {min(broken)}: {broken[min(broken)][0]}")
            return
    answer.send("")


def caught_by_simulation(tree: Path) -> tuple[bool, str]:
    """Whether a seed breaks; which, and how."""
    forks = multiprocessing.get_context("fork")
    ours, theirs = forks.Pipe(duplex=False)
    child = forks.Process(target=simulate, args=(tree, theirs))
    child.start()
    theirs.close()
    try:
        word = str(ours.recv()) if ours.poll(SECONDS) else "took too long"
    except EOFError:
        word = "the simulation could not be run"
    child.kill()
    child.join()
    return word.startswith("seed "), word or f"{SEEDS} seeds held"


def caught_by_test(node: str, tree: Path) -> tuple[bool, str]:
    """Whether the test fails, and not for want of running; its last words."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", node]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sources(tree))}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False, "took too long"
    says = [line for line in done.stdout.splitlines() if line.strip()] or [done.stderr[-200:]]
    failed = next((line for line in says if line.startswith("FAILED")), "")
    return done.returncode == 1 and failed != "", failed or says[-1]


def main() -> int:
    """Plant the bugs whose name holds the argument, or all; 1 if one is missed."""
    wanted = " ".join(sys.argv[1:])
    bugs = [bug for bug in BUGS if wanted in bug.name]
    missed = 0
    for name in FOREIGN:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="sartor-planted-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        for bug in bugs:
            began = time.monotonic()
            before = plant(bug, tree)
            found, word = caught_by_simulation(tree) if bug.suite == SIM else caught_by_test(bug.suite, tree)
            for path, text in before.items():
                path.write_text(text)
            missed += not found
            verdict = "caught" if found else "MISSED"
            print(f"{verdict}  {time.monotonic() - began:5.1f} s  {bug.name:45} {word[:110]}", flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
