"""What a training process says, one report a line of its output, and its worker reads; no torch."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Reason = Literal["too_long", "unweighted", "repeated"]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True)


class RowsRead(_Said):
    """How many rows or texts of a file are used, and how many were left out for which reason."""

    used: int
    left_out: dict[Reason, int]

    @property
    def all(self) -> int:
        """How many there are."""
        return self.used + sum(self.left_out.values())


class Started(_Said):
    """The run begins, or goes on after a step."""

    type: Literal["started"] = "started"
    step: int
    total_steps: int
    epochs: int
    rows: RowsRead
    validation_rows: RowsRead
    unit: str
    note: str
    max_length: int
    trainable_parameters: int


class Step(_Said):
    """A step is done."""

    type: Literal["step"] = "step"
    step: int
    total_steps: int
    epoch: float
    train_loss: float
    train_mean_token_accuracy: float
    learning_rate: float
    tokens: int
    elapsed_s: float

    @property
    def numbers(self) -> dict[str, int | float]:
        """What it measured."""
        return self.model_dump(exclude={"type", "elapsed_s"})


class Validation(_Said):
    """An epoch is done, and was validated."""

    type: Literal["validation"] = "validation"
    step: int
    epoch: int
    metrics: dict[str, float]

    @property
    def numbers(self) -> dict[str, int | float]:
        """What it measured."""
        return {"step": self.step, "epoch": self.epoch, **self.metrics}


class CheckpointSaved(_Said):
    """A checkpoint lies in a folder; the path of one is absolute, or begins at the folder of the run."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    total_steps: int
    path: str
    manifest_sha256: str
    metrics: dict[str, float]


class Finished(_Said):
    """The adapter lies in its folder."""

    type: Literal["finished"] = "finished"
    step: int
    total_steps: int
    stopped_early: bool
    tokens: int
    path: str
    manifest_sha256: str
    metrics: dict[str, float]


class RunFailed(_Said):
    """The run ends without an adapter; `permanent` says that every other attempt would, too."""

    type: Literal["failed"] = "failed"
    code: str
    message: str
    permanent: bool


Report: TypeAlias = Annotated[
    Started | Step | Validation | CheckpointSaved | Finished | RunFailed, Field(discriminator="type")
]

_REPORTS: TypeAdapter[Report] = TypeAdapter(Report)


def read_report(line: bytes) -> Report:
    """A report as it was printed.

    Raises:
        ValueError: it is none.
    """
    return _REPORTS.validate_json(line)
