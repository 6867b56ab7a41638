"""XLSX: the first sheet of a workbook that holds rows, read as the table it is."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from chassis.exhaustion import EXHAUSTION
from chassis.text import quoted
from ingest.readers.faults import BadRows, FormatError, listed
from ingest.readers.parsed import Parsed
from ingest.readers.reader import Source

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

ZIP, COMPOUND = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
"""What a workbook with a password is: a compound file with a stream of this name."""

MAX_INFLATED_BYTES = 512 * 1024 * 1024
"""Most bytes of all parts together once they are inflated: the largest upload."""

MAX_PARTS = 10_000
"""Files in the archive; a workbook has one for each sheet, picture and comment."""

BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods of which zipfile gives out no more than was asked for; of others it unpacks at once all that was read."""


class Workbook:
    """Reads workbooks without looking at macros, links to other files, charts and hidden sheets."""

    makes: Literal["rows", "document"] = "rows"
    names: tuple[str, ...] = (".xlsx", ".xlsm")
    binary = True

    def sniff(self, source: Source) -> bool:
        """Whether it is an archive with a workbook in it, or a workbook with a password."""
        if source.head.startswith(COMPOUND):
            return ENCRYPTED in source.path.read_bytes()
        if not source.head.startswith(ZIP):
            return False
        try:
            with zipfile.ZipFile(source.path) as archive:
                return any(name.startswith("xl/workbook") for name in archive.namelist())
        except Exception:  # a directory that a stranger wrote breaks in more ways than zipfile names
            return source.name.endswith(self.names)

    def read(self, source: Source, columns: Mapping[str, str], bad_rows: BadRows) -> Parsed:
        """The rows of the first visible sheet that has a header and a row; see `Reader`."""
        if source.head.startswith(COMPOUND):
            raise FormatError(
                "encrypted", "the workbook has a password. Save it without one (or its sheet as CSV) and upload that."
            )
        with _faults_of_the_file(), zipfile.ZipFile(source.path) as archive:
            _check(archive)
        with _faults_of_the_file(), source.path.open("rb") as file:
            # Imported at first use: it takes a third of a second that no other format needs to wait for.
            from openpyxl import load_workbook

            from ingest.readers.worksheet import read_sheet

            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
            sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
            for sheet in sheets:
                if parsed := read_sheet(sheet, columns, bad_rows):
                    return _naming_others(parsed, sheet, sheets)
        raise FormatError(
            "empty_file", "no visible sheet has a header and a row under it. Fill one, or show the one that is hidden."
        )


def _naming_others(parsed: Parsed, sheet: ReadOnlyWorksheet, sheets: list[ReadOnlyWorksheet]) -> Parsed:
    """What was read of a sheet, with a note of the visible ones that were not."""
    if others := [other.title for other in sheets if other is not sheet]:
        passed_over = f"Of the workbook's sheets {quoted(sheet.title)} was read, and not: {listed(others)}."
        parsed.left_out = f"{passed_over} {parsed.left_out}" if parsed.left_out else passed_over
    return parsed


@contextmanager
def _faults_of_the_file() -> Iterator[None]:
    """Have whatever goes wrong with the archive, its XML or what it says be a fault of the file.

    Raises:
        FormatError: something did.
    """
    try:
        yield
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # of three parsers that read what a stranger wrote, each with errors of its own
        if isinstance(error, OSError) and error.errno in EXHAUSTION:
            raise
        kind = type(error.__cause__ or error).__name__
        raise FormatError(
            "invalid_workbook",
            f"the workbook is damaged, or not one that is read ({kind}). Open it in a spreadsheet program, save it as "
            ".xlsx and upload that.",
        ) from error


def _check(archive: zipfile.ZipFile) -> None:
    """Refuse, before anything is inflated, what is no workbook to be read.

    No part inflates to more than it says, since zipfile stops there; so only methods are let in that it can stop.
    """
    parts = archive.infolist()
    if any(part.flag_bits & 0x1 for part in parts):
        raise FormatError("encrypted", "the archive has a password. Save the workbook without one and upload that.")
    if any(part.filename == "xl/workbook.bin" for part in parts):
        raise FormatError("unsupported_format", "this is a binary workbook (.xlsb). Save it as .xlsx or CSV.")
    if any(part.compress_type not in BOUNDED for part in parts):
        raise FormatError(
            "unsupported_format",
            "the archive is packed as no spreadsheet program does it. Open the workbook in one, save it as .xlsx and "
            "upload that.",
        )
    inflated = sum(part.file_size for part in parts)
    if inflated > MAX_INFLATED_BYTES or len(parts) > MAX_PARTS:
        raise FormatError(
            "too_large",
            f"the workbook holds {inflated} bytes in {len(parts)} parts, over the limit of {MAX_INFLATED_BYTES} bytes "
            f"in {MAX_PARTS}. Keep the sheet with the rows alone, or save it as CSV.",
        )
