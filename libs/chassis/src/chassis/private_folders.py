"""Folders for what somebody entrusted to us and must not stay behind: rows, uploads, adapters on their way."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chassis.errors import SartorError
from chassis.exhaustion import DiskFull, exhaustion_named

HELD = ".held"
"""The file in a folder that its process holds a lock on."""

ROOMY = 0.5
"""Share of a disk: where more was free before, nobody could have made enough room."""


class OutgrewDisk(SartorError):
    """The work alone filled a disk that was half empty: making room would not help it."""

    default_code = "disk_too_small"


class PrivateFolders:
    """One service's folders on this machine; several of its processes may share them.

    Args:
        root: where they lie; below the system's temporary folder, out of sight of other users, if None.
        service: names that one.
    """

    def __init__(self, root: Path | None, service: str) -> None:
        self._given = root
        self._service = service

    @property
    def root(self) -> Path:
        """Where they lie. `tempfile.gettempdir` would name another folder whenever the disk is full."""
        temporary = tempfile.tempdir or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - the root is ours or refused
        return self._given or Path(temporary) / f"sartor-{self._service}-{os.getuid()}"

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A new folder, gone afterwards; what the machine lacks meanwhile is raised by its name.

        Args:
            name: what its own name begins with.

        Raises:
            Exhausted: the machine is to blame, not the work.
            OutgrewDisk: the disk is full, and was half empty before.
            PermissionError: as `sweep`.
        """
        roomy = False
        try:
            with exhaustion_named():
                self._make_root()
                state = shutil.disk_usage(self.root)
                roomy = state.free > ROOMY * state.total
                with self._held(name) as folder:
                    yield folder
        except DiskFull as error:
            if not roomy:
                raise
            disk = f"a disk of {state.total // 1024**2} MiB that was half empty"
            raise OutgrewDisk(f"It takes more room than there is: it filled {disk}.") from error

    def sweep(self) -> None:
        """Remove what killed processes left, as nobody comes back for it; folders that are held stay.

        Raises:
            PermissionError: somebody else made the root, and could put other folders in the place of ours.
        """
        with suppress(FileNotFoundError):
            self._refuse_foreign_root()
        for lock in self.root.glob(f"[!.]*/{HELD}"):
            with suppress(OSError), lock.open("r+") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _empty(lock.parent)
                lock.unlink()
                lock.parent.rmdir()

    @contextmanager
    def _held(self, name: str) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix=".", dir=self.root))
        try:
            with (folder / HELD).open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                folder = folder.rename(folder.with_name(f"{name}-{folder.name[1:]}"))  # only now a sweep looks at it
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _make_root(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._refuse_foreign_root()

    def _refuse_foreign_root(self) -> None:
        if self._given is None and (self.root.is_symlink() or self.root.stat().st_uid != os.getuid()):
            raise PermissionError(f"{self.root} is not ours: somebody else made it. Remove it, or name another folder.")


def _empty(folder: Path) -> None:
    """Remove all but the lock: without it, no later sweep would look at what could not be removed by this one."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != HELD:
            path.unlink()
