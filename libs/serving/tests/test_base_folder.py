"""A base model is what its files are, whatever its name says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.artifacts import BASE_FILE
from serving import BaseFolder, BaseRefused


def _other_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _another_digest(folder: Path) -> None:
    spec = json.loads((folder / BASE_FILE).read_text())
    (folder / BASE_FILE).write_text(json.dumps({**spec, "digest": "0" * 64}))


async def test_files_as_described_are_proven(tiny_models: Path) -> None:
    folder = BaseFolder(tiny_models / "tiny-test")
    await folder.prove()
    assert folder.spec.id == "tiny-test"


@pytest.mark.parametrize("spoil", [_other_weights, _no_tokenizer, _another_digest])
async def test_another_base_under_the_same_name_is_refused(
    tiny_models: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    shutil.copytree(tiny_models / "tiny-test", tmp_path / "tiny-test")
    spoil(tmp_path / "tiny-test")
    with pytest.raises(BaseRefused, match="tiny-test"):
        await BaseFolder(tmp_path / "tiny-test").prove()
