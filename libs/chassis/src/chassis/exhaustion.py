"""What a machine lacks is no fault of the work it meets: such errors get a name, an exit code and a metric."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter

from chassis.errors import Transient

EXHAUSTED = Counter(
    "machine_exhausted_total", "Times a machine had no disk space or descriptors left, or a failing disk.", ["code"]
)

EXHAUSTION = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE})
"""Not ENOMEM: a parser's memory is limited by us, and what reaches that limit is the file's doing."""

EXHAUSTED_SECONDS = 10.0
"""Until another try; nobody makes room within a moment."""


class Exhausted(Transient):
    """This machine has no file descriptors or quota left, or its disk fails; the work is not at fault."""

    default_code = "machine_exhausted"
    exit_code = os.EX_IOERR

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. Try again shortly.", retry_after=EXHAUSTED_SECONDS)
        EXHAUSTED.labels(self.code).inc()


class DiskFull(Exhausted):
    """This machine's disk is full."""

    default_code = "disk_full"
    exit_code = os.EX_CANTCREAT


@contextmanager
def exhaustion_named(*, always: bool = False) -> Iterator[None]:
    """Turn an `OSError` that tells of the machine's exhaustion into `Exhausted`; every other error passes.

    Args:
        always: every `OSError` does: a process that cannot be started is never the work's fault.
    """
    try:
        yield
    except OSError as error:
        found = _number(error)
        if found is None and not always:
            raise
        kind = DiskFull if found == errno.ENOSPC else Exhausted
        what = os.strerror(found) if found else str(error)
        raise kind(f"The machine that does this is out of resources ({what})") from error


def raise_for_exit(code: int | None) -> None:
    """Raise what a child process ended with, where its exit code is that of an exhausted machine."""
    for kind in (Exhausted, DiskFull):
        if code == kind.exit_code:
            raise kind("The machine that does this is out of resources")


def _number(error: BaseException | None) -> int | None:
    """The first number of an exhaustion in an error and its causes; libraries raise their own errors over it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in EXHAUSTION:
            return error.errno
        error = error.__cause__ or error.__context__
    return None
