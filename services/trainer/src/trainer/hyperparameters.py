"""Turns the hyperparameters of a fine-tuning request, "auto" or given, into the ones the run is made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.errors import Invalid
from chassis.text import quoted, shown

BASE_LEARNING_RATE = 1e-3
"""Peak learning rate of a LoRA run at a multiplier of 1. LoRA wants about ten times the rate of full fine-tuning
(Schulman et al., "LoRA Without Regret", 2025)."""

MAX_EPOCHS = 50
MAX_BATCH_SIZE = 256
MAX_LEARNING_RATE_MULTIPLIER = 10.0

ROWS_WANTED = 1200
"""Rows a run should see in all, repeats included; fewer rows are repeated more often, up to `AUTO_EPOCHS`."""

AUTO_EPOCHS = range(1, 26)

NAMES = ("n_epochs", "batch_size", "learning_rate_multiplier", "early_stop_patience")


@dataclass(frozen=True)
class Hyperparameters:
    """Resolved hyperparameters; the first three are OpenAI's fields.

    Attributes:
        early_stop_patience: epochs in a row that are surely worse on the validation rows after which the run stops; 0
            never stops.
    """

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    early_stop_patience: int = 0

    @property
    def learning_rate(self) -> float:
        """Peak learning rate of the run."""
        return BASE_LEARNING_RATE * self.learning_rate_multiplier


def resolve_hyperparameters(n_rows: int, requested: Mapping[str, Any] | None = None) -> Hyperparameters:
    """Fill in what was left to "auto" and check what was given.

    Args:
        n_rows: training rows of the dataset, at least 1.
        requested: OpenAI's `hyperparameters`; a field that is absent, None or "auto" is chosen here.

    Raises:
        Invalid: a field is unknown, of the wrong type or out of its range; `param` names it.
    """
    asked = {name: value for name, value in (requested or {}).items() if value is not None}
    unknown = asked.keys() - set(NAMES)
    if unknown:
        name = shown(min(unknown), 100)
        raise Invalid(
            f"hyperparameters.{name}: unknown; {', '.join(NAMES)} can be set.", param=f"hyperparameters.{name}"
        )
    given = {name: value for name, value in asked.items() if value != "auto"}
    return Hyperparameters(
        n_epochs=_integer(given, "n_epochs", MAX_EPOCHS, auto=_auto_epochs(n_rows)),
        batch_size=_integer(given, "batch_size", MAX_BATCH_SIZE, auto=_auto_batch_size(n_rows)),
        learning_rate_multiplier=_multiplier(given),
        early_stop_patience=_integer(given, "early_stop_patience", MAX_EPOCHS, lowest=0, auto=0),
    )


def _auto_epochs(n_rows: int) -> int:
    return min(max(round(ROWS_WANTED / n_rows), AUTO_EPOCHS.start), AUTO_EPOCHS.stop - 1)


def _auto_batch_size(n_rows: int) -> int:
    """A step for every 1/30 of the rows, between 4 (gradients too noisy below) and 32, in powers of two."""
    return 1 << min(max((n_rows // 30).bit_length(), 2), 5)


def _integer(given: Mapping[str, Any], name: str, highest: int, *, auto: int, lowest: int = 1) -> int:
    value = given.get(name, auto)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise _out_of_range(name, f"a whole number from {lowest} to {highest}", value)
    return value


def _multiplier(given: Mapping[str, Any]) -> float:
    name = "learning_rate_multiplier"
    value = given.get(name, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_LEARNING_RATE_MULTIPLIER:
        raise _out_of_range(name, f"a number above 0 and at most {MAX_LEARNING_RATE_MULTIPLIER:g}", value)
    return float(value)


def _out_of_range(name: str, allowed: str, value: object) -> Invalid:
    return Invalid(
        f'hyperparameters.{name}: must be {allowed}, or "auto"; got {quoted(value, 100)}.',
        param=f"hyperparameters.{name}",
    )
