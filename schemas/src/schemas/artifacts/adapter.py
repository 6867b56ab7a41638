"""An adapter's folder: PEFT's two files, the fingerprint and, written last, the manifest that names them."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
FINGERPRINT = "fingerprint.json"
MANIFEST = "manifest.json"


class FileFacts(BaseModel):
    """What a manifest says of a file."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(description="SHA-256 of the bytes, in hex.")
    size: int = Field(ge=0, description="Size in bytes.")


class AdapterManifest(BaseModel):
    """The contents of an adapter's `manifest.json`."""

    model_config = ConfigDict(frozen=True)

    files: dict[str, FileFacts] = Field(description="The folder's other files.")
    base_id: str = Field(description="The base model it was trained on.")
    base_digest: str = Field(description="Digest of that base model.")
    dataset: dict[str, str] | None = Field(None, description="The dataset version or file, and its digest.")
    code_version: str = Field("", description="Version of the code that trained it.")
    method: str = Field("supervised", description="How it was trained: `method.type` of its job.")
    arithmetic: str = Field("", description="Type it was trained in, where that is not the one of the base's weights.")
    config: dict[str, Any] = Field(default_factory=dict, description="Hyperparameters, as resolved.")
    seed: int = Field(0, description="Seed of the run.")
    metrics: dict[str, float | None] = Field(default_factory=dict, description="Final training metrics.")
    trained_tokens: int = Field(0, ge=0, description="Tokens seen in training, all epochs.")
    steps: int = Field(0, ge=0, description="Optimiser steps.")
    created_at: int = Field(0, description="When the run was prepared (Unix seconds).")


def adapter_id_of(manifest: bytes) -> str:
    """The content-addressed id of the adapter whose manifest consists of these bytes."""
    return f"ad-{hashlib.sha256(manifest).hexdigest()[:24]}"
