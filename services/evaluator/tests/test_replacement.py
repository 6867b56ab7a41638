"""Whether an arm goes on serving beside its adapter, and the one answer that an arm must be better than."""

from __future__ import annotations

import pytest

from evaluator.comparison import compare
from evaluator.guess import best_guess
from evaluator.metrics import ACCURACY, CHRF
from evaluator.replacement import arm_goes_on
from evaluator.rows import Row


def pairs(gains: int, losses: int, of: int) -> tuple[list[float], list[float]]:
    """Scores of adapter and arm: so many rows that only the one got right, so many that only the other did."""
    same = [1.0] * (of - gains - losses)
    return [1.0] * gains + [0.0] * losses + same, [0.0] * gains + [1.0] * losses + same


@pytest.mark.parametrize(
    ("gains", "losses", "of", "goes_on"),
    [
        (3, 1, 400, True),
        (12, 2, 400, False),
        (200, 0, 400, False),
        (0, 0, 400, True),
        (0, 0, 10, True),
        (0, 3, 20, True),
        (1, 0, 20, False),
        (3, 2, 20, False),
        (6, 5, 100, True),
        (8, 6, 100, False),
        (1, 0, 100, True),
        (6, 0, 10, False),
        (0, 9, 9, False),
        (0, 0, 0, False),
    ],
    ids=[
        "many rows, within five points",
        "many rows, better beyond doubt",
        "many rows, far better",
        "many rows, alike",
        "few rows, alike",
        "few rows, worse",
        "few rows, one more",
        "few rows, one more of many moved",
        "rows do not tell, within a point",
        "rows do not tell, beyond a point",
        "rows tell, within five points",
        "few rows, better beyond doubt",
        "too few rows, worse in all",
        "no rows",
    ],
)
def test_the_cheaper_one_goes_on_where_the_other_is_hardly_better(
    gains: int, losses: int, of: int, goes_on: bool
) -> None:
    adapter, arm = pairs(gains, losses, of)
    assert arm_goes_on(compare(adapter, arm, 1), min_rows=10) is goes_on


def test_what_is_better_beyond_doubt_takes_over_though_it_is_within_five_points() -> None:
    adapter, arm = pairs(8, 0, 1000)
    found = compare(adapter, arm, 1)
    assert found.interval.high < 0.05
    assert not arm_goes_on(found, min_rows=10)


def row(index: int, answer: str, *, taught: bool = True) -> Row:
    return Row(index, ({"role": "user", "content": f"n {index}"},), answer, taught=taught)


def test_of_classes_the_commonest_is_guessed_and_none_that_is_not_to_be_learned() -> None:
    train = [row(0, "a"), row(1, "b"), row(2, "b"), *(row(number, "c", taught=False) for number in range(3, 9))]
    assert best_guess(train, ACCURACY, 1, of_classes=True) == "b"


def test_of_free_text_the_guess_is_what_all_are_most_like() -> None:
    alike = [row(number, f"You may return it within {number + 10} days, in its own box.") for number in range(8)]
    odd = [row(20, "Invoices: see account."), row(21, "Invoices: see account.")]
    assert best_guess([*odd, *alike], CHRF, 1, of_classes=False).startswith("You may return it")


def test_where_nothing_is_to_be_learned_nothing_is_guessed() -> None:
    assert best_guess([row(0, "a", taught=False)], CHRF, 1, of_classes=False) == ""
