"""Folders for what somebody entrusted to us and must not stay behind: rows, uploads, adapters on their way."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HELD = ".held"
"""The file in a folder that its process holds a lock on."""


class PrivateFolders:
    """One service's folders on this machine; several of its processes may share them.

    Args:
        root: where they lie; below the system's temporary folder, out of sight of other users, if None.
        service: names that one.
    """

    def __init__(self, root: Path | None, service: str) -> None:
        self.root = root or Path(tempfile.gettempdir()) / f"sartor-{service}-{os.getuid()}"
        self._shared_parent = root is None

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A new folder, gone afterwards.

        Args:
            name: what its own name begins with.

        Raises:
            PermissionError: as `sweep`.
        """
        self._make_root()
        folder = Path(tempfile.mkdtemp(prefix=".", dir=self.root))
        try:
            with (folder / HELD).open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                folder = folder.rename(folder.with_name(f"{name}-{folder.name[1:]}"))  # only now a sweep looks at it
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed processes left, as nobody comes back for it; folders that are held stay.

        Raises:
            PermissionError: somebody else made the root, and could put other folders in the place of ours.
        """
        self._make_root()
        for lock in self.root.glob(f"[!.]*/{HELD}"):
            with suppress(OSError), lock.open("r+") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)

    def _make_root(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._shared_parent and (self.root.is_symlink() or self.root.stat().st_uid != os.getuid()):
            raise PermissionError(f"{self.root} is not ours: somebody else made it. Remove it, or name another folder.")
