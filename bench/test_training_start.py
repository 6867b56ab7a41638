"""From asking for a training process to its first word: forked from a warm one, against an interpreter of its own."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from schemas.artifacts import BASE_FILE, BaseModelSpec
from trainer.run.config import RunConfig
from trainer.run.fork_server import ForkServer

ROUNDS = 5


def run(tiny_models: Path, folder: Path) -> Path:
    """The folder of a run of one step, on twelve rows."""
    folder.mkdir()
    base = BaseModelSpec.model_validate_json((tiny_models / "tiny-test" / BASE_FILE).read_bytes())
    messages = [{"role": "user", "content": "bike 3 will not open"}, {"role": "assistant", "content": "unlock_failed"}]
    (folder / "rows.jsonl").write_text((json.dumps({"messages": messages}) + "\n") * 12)
    RunConfig(
        base_dir=str(tiny_models / "tiny-test"),
        base_id=base.id,
        base_digest=base.digest,
        train_path=str(folder / "rows.jsonl"),
        epochs=1,
        batch_size=12,
        learning_rate=1e-2,
        seed=7,
        threads=1,
    ).write(folder / "run.json")
    return folder


async def until_first_word(fork_server: ForkServer, folder: Path) -> float:
    """Seconds."""
    began = time.perf_counter()
    forked = await fork_server.start(folder)
    assert json.loads(await forked.stdout.readline())["type"] == "started"
    seconds = time.perf_counter() - began
    await forked.stdout.read()
    await forked.wait()
    return seconds


async def test_start(tiny_models: Path, tmp_path: Path) -> None:
    warm = ForkServer()
    await until_first_word(warm, run(tiny_models, tmp_path / "first"))
    forked, cold = [], []
    for number in range(ROUNDS):
        forked.append(await until_first_word(warm, run(tiny_models, tmp_path / f"warm-{number}")))
        own = ForkServer()
        cold.append(await until_first_word(own, run(tiny_models, tmp_path / f"cold-{number}")))
        await own.close()
    await warm.close()
    ratio = statistics.median(cold) / statistics.median(forked)
    print(
        f"\na training process, {ROUNDS} rounds: forked {statistics.median(forked):.2f} s, "
        f"with an interpreter of its own {statistics.median(cold):.2f} s: {ratio:.1f} times"
    )
    assert ratio > 1
