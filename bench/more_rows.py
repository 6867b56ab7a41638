"""Whether a data report holds: what more rows bring beside what was said, and how many wrong rows are named.

`python -m bench.more_rows --data FOLDER` fits as the trainer does, in one process, to some rows of each set and then to
twice as many, and asks rows that neither holds. Then one row in twenty gets another answer of the set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bench.data_sets import CLASSES, DATA_SETS, NoSet, Row
from bench.table_q import add_data

from arms import Fit, Numbers, Places, data_report, fit, kinds_for
from rag_indexer.e5 import E5
from rag_indexer.embedding import Embedder
from schemas.artifacts import DataReport

TESTED = 100
SEEDS = 6
WRONG = 20
"""One row in so many gets another answer."""


@dataclass(frozen=True)
class Promise:
    """What was said of an upload, and what came of it; shares of right answers.

    Attributes:
        said: that twice the rows would bring; None where too few answers were wrong to tell.
        brought: by twice the rows.
        inside: what they brought lies in the range that was said.
        near: it does, give or take the standard error of what they brought, paired by question, twice.
        wrong: rows that got another answer.
        named: rows that were named as looking wrong.
        right: of these, how many had got another answer.
    """

    said: float | None
    brought: float
    inside: bool
    near: bool
    wrong: int
    named: int
    right: int


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.more_rows", description=__doc__)
    add_data(parser)
    parser.add_argument("--only", nargs="+", choices=list(DATA_SETS), default=[one.name for one in CLASSES])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    print("| set | rows | said of twice as many | brought | root mean square error | in the range | named, wrong |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    try:
        for name in arguments.only:
            rows = DATA_SETS[name].rows(arguments.data)
            vectors = vectors_of(E5(1), rows)
            for count in sizes(len(rows)):
                found = [promise(rows, vectors, count, seed) for seed in range(1, arguments.seeds + 1)]
                print(line(name, count, found), flush=True)
    except NoSet as error:
        sys.exit(f"error: {error}")


def sizes(rows: int) -> list[int]:
    """Uploads of which twice the rows are there, beside those that are tested."""
    most = (rows - min(TESTED, rows // 3)) // 2
    return sorted({one for one in (60, 120, most) if 20 <= one <= most})


def vectors_of(embedder: Embedder, rows: Sequence[Row]) -> Numbers:
    """Of the rows' questions, in portions."""
    asked = [row.question for row in rows]
    return np.concatenate([embedder.queries(asked[first : first + 64]) for first in range(0, len(asked), 64)])


def promise(rows: Sequence[Row], vectors: Numbers, count: int, seed: int) -> Promise:
    """One upload, and one of twice as many rows."""
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(rows))
    answers = np.array([row.answer for row in rows])
    half, twice, tested = order[:count], order[: 2 * count], order[2 * count :]
    report, right = fitted(vectors, answers, half, tested, seed)
    _, right_of_twice = fitted(vectors, answers, twice, tested, seed)
    more = right_of_twice.astype(float) - right
    brought, error = float(more.mean()), float(more.std() / len(more) ** 0.5)
    gain = report.curve.twice
    other = answers.copy()
    changed = chance.choice(half, max(1, count // WRONG), replace=False)
    for row in changed:
        other[row] = chance.choice(np.unique(answers[answers != answers[row]]))
    named = [int(one.question) for one in fitted(vectors, other, half, tested, seed)[0].suspects]
    return Promise(
        said=gain.gain if gain else None,
        brought=brought,
        inside=gain is not None and gain.low <= brought <= gain.high,
        near=gain is not None and gain.low - 2 * error <= brought <= gain.high + 2 * error,
        wrong=len(changed),
        named=len(named),
        right=len(set(named) & set(changed.tolist())),
    )


def fitted(
    vectors: Numbers, answers: np.ndarray, known: np.ndarray, asked: np.ndarray, seed: int
) -> tuple[DataReport, np.ndarray]:
    """What rows tell, and which of others the better arm answers rightly."""
    names, inverse = np.unique(answers[known], return_inverse=True)
    places: Places = inverse.astype(np.int32)
    fits: list[Fit] = [fit(kind, vectors[known], places, seed) for kind in kinds_for(places)]
    best = max(fits, key=lambda one: one.accuracy)
    questions = {place: str(row) for place, row in enumerate(known.tolist())}
    report = data_report(best, vectors[known], places, names.tolist(), questions, seed)
    said = names[best.arm.confidences(vectors[asked]).argmax(axis=1)]
    return report, said == answers[asked]


def line(name: str, count: int, found: Sequence[Promise]) -> str:
    """A line of the table, over some seeds."""
    told = [one for one in found if one.said is not None]
    said, brought = [one.said or 0.0 for one in told], [one.brought for one in told]
    cells = ["-", f"{np.mean([one.brought for one in found]):+.3f} (nothing was said)", "-", "-"]
    if told:
        error = float(np.sqrt(np.mean((np.array(said) - np.array(brought)) ** 2)))
        inside, near = (sum(getattr(one, part) for one in told) for part in ("inside", "near"))
        ranges = f"{inside} of {len(told)}, {near} but for the test's own error"
        cells = [f"{np.mean(said):+.3f}", f"{np.mean(brought):+.3f}", f"{error:.3f}", ranges]
    wrong, named, right = (sum(getattr(one, part) for one in found) for part in ("wrong", "named", "right"))
    return f"| {name} | {count} | {' | '.join(cells)} | {right} of {wrong}, among {named} named |"


if __name__ == "__main__":
    main()
