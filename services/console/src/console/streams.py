"""How many pages of one session are kept current at a time: the newest few."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Streams:
    """The open streams of every session.

    Args:
        most: of one session; one more ends the oldest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[str, list[asyncio.Event]] = {}

    @contextmanager
    def opened(self, session: str) -> Iterator[asyncio.Event]:
        """Count a stream for as long as the context; the event is set when it must end for a newer one."""
        displaced = asyncio.Event()
        mine = self._open.setdefault(session, [])
        mine.append(displaced)
        while len(mine) > self._most:
            mine.pop(0).set()
        try:
            yield displaced
        finally:
            if displaced in mine:
                mine.remove(displaced)
            if not mine:
                self._open.pop(session, None)
