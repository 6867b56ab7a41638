"""What a training process is told, what it says back, and how it ends; no torch, so the worker can use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import JsonValue

EXIT_FAILED_FOR_GOOD = 65
"""Exit code of a run that would fail in the same way again; its `failed` event says why."""

EXIT_STOPPED = 75
"""Exit code of a run that SIGTERM stopped after saving a checkpoint."""


def stored_mark(checkpoint: Path) -> Path:
    """The file that appears beside a checkpoint's folder when the worker has stored it."""
    return checkpoint.with_name(f".stored-{checkpoint.name}")


class FailedForGood(Exception):
    """Trying the same run again would fail in the same way.

    Attributes:
        code: stable slug of the reason.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stopped(Exception):
    """A stop was asked for; a checkpoint holds everything."""


@dataclass(frozen=True)
class RunConfig:
    """The frozen configuration of one attempt, the contents of `run.json`.

    Attributes:
        base_dir: folder of the base model, with its `base.json`.
        base_id: id the folder must have.
        base_digest: digest the folder must have.
        train_path: what the method learns from: chat rows or text rows.
        epochs: passes over the rows.
        batch_size: rows a step.
        learning_rate: peak rate.
        seed: decides the initial adapter and the order of rows.
        validation_path: JSONL scored after every epoch; the last adapter that was not surely worse is published.
        lora_r: rank of the adapter.
        lora_alpha: the update is scaled by lora_alpha / lora_r.
        target_modules: names of linear layers, or just `all-linear`.
        save_every_steps: steps between checkpoints.
        early_stop_patience: epochs without a lower validation loss after which to stop; 0 never stops.
        max_length: longer rows (in tokens) are left out.
        resume_from: folder of a checkpoint to go on from.
        threads: CPU threads.
        dataset: copied into the adapter's manifest.
        code_version: copied into the adapter's manifest.
        created_at: unix seconds, copied into the adapter's manifest.
        followed: whether a worker stores the checkpoints; the run then waits for that before it goes on.
        method: name of the training method.
        of_method: hyperparameters that only the method knows.
    """

    base_dir: str
    base_id: str
    base_digest: str
    train_path: str
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    validation_path: str | None = None
    lora_r: int = 16
    lora_alpha: float = 32.0
    target_modules: Sequence[str] = ("all-linear",)
    save_every_steps: int = 25
    early_stop_patience: int = 0
    max_length: int = 2048
    resume_from: str | None = None
    threads: int = 2
    dataset: Mapping[str, str] | None = None
    code_version: str = ""
    created_at: int = 0
    followed: bool = False
    method: str = "supervised"
    of_method: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Read `run.json`.

        Raises:
            ValueError: not JSON.
            TypeError: a field is unknown or missing.
        """
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write `run.json`."""
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False), encoding="utf-8")

    def hyperparameters(self) -> dict[str, JsonValue]:
        """The settings that decide the weights, beside seed, base and rows."""
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "lora_r": self.lora_r,
            "lora_alpha": self.lora_alpha,
            "target_modules": list(self.target_modules),
            "early_stop_patience": self.early_stop_patience,
            "max_length": self.max_length,
            **self.of_method,
        }


@dataclass
class Progress:
    """Where a run stands; with the tensors of a checkpoint it is all that a resumed run needs.

    Attributes:
        step: optimizer steps done.
        tokens: tokens seen, padding not counted.
        epoch_loss: summed loss of the epoch so far.
        epoch_correct: targets of the epoch so far that were the likeliest token.
        epoch_targets: targets of the epoch so far.
        best_scores: loss of each validation row at the epoch with the lowest mean so far.
        epochs_without_gain: epochs in a row that were surely worse than that one.
        stopped_early: patience ran out.
        metrics: of the last finished epoch; with validation, of the one that would be published.
    """

    step: int = 0
    tokens: int = 0
    epoch_loss: float = 0.0
    epoch_correct: int = 0
    epoch_targets: int = 0
    best_scores: list[float] = field(default_factory=list)
    epochs_without_gain: int = 0
    stopped_early: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
