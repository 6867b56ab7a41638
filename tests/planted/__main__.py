"""`python -m tests.planted [part of a name]`: plants each bug in a copy and runs the suite that must notice."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from tests.planted.table import BUGS, SIM, Planted

ROOT = Path(__file__).parents[2]
FORKS = multiprocessing.get_context("fork")
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
    from tests.simulation.__main__ import play

    for first in range(0, SEEDS, PORTION):
        if broken := play(range(first, first + PORTION)).broken:
            answer.send(f"seed {min(broken)}: {broken[min(broken)][0]}")
            return
    answer.send("")


def caught_by_simulation(tree: Path) -> tuple[bool, str]:
    """Whether a seed breaks; which, and how."""
    ours, theirs = FORKS.Pipe(duplex=False)
    child = FORKS.Process(target=simulate, args=(tree, theirs))
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
    """Whether the test fails, or its process dies of a signal, and not for want of running; its last words."""
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
    if done.returncode < 0:
        return True, f"ended by {signal.Signals(-done.returncode).name}"
    return done.returncode == 1 and failed != "", failed or says[-1]


def keep_infrastructure(folder: Path, asked: Connection) -> None:
    """Run one until told to stop, or until the parent is gone."""
    from testkit.side_by_side import GIVEN
    from tests.local_stack import running_infrastructure

    with running_infrastructure(folder / "stack") as addresses:
        given = folder / "addresses.json"
        given.write_text(json.dumps(asdict(addresses)))
        asked.send({GIVEN: str(given)})
        parent = os.getppid()
        while os.getppid() == parent and not asked.poll(1):
            pass


@contextmanager
def infrastructure(folder: Path) -> Iterator[None]:
    """One for all suites, in a fork: this process imports nothing that bugs are planted in."""
    ours, theirs = FORKS.Pipe()
    child = FORKS.Process(target=keep_infrastructure, args=(folder, theirs))
    child.start()
    theirs.close()
    os.environ |= ours.recv()
    try:
        yield
    finally:
        with suppress(OSError):  # it may be gone
            ours.send("stop")
        child.join()


def copy(folder: Path) -> None:
    """Give this process a copy of its own to plant in: its working directory."""
    tree = folder / f"tree-{os.getpid()}"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    os.chdir(tree)


def check(bug: Planted) -> tuple[bool, str, float]:
    """Whether a bug is caught, by what, and after how many seconds."""
    began, tree = time.monotonic(), Path.cwd()
    before = plant(bug, tree)
    try:
        found, word = caught_by_simulation(tree) if bug.suite == SIM else caught_by_test(bug.suite, tree)
    finally:
        for path, text in before.items():
            path.write_text(text)
    return found, word, time.monotonic() - began


def main() -> int:
    """Plant the bugs whose name holds the argument, or all, one for each processor at a time; 1 if one is missed."""
    wanted = " ".join(sys.argv[1:])
    bugs = [bug for bug in BUGS if wanted in bug.name]
    if not bugs:
        print(f"no planted bug has '{wanted}' in its name", file=sys.stderr)
        return 2
    missed = 0
    for name in FOREIGN:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="sartor-planted-") as name, infrastructure(Path(name)):
        processes = min(len(bugs), len(os.sched_getaffinity(0)))
        with ProcessPoolExecutor(processes, FORKS, initializer=copy, initargs=(Path(name),)) as pool:
            asked = {pool.submit(check, bug): bug for bug in bugs}
            for answer in as_completed(asked):
                found, word, seconds = answer.result()
                missed += not found
                verdict = "caught" if found else "MISSED"
                print(f"{verdict}  {seconds:5.1f} s  {asked[answer].name:45} {word[:110]}", flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
