"""What is wrong with an upload: one fault, or the faults of many rows, refused or left out as its sender chose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from chassis.text import quoted

BadRows = Literal["refuse", "skip"]
"""What becomes of a file with bad rows: it is refused, or read without them."""

MOST_COUNTED = 10_000
MOST_SHOWN = 5
MOST_LISTED = 50


class FormatError(Exception):
    """One thing wrong with an upload.

    Attributes:
        code: stable slug.
        message: what, where, what to do; the file's name is put before it.
        line: from 1, where one line is at fault.
    """

    def __init__(self, code: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.line = code, message, line


class Faults:
    """The bad rows of an upload.

    Args:
        bad_rows: whether they are refused, or left out.
    """

    def __init__(self, bad_rows: BadRows) -> None:
        self._bad_rows = bad_rows
        self._shown: list[FormatError] = []
        self._lines: list[int | None] = []
        self.count = 0

    def add(self, error: FormatError) -> None:
        """Note a bad row.

        Raises:
            FormatError: there are so many that counting on tells nobody anything.
        """
        self.count += 1
        if len(self._shown) < MOST_SHOWN:
            self._shown.append(error)
        elif len(self._lines) < MOST_LISTED:
            self._lines.append(error.line)
        if self._bad_rows == "refuse" and self.count >= MOST_COUNTED:
            self._refuse()

    def settle(self, rows: int) -> None:
        """End the reading of so many good rows.

        Raises:
            FormatError: the first fault, where bad rows are refused or all rows are bad.
        """
        if self.count and (self._bad_rows == "refuse" or not rows):
            self._refuse()

    def note(self) -> str | None:
        """What was left out, for the owner of the file."""
        if not self.count:
            return None
        shown = "; ".join(f"line {error.line}: {error.message.rstrip('.')}" for error in self._shown)
        lines = f"; lines {', '.join(str(line) for line in self._lines)}" if self._lines else ""
        unlisted = self.count - len(self._shown) - len(self._lines)
        more = f" and {unlisted} more" if unlisted else ""
        return f"{self.count} bad row{'s were' if self.count > 1 else ' was'} left out: {shown}{lines}{more}."

    def _refuse(self) -> None:
        first, others = self._shown[0], self.count - 1
        more = f" {others} more line{'s are' if others > 1 else ' is'} bad too." if others else ""
        raise FormatError(first.code, first.message + more, first.line)


def listed(names: Iterable[str]) -> str:
    """Names in a message, cut where they are many or long."""
    return quoted(", ".join(names))[1:-1]
