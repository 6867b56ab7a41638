"""Starting and stopping the stack's processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localstack import LocalStack, StackError


def test_a_start_that_fails_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = LocalStack(tmp_path, services=())
    was_running = []

    def fail(_: Any) -> None:
        was_running.append(stack.running())
        raise StackError("mongodb did not become ready")

    monkeypatch.setattr(stack, "_wait", fail)
    with pytest.raises(StackError, match="did not become ready"), stack:
        pytest.fail("it is not up")
    assert was_running == [True]
    assert not stack.running()
