"""A whole stack on the tiny base model, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localstack import LocalStack
from localstack.base_models import build_tiny


def tiny_stack(root: Path, environment: dict[str, str], **more: Any) -> LocalStack:
    """The stack, not started; its base model is built into the folder.

    Args:
        root: an empty folder.
        environment: of every service.
        more: for `LocalStack`.
    """
    build_tiny(root / "models")
    return LocalStack(
        root / "stack",
        base_model="tiny-test",
        models_dir=root / "models",
        environment=environment,
        usual_ports=False,
        **more,
    )
