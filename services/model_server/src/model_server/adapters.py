"""Reads an adapter's folder: nothing is taken on trust, nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

WEIGHTS, CONFIG, FINGERPRINT, MANIFEST = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "fingerprint.json",
    "manifest.json",
)
HIGHEST_RANK = 256


class AdapterRefused(Exception):
    """An adapter is not what its manifest says, or not for this base model; it will not be served."""


@dataclass(frozen=True)
class AdapterFiles:
    """A verified adapter as read: tensors, scale and the trainer's fingerprint."""

    adapter_id: str
    tensors: dict[str, Any]
    rank: int
    scale: float
    probes: list[dict[str, Any]]


def read_adapter(folder: Path, *, base_id: str, base_digest: str) -> AdapterFiles:
    """Verify and read the adapter in `folder`.

    Raises:
        AdapterRefused: a file differs from the manifest, the base is another one, or the config is not a plain LoRA.
    """
    manifest_bytes = (folder / MANIFEST).read_bytes()
    manifest = json.loads(manifest_bytes)
    adapter_id = f"ad-{hashlib.sha256(manifest_bytes).hexdigest()[:24]}"
    for name in (WEIGHTS, CONFIG, FINGERPRINT):
        expected = manifest["files"].get(name, {}).get("sha256")
        if expected is None or hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise AdapterRefused(f"{adapter_id}: {name} is not the file its manifest describes.")
    if (manifest["base_id"], manifest["base_digest"]) != (base_id, base_digest):
        raise AdapterRefused(f"{adapter_id}: made for {manifest['base_id']}, not for the {base_id} served here.")
    config = json.loads((folder / CONFIG).read_text())
    rank, alpha = config.get("r"), config.get("lora_alpha")
    plain = (
        config.get("peft_type") == "LORA"
        and config.get("bias", "none") == "none"
        and not config.get("use_dora")
        and not config.get("use_rslora")
        and isinstance(rank, int)
        and 0 < rank <= HIGHEST_RANK
        and isinstance(alpha, int | float)
    )
    if not plain:
        raise AdapterRefused(f"{adapter_id}: adapter_config.json is not a plain LoRA of rank 1 to {HIGHEST_RANK}.")
    probes = json.loads((folder / FINGERPRINT).read_text())["probes"]
    return AdapterFiles(adapter_id, load_file(folder / WEIGHTS), rank, float(alpha) / rank, probes)
