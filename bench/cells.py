"""The cells of Table Q: what was measured in each, and the table and the summary that are made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.kept import EVERY_KIND, Finished, Key
from bench.shares import interval, share_of
from pydantic import BaseModel, ConfigDict

from evaluator.comparison import ALPHA, sign_flip_p_value

A_POINT = 0.01
COLUMNS = ("commonest", "base", "head", "nearest", "adapter")
NOTHING = "-"


class Judged(BaseModel):
    """What somebody answered to the test rows.

    Attributes:
        marks: of each row in its order, 1 where it was right and 0 where it was not.
        processor_seconds: of 1,000 answers, in the whole stack, above what it takes at rest; None where nobody is
            asked.
    """

    model_config = ConfigDict(frozen=True)

    marks: str
    processor_seconds: float | None = None

    @property
    def right(self) -> int:
        """How many were right."""
        return self.marks.count("1")

    @property
    def share(self) -> float:
        """Of the rows, how many were right."""
        return self.right / len(self.marks)


class Cell(Finished):
    """One upload with what came of it.

    Attributes:
        judged: by arm, `base` and `commonest`.
        served: the arm that answered first, or nothing.
        stays: what answered at the end of the job; of a cell without an adapter, what answered first.
        came_to: what became of the arm, in a word.
        seconds: from the upload to the first own answer; None where there was none.
        out_of_fold: accuracies that the card of the arm shows.
        reason: of the arm's test, or why there is no arm.
        said: the events of the job.
    """

    judged: dict[str, Judged]
    served: str
    stays: str
    came_to: str
    seconds: float | None
    out_of_fold: dict[str, float]
    reason: str
    said: list[str]


def is_better(one: Judged, other: Judged) -> bool:
    """Whether one is better beyond doubt on the same rows, by McNemar's exact test."""
    differences = [int(a) - int(b) for a, b in zip(one.marks, other.marks, strict=True)]
    return sign_flip_p_value(differences, seed=0) <= ALPHA


def chosen(cells: Iterable[Cell]) -> list[Cell]:
    """The cells in which the product chose."""
    return [cell for cell in cells if cell.key.kinds == EVERY_KIND]


def base_of(key: Key, cells: Iterable[Cell]) -> Judged | None:
    """What the base model answered to the same test rows in another cell."""
    same = (key.data_set, key.seed, key.base)
    for cell in cells:
        if (cell.key.data_set, cell.key.seed, cell.key.base) == same and "base" in cell.judged:
            return cell.judged["base"]
    return None


def judged_of(cell: Cell, cells: Iterable[Cell]) -> dict[str, Judged]:
    """All that was asked the test rows of a cell; also arms that served where the stack tries one kind alone."""
    found = dict(cell.judged)
    for other in cells:
        if other.key.model_copy(update={"kinds": EVERY_KIND}) == cell.key:
            found = {**other.judged, **found}
    return found


def answering(cell: Cell) -> Judged:
    """What answers at last; where nothing of its own does, the base model is what is left."""
    return cell.judged[cell.stays or "base"]


def table(cells: Sequence[Cell]) -> str:
    """All cells in which the product chose, as Markdown."""
    titles = ["set", "rows", "seed", *COLUMNS, "out of fold", "serves", "arm", "seconds", "CPU s per 1,000"]
    lines = [titles, ["---"] * len(titles)]
    for cell in sorted(chosen(cells), key=lambda one: (one.key.data_set, one.key.rows, one.key.seed)):
        judged = judged_of(cell, cells)
        shown = [_share(judged[name]) if name in judged else NOTHING for name in COLUMNS]
        fold = ", ".join(f"{name.removesuffix('_accuracy')} {value:.2f}" for name, value in cell.out_of_fold.items())
        cost = ", ".join(
            f"{name} {one.processor_seconds:.1f}" for name, one in judged.items() if one.processor_seconds is not None
        )
        lines.append(
            [
                cell.key.data_set,
                str(cell.key.rows),
                str(cell.key.seed),
                *shown,
                fold or NOTHING,
                cell.stays or "nothing",
                cell.came_to,
                NOTHING if cell.seconds is None else f"{cell.seconds:.1f}",
                cost or NOTHING,
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(cells: Sequence[Cell]) -> str:
    """How often the choice was a good one, as Markdown."""
    counted = chosen(cells)
    others = [(answering(cell), judged_of(cell, cells)) for cell in counted]
    near = sum(own.share >= max(one.share for one in judged.values()) - A_POINT for own, judged in others)
    beaten = sum(any(is_better(one, own) for one in judged.values()) for own, judged in others)
    below = sum(is_better(judged["base"], own) for own, judged in others)
    silent = sum(not cell.stays for cell in counted)
    losers = sum(len({"head", "nearest"} & judged.keys()) == 2 for _, judged in others)
    lines = [
        f"Answers within a point of the best judged: {share_of(near, len(counted))}.",
        f"Another is better beyond doubt on the same rows: {share_of(beaten, len(counted))}.",
        f"Below the base model beyond doubt: {share_of(below, len(counted))}.",
        f"Nothing of its own answers, so the base model counts as what is left: {share_of(silent, len(counted))}.",
        f"Cells in which both cheap arms were asked: {losers} of {len(counted)}; in the others a version that does not "
        "serve cannot be asked, and `out of fold` is what its card shows of both kinds.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _share(judged: Judged) -> str:
    low, high = interval(judged.right, len(judged.marks))
    return f"{judged.share:.2f} ({low:.2f}-{high:.2f})"
