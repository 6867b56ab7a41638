"""A folder of files as a zip, written while they are read: no more is held than the pieces at hand."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from zipfile import ZIP64_LIMIT, ZipFile, ZipInfo

PERMISSIONS = 0o644
"""Of every file; a zip has them in the upper half of a file's attributes."""


@dataclass(frozen=True)
class Member:
    """A file to be.

    Attributes:
        name: in its folder.
        size: bytes.
        content: its bytes in pieces.
    """

    name: str
    size: int
    content: AsyncGenerator[bytes, None]


class _Outlet:
    """Where a zip is written to, and taken from as it comes; it cannot go back, so sizes stand behind each file."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """There is nothing to be closed."""

    def taken(self) -> bytes:
        """What was written since the last time."""
        data = b"".join(self._written)
        self._written.clear()
        return data


def length_of(folder: str, members: Sequence[Member]) -> int | None:
    """Bytes of the zip that `zipped` makes; None from about 2 GiB on, where the format has other ways to say so."""
    total = sum(member.size for member in members)
    if 1.05 * total > ZIP64_LIMIT:  # `zipfile` allows for files that grow
        return None
    outlet = _Outlet()
    with ZipFile(outlet, "w") as archive:
        for member in members:
            archive.open(ZipInfo(f"{folder}/{member.name}"), "w").close()
    return len(outlet.taken()) + total


async def zipped(folder: str, members: Iterable[Member], at: int) -> AsyncGenerator[bytes, None]:
    """The bytes of a zip with one folder, not compressed: weights do not become smaller.

    The list of its files comes last, so what breaks off before is no zip that could be opened.

    Args:
        folder: its name.
        members: the files, each of which is read when those before it are written.
        at: the time that they have, in Unix seconds.
    """
    outlet = _Outlet()
    with ZipFile(outlet, "w") as archive:
        for member in members:
            info = ZipInfo(f"{folder}/{member.name}", date_time=time.gmtime(at)[:6])
            info.external_attr = PERMISSIONS << 16
            info.file_size = member.size
            async with aclosing(member.content) as pieces:
                with archive.open(info, "w") as target:
                    async for piece in pieces:
                        target.write(piece)
                        yield outlet.taken()
    yield outlet.taken()
