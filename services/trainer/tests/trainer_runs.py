"""Folders of training runs on the tiny model, for tests of the recipe and of its process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import BASE_FILE, BaseModelSpec
from trainer.run.config import RunConfig

QUESTIONS = {
    "lost_card": ["I have lost my card", "my card is lost", "where is my card?", "card lost, please help"],
    "refund": ["please refund my order", "I want a refund", "refund the payment", "返金してください"],
    "close_account": ["close my account", "I want to close the account", "account closing", "口座を閉じたいです"],
}


@pytest.fixture
def base_dir(tiny_models: Path) -> Path:
    return tiny_models / "tiny-test"


@pytest.fixture
def configure(base_dir: Path, tmp_path: Path) -> Callable[..., tuple[Path, RunConfig]]:
    base = BaseModelSpec.model_validate_json((base_dir / BASE_FILE).read_bytes())
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": label}]}
        for label, questions in QUESTIONS.items()
        for question in questions
    ]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

    def make(name: str, **changes: Any) -> tuple[Path, RunConfig]:
        folder = tmp_path / name
        folder.mkdir()
        config = RunConfig(
            base_dir=str(base_dir),
            base_id=base.id,
            base_digest=base.digest,
            train_path=str(data),
            validation_path=str(data),
            epochs=12,
            batch_size=4,
            learning_rate=1e-2,
            seed=7,
            save_every_steps=5,
            threads=1,
            dataset={"dataset_id": "ds-1"},
            created_at=1767225600,
        )
        return folder, dataclasses.replace(config, **changes)

    return make
