"""What clients asked and what became of it, as JSON lines: checkers read it after the run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["invoke", "ok", "fail", "unknown"]


@dataclass
class Operation:
    """One operation under way; what is put into `ids` is written with its end."""

    number: int
    name: str
    ids: dict[str, Any] = field(default_factory=dict)


class History:
    """Appends lines to one file, of which only the last can be cut by a kill.

    Args:
        path: the file.
        refusals: errors that say the operation was not carried out. Any other leaves that unknown, as a timeout does:
            the operation may have had its effect, and may have it yet.
    """

    def __init__(self, path: Path, *, refusals: tuple[type[Exception], ...] = ()) -> None:
        self.path = path
        self._refusals = refusals
        self._count = 0

    @contextmanager
    def operation(self, name: str, **ids: Any) -> Iterator[Operation]:
        """Write `invoke` now and `ok`, `fail` or `unknown` at the block's end, whose error goes on to the caller."""
        self._count += 1
        operation = Operation(self._count, name, dict(ids))
        self._write("invoke", operation)
        try:
            yield operation
        except BaseException as error:  # however it ended, that is written, and the error goes on
            outcome: Outcome = "fail" if isinstance(error, self._refusals) else "unknown"
            self._write(outcome, operation, error=f"{type(error).__name__}: {error}"[:500])
            raise
        self._write("ok", operation)

    def _write(self, outcome: Outcome, operation: Operation, **more: Any) -> None:
        line = {
            "op": operation.name,
            "number": operation.number,
            "outcome": outcome,
            "wall": time.time(),
            "monotonic": time.monotonic(),
            **operation.ids,
            **more,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history; one broken off at the end is left out."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
