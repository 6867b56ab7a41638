"""`python -m tests.simulation`: many seeds on all cores, or one of them told line by line."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from tests.simulation.checkers import violations
from tests.simulation.scenario import Scenario
from tests.simulation.trace import lines, shortest
from tests.simulation.turn_checker import places_given
from tests.simulation.world import write_base

CHUNK = 20
MEMORY = Path("/dev/shm")
MOST_SHOWN = 3


@dataclass
class Tally:
    """Sums over seeds.

    Attributes:
        broken: the seeds that broke an invariant, and how.
        ended: the jobs by their last state.
        answered: the jobs by what answers by the names of their models in the end.
        crowded: of how many seeds more jobs came than there are trainers.
        gave: in how many of those a job gave its place.
        places: how often a job gave its place, in all seeds.
    """

    seeds: int
    steps: int
    faults: int
    lost_calls: int
    broken: dict[int, list[str]]
    ended: Counter[str]
    answered: Counter[str] = field(default_factory=Counter)
    crowded: int = 0
    gave: int = 0
    places: int = 0


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder with the base model, gone afterwards; nothing is logged meanwhile."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    folder = Path(tempfile.mkdtemp(prefix="sartor-sim-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        write_base(folder)
        gc.collect()
        gc.freeze()  # what is loaded by now is no garbage
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play(seeds: range) -> Tally:
    """Run some seeds in this process."""
    tally = Tally(len(seeds), 0, 0, 0, {}, Counter())
    with workspace() as folder:
        for seed in seeds:
            scenario = Scenario(seed, folder)
            try:
                history = scenario.run()
            except Exception as error:  # the harness itself came to grief: that seed counts as broken
                tally.broken[seed] = [f"crashed: {type(error).__name__}: {error}"]
                continue
            tally.steps += scenario.world.loop.steps
            tally.faults += len(history.faults)
            tally.lost_calls += scenario.world.network.lost
            tally.ended.update(job["state"] for job in scenario.world.databases["trainer"]["jobs"].documents.values())
            tally.answered.update(_by_what(answered) for answered in history.routes.values())
            places = len(list(places_given(history)))
            tally.places += places
            tally.crowded += scenario.crowded
            tally.gave += scenario.crowded and places > 0
            if wrong := violations(history):
                tally.broken[seed] = wrong
    return tally


def _by_what(version: str | None) -> str:
    return "nothing" if version is None else version.rpartition("@")[2] if "@" in version else "its adapter"


def many(first: int, count: int, workers: int, fail_fast: bool) -> Tally:
    """Run seeds in some processes; with `fail_fast` until the first that breaks."""
    size = 4 if fail_fast else CHUNK
    chunks = [range(at, min(at + size, first + count)) for at in range(first, first + count, size)]
    total = Tally(0, 0, 0, 0, {}, Counter())
    began = shown = time.monotonic()
    with multiprocessing.get_context("fork").Pool(min(len(chunks), workers)) as pool:
        for tally in pool.imap_unordered(play, chunks):
            total.seeds += tally.seeds
            total.steps += tally.steps
            total.faults += tally.faults
            total.lost_calls += tally.lost_calls
            total.ended += tally.ended
            total.answered += tally.answered
            total.crowded += tally.crowded
            total.gave += tally.gave
            total.places += tally.places
            total.broken |= tally.broken
            for seed, wrong in tally.broken.items():
                print(f"  seed {seed}: {wrong[:MOST_SHOWN]}", flush=True)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(
                    f"  {total.seeds} of {count} seeds, {len(total.broken)} broken, {shown - began:.0f} s", flush=True
                )
            if total.broken and fail_fast:
                pool.terminate()
                break
    return total


def tell(seed: int, *, whole: bool) -> bool:
    """Print a seed's violations and its course, the shortest that breaks unless `whole`; whether it held."""
    with workspace() as folder:
        history = Scenario(seed, folder).run()
        wrong = violations(history)
        if wrong and not whole:
            history = shortest(seed, folder, len(history.faults))
            wrong = violations(history)
    for line in lines(history):
        print(line)
    print(f"seed {seed}: {len(history.faults)} faults, {len(wrong)} violations")
    for line in wrong:
        print(f"  {line}")
    return not wrong


def main() -> int:
    """Run what the command line says; 1 where an invariant broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, told line by line")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; all cores if left out")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first that breaks, without its trace")
    asked = parser.parse_args()
    if asked.seed is not None:
        return not tell(asked.seed, whole=True)
    began = time.monotonic()
    total = many(asked.first, asked.seeds, asked.workers, asked.fail_fast)
    print(
        f"{total.seeds} seeds, {total.steps} steps, {total.faults} faults, {total.lost_calls} lost calls, "
        f"{len(total.broken)} seeds with violations, {time.monotonic() - began:.0f} s"
    )
    print("jobs: " + ", ".join(f"{count} {state}" for state, count in total.ended.most_common()))
    print("models: " + ", ".join(f"{count} answered by {what}" for what, count in total.answered.most_common()))
    print(f"places given: {total.places}; at least one in {total.gave} of {total.crowded} crowded seeds")
    if total.ended["succeeded"] <= total.ended["failed"]:
        print("more jobs failed than succeeded: whatever holds here, it is not the product at work")
        return 1
    for seed in sorted(total.broken)[:MOST_SHOWN]:
        print(f"seed {seed}: {total.broken[seed][:3]}  (make sim SEED={seed})")
    if total.broken and not asked.fail_fast:
        print("the shortest trace of the first:")
        tell(min(total.broken), whole=False)
    return bool(total.broken)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets must not depend on the process
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
