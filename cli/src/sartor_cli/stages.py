"""The stages of a fine-tuning job: which one it is in, what it waits for, and how they are shown as they pass."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sartor_cli.tables import cell

SAY_AGAIN_SECONDS = 30.0
STAGES = {"validating_files": "waiting_for_file", "queued": "queued", "running": "training", "paused": "paused"}
"""The stage that follows from the status alone, for an API that does not name stages."""


def stage_of(job: dict[str, Any]) -> str:
    """The stage a job is in."""
    return str(job.get("stage") or STAGES.get(job["status"], "ended"))


def waiting_for(job: dict[str, Any]) -> str:
    """What a job waits for, from whom and since when; empty where it waits for nothing."""
    waits = job.get("waiting_for")
    if not waits:
        return ""
    since = cell("since", waits.get("since"))
    known = [cell("who", waits.get("who")), f"since {since}" if since else ""]
    return " · ".join(filter(None, [cell("what", waits.get("what")), *known]))


class Stages(AbstractContextManager["Stages"]):
    """Shows stages as they pass: each with a bar in a terminal, and as lines elsewhere.

    Args:
        console: where to.
        times: gets the seconds of each stage that is over.
    """

    def __init__(self, console: Console, times: dict[str, float]) -> None:
        self._console = console
        self._times = times
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=console, refresh_per_second=2, disable=not console.is_terminal)
        self._bar: TaskID | None = None
        self._entered = self._said = time.monotonic()
        self.name = ""

    def __enter__(self) -> Stages:
        """Begin to show."""
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """The last stage is over, unless something went wrong."""
        if kind is None:
            self._leave()
        self._bars.stop()

    def at(self, name: str, percent: float, note: str) -> None:
        """It is in this stage, which is done so far."""
        now = time.monotonic()
        if name != self.name:
            self._leave()
            self.name, self._entered = name, now
            self._bar = self._bars.add_task(name, total=100, note=note)
            self._line(note)
        elif now - self._said > SAY_AGAIN_SECONDS:
            self._line(note)
        if self._bar is not None:
            self._bars.update(self._bar, completed=percent, note=note)

    def _leave(self) -> None:
        if not self.name:
            return
        seconds = self._times[self.name] = time.monotonic() - self._entered
        if self._bar is not None:
            self._bars.update(self._bar, completed=100)
        self._line(f"took {seconds:.1f} s")

    def _line(self, text: str) -> None:
        self._said = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(f"{self.name:<8} {text}")
