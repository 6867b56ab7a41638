"""A run computes in what is fast on its machine, and goes on in what it began with on whatever machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.run import arithmetic
from trainer.run.config import RunConfig, Stopped
from trainer.run.recipe import LoraRecipe
from trainer.run.reports import Report, Started


@pytest.mark.parametrize(
    ("slower", "parameters", "chosen"),
    [
        (80.0, 270_000_000, "float32"),
        (1.2, 270_000_000, "bfloat16"),
        (80.0, None, "bfloat16"),
        (80.0, 10**10, "bfloat16"),
    ],
    ids=["without instructions for it", "about as fast", "of unknown size", "too large"],
)
def test_float32_is_chosen_where_it_is_much_faster_and_has_room(
    monkeypatch: pytest.MonkeyPatch, slower: float, parameters: int | None, chosen: str
) -> None:
    monkeypatch.setattr(arithmetic, "_seconds", lambda kind: slower if kind == torch.bfloat16 else 1.0)
    assert arithmetic.fastest(torch.bfloat16, parameters) == getattr(torch, chosen)
    assert arithmetic.fastest(torch.float32, parameters) == torch.float32


def execute(folder: Path, config: RunConfig, stop: bool = False) -> list[Report]:
    reports: list[Report] = []
    LoraRecipe(folder, config, reports.append, lambda: stop).execute()
    return reports


def test_a_measurement_takes_milliseconds() -> None:
    assert 0 < arithmetic._seconds(torch.float32) < 1


def test_a_run_goes_on_in_what_it_began_with(configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.run.frozen_base.fastest", lambda own, parameters: torch.float64)
    folder, config = configure("run")
    with pytest.raises(Stopped):
        execute(folder, config, stop=True)
    checkpoint = folder / "checkpoints/step-00000001"
    assert json.loads((checkpoint / "manifest.json").read_text())["run"]["arithmetic"] == "float64"
    monkeypatch.setattr("trainer.run.frozen_base.fastest", lambda own, parameters: own)
    [started, *_] = execute(folder, dataclasses.replace(config, resume_from=str(checkpoint)))
    assert isinstance(started, Started)
    assert started.step == 1
    assert json.loads(Path(folder, "adapter/manifest.json").read_text())["arithmetic"] == "float64"
