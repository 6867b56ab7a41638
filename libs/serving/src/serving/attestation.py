"""Whether an adapter is what it says: its files against the manifest, an engine's answers against the fingerprint.

Nothing is taken on trust, nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


def proof_of(adapter_id: str, measured: Iterable[tuple[Probe, list[float], list[float]]]) -> Proof:
    """The proof that an engine's answers are the adapter's.

    Args:
        adapter_id: of the adapter.
        measured: each probe with the log-probs that the engine gives its answer, with the adapter and without.

    Raises:
        AdapterRefused: off the fingerprint, or no different from the base.
        ValueError: the fingerprint holds more or fewer numbers than its answers have tokens.
    """
    pairs = [
        (abs(ours - theirs), abs(ours - plain))
        for probe, with_adapter, without in measured
        for ours, theirs, plain in zip(with_adapter, probe.adapter, without, strict=True)
    ]
    if not pairs or not all(off <= FINGERPRINT_TOLERANCE for off, _ in pairs):  # so that no NaN passes
        furthest = max((off for off, _ in pairs), default=float("nan"))
        raise AdapterRefused(f"{adapter_id}: off its fingerprint by {furthest:.3f} nats.")
    if not any(moved > FINGERPRINT_TOLERANCE for _, moved in pairs):
        nearest = max(moved for _, moved in pairs)
        raise AdapterRefused(f"{adapter_id}: answers as the base model does (within {nearest:.3f} nats).")
    return Proof(adapter_id, *(round(max(deltas), 6) for deltas in zip(*pairs, strict=True)))
