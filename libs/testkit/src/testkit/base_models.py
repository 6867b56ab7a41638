"""Descriptions of base models that are in no folder, for what only reads them."""

from __future__ import annotations

from typing import Any

from schemas.artifacts import BaseModelSpec


def base_spec(name: str, **facts: Any) -> BaseModelSpec:
    """A small base model's `base.json`.

    Args:
        name: its id.
        facts: fields that differ from a usual one's.
    """
    usual = {
        "digest": "d" * 64,
        "files": {"model.safetensors": "0" * 64},
        "dtype": "float32",
        "context_length": 2048,
        "vocab_size": 1000,
        "chat_template": "",
    }
    return BaseModelSpec.model_validate({"id": name, **usual, **facts})
