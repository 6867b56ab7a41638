"""A run goes on in what it began to compute with, on whatever machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.run.config import RunConfig, Stopped
from trainer.run.recipe import LoraRecipe
from trainer.run.reports import Report, Started


def execute(folder: Path, config: RunConfig, stop: bool = False) -> list[Report]:
    reports: list[Report] = []
    LoraRecipe(folder, config, reports.append, lambda: stop).execute()
    return reports


def test_a_run_goes_on_in_what_it_began_with(configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.run.frozen_base.fastest", lambda own, *_: torch.float64)
    folder, config = configure("run")
    with pytest.raises(Stopped):
        execute(folder, config, stop=True)
    checkpoint = folder / "checkpoints/step-00000001"
    assert json.loads((checkpoint / "manifest.json").read_text())["run"]["arithmetic"] == "float64"
    monkeypatch.setattr("trainer.run.frozen_base.fastest", lambda own, *_: own)
    [started, *_] = execute(folder, dataclasses.replace(config, resume_from=str(checkpoint)))
    assert isinstance(started, Started)
    assert started.step == 1
    assert json.loads(Path(folder, "adapter/manifest.json").read_text())["arithmetic"] == "float64"
