"""An engine on the tiny base model, and adapters as the trainer leaves them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_server.engine import Engine
from model_server.lora import PEFT_PREFIX, build
from schemas.artifacts import Fingerprint, Probe
from testkit.adapters import seal

RANK = 4


@pytest.fixture(scope="module")
def engine(tiny_models: Path) -> Iterator[Engine]:
    made = Engine(tiny_models / "tiny-test", threads=2)
    asyncio.run(made.attest())
    yield made
    made.close()


@contextmanager
def at_rest(engine: Engine) -> Iterator[None]:
    """Keeps the engine's thread busy, so that what is asked meanwhile waits."""
    begun, go_on = threading.Event(), threading.Event()
    engine._chore(lambda: (begun.set(), go_on.wait(20)))
    assert begun.wait(10)
    try:
        yield
    finally:
        go_on.set()


def adapter_folder(engine: Engine, folder: Path, *, seed: int = 1, strength: float = 0.5) -> Path:
    """An adapter as the trainer would leave it, with random weights."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for path, layer in engine._layers.items():
        tensors[f"{PEFT_PREFIX}{path}.lora_A.weight"] = torch.randn(RANK, layer.in_features, generator=generator)
        weight = torch.randn(layer.out_features, RANK, generator=generator)
        tensors[f"{PEFT_PREFIX}{path}.lora_B.weight"] = strength * weight
    adapter = build("x", tensors, 1.0, engine._layers, RANK)
    prompt, continuation = engine.encode("how do I"), engine.encode("cancel")[1:]
    probe = Probe(
        prompt="how do I",
        continuation="cancel",
        prompt_ids=prompt,
        continuation_ids=continuation,
        adapter=engine._chore(lambda: engine._log_probs(prompt, continuation, adapter)).result(30),
        base=engine._chore(lambda: engine._log_probs(prompt, continuation, None)).result(30),
    )
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "fingerprint.json").write_text(Fingerprint(version=2, probes=[probe]).model_dump_json())
    return seal(folder, engine.base)
