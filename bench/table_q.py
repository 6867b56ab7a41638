"""Table Q: whether what a job's model answers by is as good as the best that could have answered, by data set and rows.

`make table-q DATA=folder` runs it against a local stack, through the public API: each cell is one upload of one tenant,
whose test rows no upload of its seed holds. docs/arms.md says what it prints.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import openai
from bench.cells import Cell, Judged, base_of, summary, table
from bench.data_sets import CLASSES, DATA_SETS, NoSet, Row
from bench.kept import EVERY_KIND, Kept, Key, Unfit
from bench.uploads import GOES_ON_LONG, Outcome, Silent, judge, shown, stop_training, until_over, upload
from tests.conftest import LEAN, Tenant, make_tenant, until_bases_answer
from tests.tiny_stack import tiny_stack

from localstack import LocalStack, StackError

TINY = "tiny-test"
KINDS = ("head", "nearest")
SEEDS = 5
DATA = "SARTOR_BENCH_DATA"
"""The variable that names the folder of data sets."""

USUAL: Any = openai.NOT_GIVEN


def main() -> None:
    """Measure the cells that are asked for and not finished, then print the table."""
    arguments = _arguments()
    kept = Kept(arguments.out, Cell)
    try:
        kept.resume() if arguments.resume else kept.begin()
        unfinished = run(arguments, kept)
    except (NoSet, Unfit, StackError) as error:
        sys.exit(f"error: {error}")
    cells = [cell for cell in kept.finished if cell.key.base == arguments.base]
    print(f"\nCommand: `python -m bench.table_q {' '.join(sys.argv[1:])}`; base model: {arguments.base}.\n")
    print(f"{table(cells)}\n\n{summary(cells)}")
    sys.exit(f"error: {unfinished} cells are not finished; --resume tries them again" if unfinished else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.table_q", description=__doc__)
    add_data(parser)
    parser.add_argument("--out", type=Path, default=Path(".sartor/table_q.jsonl"), help="file of finished cells")
    parser.add_argument("--resume", action="store_true", help="keep the finished cells of that file")
    parser.add_argument("--only", nargs="+", choices=list(DATA_SETS), default=[one.name for one in CLASSES])
    parser.add_argument("--rows", nargs="+", type=int, help="rows of uploads; of each set its own if left out")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--adapters", action="store_true", help="wait for the adapters and ask them too")
    parser.add_argument(
        "--each-kind", action="store_true", help="ask both cheap arms, the other one where a stack tries it alone"
    )
    parser.add_argument(
        "--base", default="gemma-3-270m", help=f"base model; {TINY}: one that knows nothing, for trials"
    )
    parser.add_argument("--models", type=Path, default=Path(".sartor/models"), help="folder of base models")
    return parser.parse_args()


def add_data(parser: argparse.ArgumentParser) -> None:
    """Have a command take the folder of data sets."""
    data = os.environ.get(DATA)
    told = f"folder of data sets, each a folder with open.jsonl in it; or {DATA} in the environment"
    parser.add_argument("--data", type=Path, default=data and Path(data), required=data is None, help=told)


def run(arguments: argparse.Namespace, kept: Kept[Cell]) -> int:
    """Measure what is missing, a stack for each choice of kinds; how many cells could not be finished."""
    rows_of = {name: DATA_SETS[name].rows(arguments.data) for name in arguments.only}
    unfinished = 0
    for kinds in (EVERY_KIND, *(KINDS if arguments.each_kind else ())):
        missing = [key for key in keys(arguments, kinds) if not kept.has(key)]
        for key in missing:
            DATA_SETS[key.data_set].cut(rows_of[key.data_set], key.rows, key.seed)
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder, _stack(arguments, Path(folder), kinds) as stack:
            until_bases_answer(make_tenant(stack, "First of all"))
            for key in missing:
                try:
                    cell = measure(stack, key, rows_of[key.data_set], kept)
                except (Silent, openai.APIError) as error:
                    unfinished += 1
                    print(f"  {_named(key)}: not finished: {error}", flush=True)
                else:
                    kept.add(cell)
                    print(f"  {_told(cell)}", flush=True)
    return unfinished


def keys(arguments: argparse.Namespace, kinds: str) -> Iterator[Key]:
    """The cells that are asked for, small uploads of all sets first."""
    sizes: list[tuple[int, str]] = sorted(
        (rows, name) for name in arguments.only for rows in arguments.rows or DATA_SETS[name].sizes
    )
    for seed, (rows, name) in product(range(1, arguments.seeds + 1), sizes):
        yield Key(data_set=name, rows=rows, seed=seed, kinds=kinds, base=arguments.base, adapter=arguments.adapters)


def _stack(arguments: argparse.Namespace, folder: Path, kinds: str) -> LocalStack:
    environment = {**LEAN, "SARTOR_TRAINER_ARMS": kinds}
    if arguments.base == TINY:
        return tiny_stack(folder, environment, durable_log=False)
    return LocalStack(
        folder / "stack",
        base_model=arguments.base,
        models_dir=arguments.models.absolute(),
        environment=environment,
        usual_ports=False,
        durable_log=False,
        say=lambda line: print(f"  {line}", flush=True),
    )


def measure(stack: LocalStack, key: Key, rows: list[Row], kept: Kept[Cell]) -> Cell:
    """One cell.

    Raises:
        Silent: it did not come to an end, or something else answered than was measured.
    """
    data_set = DATA_SETS[key.data_set]
    uploaded, tested = data_set.cut(rows, key.rows, key.seed)
    tenant = make_tenant(stack, f"{_named(key)}", gate="auto")
    outcome = upload(tenant, uploaded, key.base, key.seed, USUAL if key.adapter else GOES_ON_LONG)
    judged = {"commonest": always_the_commonest(uploaded, tested)}
    stays = _judge_own(stack, tenant, key, outcome, tested, judged)
    judged["base"] = base_of(key, kept.finished) or judge(tenant, stack, key.base, "base", data_set, tested)
    return Cell(
        key=key,
        judged=judged,
        served=outcome.served,
        stays=stays,
        came_to=outcome.came_to,
        seconds=outcome.seconds,
        out_of_fold=outcome.out_of_fold,
        reason=outcome.reason,
        said=outcome.said,
    )


def _judge_own(
    stack: LocalStack, tenant: Tenant, key: Key, outcome: Outcome, tested: Sequence[Row], judged: dict[str, Judged]
) -> str:
    """Ask what answers under the name, the arm while the training is paused; what does so at last."""
    job_id, jobs = outcome.job["id"], tenant.sdk.fine_tuning.jobs

    def ask_by_name() -> str:
        job = shown(tenant, f"/fine_tuning/jobs/{job_id}")
        by, name = job["answers_by"] or "", job["fine_tuned_model"]
        if by and by not in judged:
            judged[by] = judge(tenant, stack, name, by, DATA_SETS[key.data_set], tested)
        return by

    stop_training(tenant, job_id)
    stays = ask_by_name()
    if not key.adapter:
        return stays
    if shown(tenant, f"/fine_tuning/jobs/{job_id}")["stage"] == "paused":
        jobs.resume(job_id)
    until_over(tenant, job_id)
    return ask_by_name()


def always_the_commonest(uploaded: Iterable[Row], tested: Iterable[Row]) -> Judged:
    """What always giving the commonest answer of an upload is worth."""
    [(commonest, _)] = Counter(row.answer for row in uploaded).most_common(1)
    return Judged(marks="".join("01"[row.is_right(commonest)] for row in tested))


def _named(key: Key) -> str:
    return f"{key.data_set} {key.rows} rows, seed {key.seed}, {key.kinds}"


def _told(cell: Cell) -> str:
    shares = ", ".join(f"{name} {judged.share:.2f}" for name, judged in cell.judged.items())
    seconds = "" if cell.seconds is None else f" after {cell.seconds:.1f} s"
    return f"{_named(cell.key)}: {cell.came_to}{seconds}; {shares}. {cell.reason}"


if __name__ == "__main__":
    main()
