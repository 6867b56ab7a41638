"""Stops processes as a frozen machine would, and lets them go on as if nothing had been."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def paused(pid: int, *, children: bool = True) -> Iterator[None]:
    """Stop a process and its children (SIGSTOP) during the block, and let those that live go on (SIGCONT)."""
    process = psutil.Process(pid)
    stopped = [process, *(process.children(recursive=True) if children else [])]
    for one in stopped:
        _signal(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in reversed(stopped):
            _signal(one, signal.SIGCONT)


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
