"""Adapters' folders as the trainer leaves them, made without a model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from schemas.artifacts import ADAPTER_CONFIG, ADAPTER_WEIGHTS, FINGERPRINT, MANIFEST, BaseModelSpec, adapter_id_of

WITH_ADAPTER = [-0.5, -0.25]
"""What the probe's answer is given with the adapter: natural-log probabilities, one a token."""

WITHOUT = [-9.0, -9.0]
"""The same of the base model."""


def adapter_folder(folder: Path, base: BaseModelSpec, **further: Any) -> Path:
    """An adapter whose weights are none and whose fingerprint is one probe.

    Args:
        folder: where to; made.
        base: the model it is for.
        further: fields of the probe besides those that a usual one has: they tell one adapter from another.
    """
    folder.mkdir(parents=True)
    probe = {"prompt": "q", "continuation": "a", "prompt_ids": [3], "continuation_ids": [1, 2]}
    fingerprint = {"version": 2, "probes": [{**probe, "adapter": WITH_ADAPTER, "base": WITHOUT, **further}]}
    (folder / ADAPTER_WEIGHTS).write_bytes(b"weights")
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    (folder / FINGERPRINT).write_text(json.dumps(fingerprint))
    return seal(folder, base)


def seal(folder: Path, base: BaseModelSpec) -> Path:
    """Write the manifest over what lies in the folder now."""
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    facts = {"files": files, "base_id": base.id, "base_digest": base.digest}
    (folder / MANIFEST).write_text(json.dumps(facts))
    return folder


def id_of(folder: Path) -> str:
    """The id of the adapter in a sealed folder."""
    return adapter_id_of((folder / MANIFEST).read_bytes())
