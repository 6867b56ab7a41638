"""How often an arm comes to answer that was fitted to rows whose answers were dealt at random: 5 % at most should.

`python -m bench.shuffled_labels --data FOLDER --decisions 200` fits, measures and judges by the code that decides, in
one process. `--uploads 200` sends so many uploads of each set and size through the public API of a local stack, which
takes a minute each; `--resume` goes on where such a run was stopped.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import openai
from bench.data_sets import CLASSES, DATA_SETS, NoSet, Row
from bench.deciding import Deciding
from bench.kept import EVERY_KIND, Finished, Kept, Key, Unfit
from bench.shares import share_of
from bench.table_q import TINY, add_data
from bench.uploads import GOES_ON_LONG, Silent, upload
from tests.conftest import LEAN, make_tenant, until_bases_answer
from tests.tiny_stack import tiny_stack

from localstack import StackError
from rag_indexer.e5 import E5

MOST_PROMOTED = 0.05
DECIDED = "deciding code"
TRUE = "deciding code, true answers"
"""Of a key, in place of the base model: no stack was asked. What true answers come to is the other side of the same
decision: one that lets nothing through is of no use."""


class Shuffled(Finished):
    """One upload whose answers were dealt at random, or by its key are true.

    Attributes:
        came_to: what became of its arm; `answers` is the fault where they were dealt.
        reason: why.
    """

    came_to: str
    reason: str


def main() -> None:
    """Do what is asked for and not done, then print how often an arm came to answer."""
    arguments = _arguments()
    kept = Kept(arguments.out, Shuffled)
    try:
        kept.resume() if arguments.resume else kept.begin()
        decide(arguments, kept)
        send(arguments, kept)
    except (NoSet, Unfit, StackError) as error:
        sys.exit(f"error: {error}")
    print(f"\nCommand: `python -m bench.shuffled_labels {' '.join(sys.argv[1:])}`.\n\n{table(kept.finished)}")
    ways = too_often(kept.finished)
    sys.exit(f"error: arms of dealt answers come to answer too often: {', '.join(ways)}" if ways else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.shuffled_labels", description=__doc__)
    add_data(parser)
    parser.add_argument("--out", type=Path, default=Path(".sartor/shuffled_labels.jsonl"), help="file of what is done")
    parser.add_argument("--resume", action="store_true", help="keep what that file holds")
    parser.add_argument("--only", nargs="+", choices=list(DATA_SETS), default=[one.name for one in CLASSES])
    parser.add_argument("--rows", nargs="+", type=int, help="rows of uploads; of each set its own if left out")
    parser.add_argument("--decisions", type=int, default=0, help="of each set and size, by the code that decides")
    parser.add_argument("--uploads", type=int, default=0, help="of each set and size, through the public API")
    return parser.parse_args()


def shuffled(rows: list[Row], key: Key) -> list[Row]:
    """An upload of a set whose answers are dealt among its rows at random."""
    uploaded, _ = DATA_SETS[key.data_set].cut(rows, key.rows, key.seed)
    answers = [row.answer for row in uploaded]
    random.Random(f"{key.data_set} {key.rows} {key.seed} answers").shuffle(answers)
    return [replace(row, answer=answer) for row, answer in zip(uploaded, answers, strict=True)]


def decide(arguments: argparse.Namespace, kept: Kept[Shuffled]) -> None:
    """By the code that decides: the same uploads with the answers dealt and with their own."""
    for name in arguments.only:
        rows = DATA_SETS[name].rows(arguments.data)
        deciding = Deciding(E5(1))
        for key in _missing(arguments, kept, name, arguments.decisions, DECIDED):
            came_to, reason = deciding.on(shuffled(rows, key), key.seed)
            kept.add(Shuffled(key=key, came_to=came_to, reason=reason))
        for key in _missing(arguments, kept, name, arguments.decisions, TRUE):
            uploaded, _ = DATA_SETS[name].cut(rows, key.rows, key.seed)
            came_to, reason = deciding.on(uploaded, key.seed)
            kept.add(Shuffled(key=key, came_to=came_to, reason=reason))


def send(arguments: argparse.Namespace, kept: Kept[Shuffled]) -> None:
    """Through the public API."""
    missing = [key for name in arguments.only for key in _missing(arguments, kept, name, arguments.uploads, TINY)]
    if not missing:
        return
    rows = {name: DATA_SETS[name].rows(arguments.data) for name in arguments.only}
    with tempfile.TemporaryDirectory() as folder, tiny_stack(Path(folder), LEAN, durable_log=False) as stack:
        until_bases_answer(make_tenant(stack, "First of all"))
        for key in sorted(missing, key=lambda one: one.seed):
            tenant = make_tenant(stack, f"{key.data_set} {key.rows} rows, {key.seed}", gate="auto")
            try:
                outcome = upload(tenant, shuffled(rows[key.data_set], key), key.base, key.seed, GOES_ON_LONG)
            except (Silent, openai.APIError) as error:
                sys.exit(f"error: {key.data_set}, {key.rows} rows, {key.seed}: {error}; --resume goes on")
            tenant.sdk.fine_tuning.jobs.cancel(outcome.job["id"])
            kept.add(Shuffled(key=key, came_to=outcome.came_to, reason=outcome.reason))
            print(f"  {key.data_set}, {key.rows} rows, {key.seed}: {outcome.came_to}. {outcome.reason}", flush=True)


def _missing(arguments: argparse.Namespace, kept: Kept[Shuffled], name: str, count: int, base: str) -> list[Key]:
    sizes = arguments.rows or DATA_SETS[name].sizes
    wanted = [
        Key(data_set=name, rows=rows, seed=seed, kinds=EVERY_KIND, base=base)
        for rows in sizes
        for seed in range(1, count + 1)
    ]
    return [key for key in wanted if not kept.has(key)]


def table(found: Iterable[Shuffled]) -> str:
    """By set, size and way, how often an arm came to answer, as Markdown."""
    groups: dict[tuple[str, str, int], list[Shuffled]] = defaultdict(list)
    for one in found:
        groups[one.key.base, one.key.data_set, one.key.rows].append(one)
    lines = ["| by | set | rows | came to | promoted |", "| --- | --- | --- | --- | --- |"]
    for (by, name, rows), members in sorted(groups.items()):
        came_to = ", ".join(f"{what} {count}" for what, count in sorted(Counter(m.came_to for m in members).items()))
        lines.append(f"| {by} | {name} | {rows} | {came_to} | {share_of(_promoted(members), len(members))} |")
    for by, members in sorted(_by_way(found).items()):
        lines.append(f"| {by} | all | | | {share_of(_promoted(members), len(members))} |")
    return "\n".join(lines)


def too_often(found: Iterable[Shuffled]) -> list[str]:
    """The ways by which more arms came to answer than may."""
    ways = _by_way(found)
    return [by for by in ways if by != TRUE and _promoted(ways[by]) > MOST_PROMOTED * len(ways[by])]


def _by_way(found: Iterable[Shuffled]) -> dict[str, list[Shuffled]]:
    ways: dict[str, list[Shuffled]] = defaultdict(list)
    for one in found:
        ways[one.key.base].append(one)
    return ways


def _promoted(found: Iterable[Shuffled]) -> int:
    return sum(one.came_to == "answers" for one in found)


if __name__ == "__main__":
    main()
