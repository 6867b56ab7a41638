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
        line: from 1, where one line is at fault; of a workbook, the row.
        sheet: of a workbook, the sheet at fault.
    """

    def __init__(self, code: str, message: str, line: int | None = None, sheet: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.line, self.sheet = code, message, line, sheet

    @property
    def place(self) -> str:
        """Where in the file; empty where no place is at fault."""
        if self.sheet is None:
            return f"line {self.line}" if self.line else ""
        return f"sheet {quoted(self.sheet)}" + (f", row {self.line}" if self.line else "")


class Faults:
    """The bad rows of an upload.

    Args:
        bad_rows: whether they are refused, or left out.
        place: what the number of a row counts, `line` or `row`.
    """

    def __init__(self, bad_rows: BadRows, place: str) -> None:
        self._bad_rows = bad_rows
        self._place = place
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

    def end(self, rows: int) -> None:
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
        shown = "; ".join(f"{self._place} {error.line}: {error.message.rstrip('.')}" for error in self._shown)
        lines = f"; {self._place}s {', '.join(str(line) for line in self._lines)}" if self._lines else ""
        unlisted = self.count - len(self._shown) - len(self._lines)
        more = f" and {unlisted} more" if unlisted else ""
        return f"{self.count} bad row{'s were' if self.count > 1 else ' was'} left out: {shown}{lines}{more}."

    def _refuse(self) -> None:
        first, others = self._shown[0], self.count - 1
        more = f" {others} more {self._place}{'s are' if others > 1 else ' is'} bad too." if others else ""
        raise FormatError(first.code, first.message + more, first.line)


def listed(names: Iterable[str]) -> str:
    """Names in a message, cut where they are many or long."""
    return quoted(", ".join(names))[1:-1]
