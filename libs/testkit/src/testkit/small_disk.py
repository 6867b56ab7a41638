"""A file system so small that a test can fill it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

BALLAST = ".ballast"
REFUSALS = ("permission denied", "must be superuser")
"""What mount says to whom it is not allowed."""


@dataclass(frozen=True)
class SmallDisk:
    """One that is mounted."""

    folder: Path

    def fill(self, *, leave: int = 0) -> None:
        """Take all room but `leave` bytes, whole pages."""
        state = os.statvfs(self.folder)
        pages = state.f_bavail - leave // state.f_frsize if leave else state.f_blocks  # what others write counts too
        with (self.folder / BALLAST).open("ab", buffering=0) as ballast, suppress(OSError):
            for _ in range(pages):
                ballast.write(bytes(state.f_frsize))

    def free(self) -> None:
        """Give it back."""
        (self.folder / BALLAST).unlink()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """A tmpfs of `size` bytes at `folder`, gone afterwards; the test is skipped where this user may not mount one.

    Raises:
        RuntimeError: it cannot be mounted for another reason.
    """
    folder.mkdir()
    command = ["env", "LC_ALL=C", "mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        said = mounted.stderr.strip()
        if any(refusal in said for refusal in REFUSALS):
            pytest.skip(f"a small tmpfs may not be mounted here: {said}")
        raise RuntimeError(f"a small tmpfs cannot be mounted: {said}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
