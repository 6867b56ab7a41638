"""Background work of a service: started again when it fails, and not taken for running while it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from chassis.errors import Transient

log = structlog.get_logger()

FAILURES = Gauge("background_failures_in_a_row", "How often background work failed since it last ran on.", ["task"])

MANY = 5
"""Failures in a row after which work is said not to run: what it needs may be starting beside it."""

SETTLED_SECONDS = 60.0
"""Work that has run for so long runs: far longer than any client waits before it fails."""

PAUSE_SECONDS = 1.0

Work = Callable[[], Awaitable[None]]


@dataclass
class _State:
    failures: int = 0
    has_run: bool = False
    error: str = ""


class Background:
    """Keeps work running, and says which cannot."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    async def keep_running(self, name: str, work: Work) -> None:
        """Run `work` until it ends, and start it again after a wait when it fails.

        Args:
            name: in logs, metrics and reports.
            work: a worker's loop.
        """
        state = self._states.setdefault(name, _State())
        loop = asyncio.get_running_loop()

        def settled() -> None:
            state.failures, state.has_run = 0, True
            FAILURES.labels(name).set(0)

        while True:
            structlog.contextvars.bind_contextvars(task=name)
            timer = loop.call_later(SETTLED_SECONDS, settled)
            try:
                await work()
                return
            except Exception as error:  # the boundary of background work: say so, wait, go on
                state.failures += 1
                state.error = f"{type(error).__name__}: {error}"
                FAILURES.labels(name).set(state.failures)
                log.error("background_failed", exc_info=error, failures=state.failures)
            finally:
                timer.cancel()
            await asyncio.sleep(PAUSE_SECONDS)

    async def check_started(self) -> None:
        """Raise where work fails again and again and has never run: this replica is of no use for it.

        Raises:
            Transient: it names the work and its error.
        """
        self._check([name for name, state in self._states.items() if state.failures >= MANY and not state.has_run])

    async def check_running(self) -> None:
        """Raise where work fails again and again that did run before.

        Raises:
            Transient: it names the work and its error.
        """
        self._check([name for name, state in self._states.items() if state.failures >= MANY])

    def _check(self, failing: list[str]) -> None:
        if failing:
            said = "; ".join(f"{name}: {self._states[name].error[:500]}" for name in failing)
            raise Transient(f"Work that cannot run is tried again and again ({said}). See the log: background_failed.")
