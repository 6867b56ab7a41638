"""What of the whole stack `make test` tries too; `make e2e` runs everything here."""

from __future__ import annotations

from pathlib import Path

import pytest

ALWAYS = {"test_main_way.py", "test_openai_sdk.py"}
"""The way from an upload to an own model, and the SDK."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All others of this folder have a target of their own."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in ALWAYS:
            item.add_marker(pytest.mark.slow)
