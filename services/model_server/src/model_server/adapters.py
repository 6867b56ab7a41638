"""Reads an adapter's tensors, once its files are known to be those of its manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from schemas.artifacts import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Probe
from serving import AdapterRefused, read_probes, verify


@dataclass(frozen=True)
class AdapterFiles:
    """A verified adapter as read: tensors, scale and the trainer's fingerprint."""

    adapter_id: str
    tensors: dict[str, Tensor]
    rank: int
    scale: float
    probes: list[Probe]


def read_adapter(folder: Path, *, base_id: str, base_digest: str) -> AdapterFiles:
    """Verify and read the adapter in `folder`.

    Raises:
        AdapterRefused: as `verify` and `read_probes`, or its tensors cannot be read.
    """
    adapter_id = verify(folder, base_id=base_id, base_digest=base_digest)
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    probes = read_probes(folder)
    scale = float(config["lora_alpha"]) / config["r"]
    try:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except SafetensorError as error:
        raise AdapterRefused(f"{adapter_id}: {ADAPTER_WEIGHTS} cannot be read: {error}") from error
    return AdapterFiles(adapter_id, tensors, config["r"], scale, probes)
