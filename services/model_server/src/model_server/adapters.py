"""Reads an adapter's folder: nothing is taken on trust, nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOLERANCE = 0.25
"""Largest difference in nats from the trainer's fingerprint; half of the least change an adapter must make.

bf16 noise between batch shapes and thread counts stays below 0.15 on Gemma 3 270M.
"""

WEIGHTS, CONFIG, FINGERPRINT, MANIFEST = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "fingerprint.json",
    "manifest.json",
)
HIGHEST_RANK = 256

FINGERPRINT_VERSION = 2
"""The layout of `fingerprint.json` read here; probes of another one would be measured wrongly."""


class AdapterRefused(Exception):
    """An adapter is not what its manifest says, or not for this base model; it will not be served."""


@dataclass(frozen=True)
class Proof:
    """That an engine holds an adapter: distances in nats over the trainer's probes."""

    adapter_id: str
    fingerprint_delta: float
    base_delta: float


@dataclass(frozen=True)
class AdapterFiles:
    """A verified adapter as read: tensors, scale and the trainer's fingerprint."""

    adapter_id: str
    tensors: dict[str, Any]
    rank: int
    scale: float
    probes: list[dict[str, Any]]


def verify(folder: Path, *, base_id: str, base_digest: str) -> str:
    """Check the adapter in `folder` against its manifest; returns its id.

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
    return adapter_id


def read_probes(folder: Path) -> list[dict[str, Any]]:
    """The trainer's probes in a verified adapter's folder.

    Raises:
        AdapterRefused: they are laid out in a way this server does not know.
    """
    contents = json.loads((folder / FINGERPRINT).read_text())
    if contents.get("version") != FINGERPRINT_VERSION:
        raise AdapterRefused(
            f"{FINGERPRINT} is of version {contents.get('version')}, not {FINGERPRINT_VERSION}: train it again."
        )
    probes: list[dict[str, Any]] = contents["probes"]
    return probes


def read_adapter(folder: Path, *, base_id: str, base_digest: str) -> AdapterFiles:
    """Verify and read the adapter in `folder`.

    Raises:
        AdapterRefused: as `verify` and `read_probes`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    adapter_id = verify(folder, base_id=base_id, base_digest=base_digest)
    config = json.loads((folder / CONFIG).read_text())
    probes = read_probes(folder)
    scale = float(config["lora_alpha"]) / config["r"]
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise AdapterRefused(f"{adapter_id}: {WEIGHTS} cannot be read: {error}") from error
    return AdapterFiles(adapter_id, tensors, config["r"], scale, probes)


def proof_of(adapter_id: str, differences: list[tuple[float, float]]) -> Proof:
    """The proof from pairs of (distance from the fingerprint, distance from the base), one per probe token.

    Raises:
        AdapterRefused: off the fingerprint, or no different from the base.
    """
    if not differences or max(one for one, _ in differences) > TOLERANCE:
        off = max((one for one, _ in differences), default=float("nan"))
        raise AdapterRefused(f"{adapter_id}: off its fingerprint by {off:.3f} nats.")
    base_delta = max(other for _, other in differences)
    if base_delta <= TOLERANCE:
        raise AdapterRefused(f"{adapter_id}: answers as the base model does (within {base_delta:.3f} nats).")
    return Proof(adapter_id, round(max(one for one, _ in differences), 6), round(base_delta, 6))
