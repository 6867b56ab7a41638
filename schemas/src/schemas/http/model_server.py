"""What `model_server` says beyond TGI's API, which is told by the capability `echo` of its `replica.ready`."""

from __future__ import annotations

IDENTITY = "x-model-identity"
"""Header that names the model: in a question the one that is asked, in the answer the one that gives it."""


def identity(base_digest: str, adapter_id: str | None) -> str:
    """The value of that header.

    Args:
        base_digest: of the base model's files.
        adapter_id: on top of it; None for the base model itself.
    """
    return f"{base_digest}:{adapter_id or ''}"
