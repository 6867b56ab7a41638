"""Reads an adapter's folder: nothing is taken on trust, nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.artifacts import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FINGERPRINT,
    FINGERPRINT_TOLERANCE,
    MANIFEST,
    AdapterManifest,
    Fingerprint,
    Probe,
    adapter_id_of,
)

HIGHEST_RANK = 256


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
    probes: list[Probe]


def verify(folder: Path, *, base_id: str, base_digest: str) -> str:
    """Check the adapter in `folder` against its manifest; returns its id.

    Raises:
        AdapterRefused: a file differs from the manifest, the base is another one, or the config is not a plain LoRA.
    """
    manifest_bytes = (folder / MANIFEST).read_bytes()
    adapter_id = adapter_id_of(manifest_bytes)
    try:
        manifest = AdapterManifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        raise AdapterRefused(f"{adapter_id}: {MANIFEST} is not an adapter's: {error}") from error
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, FINGERPRINT):
        expected = manifest.files.get(name)
        if expected is None or hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected.sha256:
            raise AdapterRefused(f"{adapter_id}: {name} is not the file its manifest describes.")
    if (manifest.base_id, manifest.base_digest) != (base_id, base_digest):
        raise AdapterRefused(f"{adapter_id}: made for {manifest.base_id}, not for the {base_id} served here.")
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
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


def read_probes(folder: Path) -> list[Probe]:
    """The trainer's probes in a verified adapter's folder.

    Raises:
        AdapterRefused: they are laid out in a way this server does not know.
    """
    try:
        return Fingerprint.model_validate_json((folder / FINGERPRINT).read_bytes()).probes
    except ValidationError as error:
        raise AdapterRefused(f"{FINGERPRINT} cannot be used here, train it again: {error}") from error


def read_adapter(folder: Path, *, base_id: str, base_digest: str) -> AdapterFiles:
    """Verify and read the adapter in `folder`.

    Raises:
        AdapterRefused: as `verify` and `read_probes`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    adapter_id = verify(folder, base_id=base_id, base_digest=base_digest)
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    probes = read_probes(folder)
    scale = float(config["lora_alpha"]) / config["r"]
    try:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except SafetensorError as error:
        raise AdapterRefused(f"{adapter_id}: {ADAPTER_WEIGHTS} cannot be read: {error}") from error
    return AdapterFiles(adapter_id, tensors, config["r"], scale, probes)


def proof_of(adapter_id: str, differences: list[tuple[float, float]]) -> Proof:
    """The proof from pairs of (distance from the fingerprint, distance from the base), one per probe token.

    Raises:
        AdapterRefused: off the fingerprint, or no different from the base.
    """
    if not differences or max(one for one, _ in differences) > FINGERPRINT_TOLERANCE:
        off = max((one for one, _ in differences), default=float("nan"))
        raise AdapterRefused(f"{adapter_id}: off its fingerprint by {off:.3f} nats.")
    base_delta = max(other for _, other in differences)
    if base_delta <= FINGERPRINT_TOLERANCE:
        raise AdapterRefused(f"{adapter_id}: answers as the base model does (within {base_delta:.3f} nats).")
    return Proof(adapter_id, round(max(one for one, _ in differences), 6), round(base_delta, 6))
