"""`python -m tests.planted [part of a name ...]`: plants each bug in a copy and runs the suite that must notice."""

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
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from tests.planted.bug import SIM, Planted
from tests.planted.choice import Checked, arguments, chosen, note, state_of
from tests.planted.points import planted, sources
from tests.planted.rows import BUGS

ROOT = Path(__file__).parents[2]
FORKS = multiprocessing.get_context("fork")
SEEDS = 600
PORTION = 5
SECONDS = 240
LEFT_OUT = shutil.ignore_patterns(".venv", ".git", ".sartor", "__pycache__", ".*_cache", "shared", "*.egg-info")
FOREIGN = ("aiokafka.admin", "fastapi", "faststream.kafka", "httpx2", "joserfc", "minio", "motor.motor_asyncio")
"""What takes long to import, loaded once; none of it is ours."""


def simulate(tree: Path, answer: Connection) -> None:
    """Run seeds on the copy until one breaks, in a fork: what is not ours is imported already."""
    sys.path[:0] = map(str, sources(tree))
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
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources(tree)))}
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


def check(bug: Planted) -> Checked:
    """Plant a bug in this process's copy, run its suite, and take the bug out again."""
    began, tree, state = time.monotonic(), Path.cwd(), state_of(bug)
    after = planted(bug, tree)
    before = {path: path.read_text() for path in after}
    try:
        for path, text in after.items():
            path.write_text(text)
        caught, word = caught_by_simulation(tree) if bug.suite == SIM else caught_by_test(bug.suite, tree)
    finally:
        for path, text in before.items():
            path.write_text(text)
    return Checked(bug.name, caught, word, time.monotonic() - began, state)


def check_all(bugs: Sequence[Planted]) -> Iterator[Checked]:
    """Check one bug for each processor at a time, and tell each as it is done."""
    for name in FOREIGN:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="sartor-planted-") as name, infrastructure(Path(name)):
        processes = min(len(bugs), len(os.sched_getaffinity(0)))
        with ProcessPoolExecutor(processes, FORKS, initializer=copy, initargs=(Path(name),)) as pool:
            for answer in as_completed([pool.submit(check, bug) for bug in bugs]):
                yield answer.result()


def main() -> int:
    """Plant the bugs that are asked for, or all; 1 if one is missed."""
    asked = arguments().parse_args()
    began, bugs, missed = time.monotonic(), chosen(BUGS, asked), 0
    if not bugs:
        print("nothing is left to plant")
        return 0
    for one in check_all(bugs):
        missed += not one.caught
        print(
            f"{'caught' if one.caught else 'MISSED'}  {one.seconds:5.1f} s  {one.name:45} {one.word[:110]}", flush=True
        )
        if asked.resume:
            note(one, asked.resume)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught in {time.monotonic() - began:.0f} s")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
