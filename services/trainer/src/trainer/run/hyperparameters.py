"""The hyperparameters of requests, "auto" or given: what each method can be told, and within which limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from chassis.errors import Invalid
from chassis.text import quoted, shown

BASE_LEARNING_RATE = 1e-3
"""Peak learning rate of a LoRA run at a multiplier of 1. LoRA wants about ten times the rate of full fine-tuning
(Schulman et al., "LoRA Without Regret", 2025)."""

ROWS_WANTED = 1200
"""Rows a run should see in all, repeats included; fewer rows are repeated more often, up to `AUTO_EPOCHS`."""

AUTO_EPOCHS = range(1, 26)


@dataclass(frozen=True)
class Hyperparameter:
    """One number that a request may set.

    Attributes:
        name: as requests name it.
        lowest: the least it may be; not itself allowed where it is not a whole number.
        highest: the most.
        whole: whether it is a whole number.
        auto: its value at "auto", from the number of examples; None: it is then left out, and the run decides.
    """

    name: str
    lowest: float
    highest: float
    whole: bool = True
    auto: Callable[[int], float] | None = None

    def checked(self, value: JsonValue) -> float:
        """A given value.

        Raises:
            Invalid: it is of the wrong type or out of its range.
        """
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        if number is None or not self._allows(number):
            span = f"from {self.lowest:g} to {self.highest:g}"
            allowed = f"a whole number {span}" if self.whole else f"a number above 0 and at most {self.highest:g}"
            raise Invalid(
                f'hyperparameters.{self.name}: must be {allowed}, or "auto"; got {quoted(value, 100)}.',
                param=f"hyperparameters.{self.name}",
            )
        return number if self.whole else float(number)

    def _allows(self, number: float) -> bool:
        if self.whole:
            return isinstance(number, int) and self.lowest <= number <= self.highest
        return self.lowest < number <= self.highest


def resolve(
    hyperparameters: Iterable[Hyperparameter], n_examples: int, requested: Mapping[str, JsonValue] | None = None
) -> dict[str, float]:
    """Fill in what was left to "auto" and check what was given.

    Args:
        hyperparameters: those of a method.
        n_examples: rows or windows of the training file, at least 1.
        requested: OpenAI's `hyperparameters`; a field that is absent, None or "auto" is chosen here.

    Raises:
        Invalid: a field is unknown, of the wrong type or out of its range; `param` names it.
    """
    known = {one.name: one for one in hyperparameters}
    asked = {name: value for name, value in (requested or {}).items() if value is not None}
    if unknown := asked.keys() - known.keys():
        name = shown(min(unknown), 100)
        raise Invalid(
            f"hyperparameters.{name}: unknown; {', '.join(known)} can be set.", param=f"hyperparameters.{name}"
        )
    given = {name: value for name, value in asked.items() if value != "auto"}
    chosen = {}
    for name, one in known.items():
        if name in given:
            chosen[name] = one.checked(given[name])
        elif one.auto is not None:
            chosen[name] = one.auto(n_examples)
    return chosen


def auto_epochs(n_rows: int) -> int:
    """The fewer rows, the more often each is seen."""
    return min(max(round(ROWS_WANTED / n_rows), AUTO_EPOCHS.start), AUTO_EPOCHS.stop - 1)


def auto_batch_size(n_rows: int) -> int:
    """A step for every 1/30 of the rows, between 4 (gradients too noisy below) and 32, in powers of two."""
    return 1 << min(max((n_rows // 30).bit_length(), 2), 5)


N_EPOCHS = Hyperparameter("n_epochs", 1, 50, auto=auto_epochs)
BATCH_SIZE = Hyperparameter("batch_size", 1, 256, auto=auto_batch_size)
LEARNING_RATE = Hyperparameter("learning_rate_multiplier", 0, 10.0, whole=False, auto=lambda _: 1.0)
EARLY_STOP_PATIENCE = Hyperparameter("early_stop_patience", 0, 50)
"""Epochs in a row that are surely worse on the validation rows after which the run stops; 0 never stops."""

OF_ALL_METHODS = (N_EPOCHS.name, BATCH_SIZE.name, LEARNING_RATE.name, EARLY_STOP_PATIENCE.name)
"""Those that the recipe itself honours; what else a method can be told, it reads from `RunConfig.of_method`."""
