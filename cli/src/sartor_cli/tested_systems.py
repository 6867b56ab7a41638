"""What the tests of a job's versions measured, by system: own arm, own adapter, and the base model beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ARMS = ("head", "nearest")
LABELS = {"candidate": "own adapter", "base": "base, zero-shot", "few_shot": "base, few-shot"}


@dataclass(frozen=True)
class System:
    """One system on the held-out rows.

    Attributes:
        name: for people.
        answers_by: the kind of version it is; empty of the base model.
        value: by the metric that decided, between `low` and `high` with 95 % confidence.
        rows: how many it answered.
        milliseconds: the median of an answer, as the test waited for it; None where that is not kept.
    """

    name: str
    answers_by: str
    value: float
    low: float
    high: float
    rows: int
    milliseconds: float | None

    def cells(self) -> list[str]:
        """It as the cells of a table's row."""
        took = "" if self.milliseconds is None else f"{self.milliseconds:.0f}"
        return [self.name, f"{self.value:.2f}", f"{self.low:.2f} to {self.high:.2f}", str(self.rows), took]


def adapters_run(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest test of an adapter."""
    return next((run for run in runs if not run.get("arm")), None)


@dataclass(frozen=True)
class Tested:
    """The tests of one job's versions.

    Attributes:
        adapter: of its adapter; None where none came to be tested.
        arm: of its arm, if it has one.
    """

    adapter: dict[str, Any] | None
    arm: dict[str, Any] | None

    @classmethod
    def of(cls, runs: Sequence[dict[str, Any]]) -> Tested:
        """Sort the tests of one job, newest first."""
        return cls(adapters_run(runs), next((run for run in runs if run.get("arm")), None))

    def systems(self) -> list[System]:
        """Own arm, own adapter, base model; the arm by the adapter's test where it was asked the same rows there."""
        of_adapter = self.adapter["scores"] if self.adapter else {}
        kinds = [kind for kind in ARMS if kind in of_adapter]
        found = [self._system(self.adapter, kind, f"own arm, {kind}", kind) for kind in kinds]
        if not found and self.arm and "candidate" in self.arm["scores"]:
            kind = self.arm["arm"]
            found = [self._system(self.arm, "candidate", f"own arm, {kind}", kind)]
        of_base = {"candidate": "adapter"}
        return found + [
            self._system(self.adapter, name, label, of_base.get(name, ""))
            for name, label in LABELS.items()
            if name in of_adapter
        ]

    @property
    def metric(self) -> str:
        """The one that decided."""
        return str(next(run["metric"] for run in (self.adapter, self.arm) if run and run["scores"]))

    def besides(self) -> list[tuple[str, float]]:
        """What else was measured of the adapter."""
        of_adapter = self.adapter["metrics"] if self.adapter else {}
        return [(name, of["candidate"]["value"]) for name, of in of_adapter.items() if name != self.metric]

    def unmeasured(self) -> list[str]:
        """Why something was not tested."""
        return [str(run["reason"] or run["status"]) for run in (self.arm, self.adapter) if run and not run["scores"]]

    def _system(self, run: dict[str, Any] | None, name: str, label: str, answers_by: str) -> System:
        assert run is not None  # its scores were just looked at
        score = run["scores"][name]
        took = (run.get("usage") or {}).get(name)
        milliseconds = 1000 * took["seconds_median"] if took else None
        return System(label, answers_by, score["value"], score["low"], score["high"], score["n"], milliseconds)
