"""XLSX: the first sheet of a workbook that holds rows, read as the table it is."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from itertools import chain, islice
from typing import Any, Literal, NoReturn

from chassis.exhaustion import EXHAUSTION
from chassis.text import quoted
from ingest.readers.faults import BadRows, FormatError, listed
from ingest.readers.json_lines import MAX_LINE_BYTES
from ingest.readers.parsed import Parsed, says_something
from ingest.readers.reader import Source
from ingest.readers.rows.content import CellError
from ingest.readers.rows.table import Record, read_table

ZIP, COMPOUND = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
"""What a workbook with a password is: a compound file with a stream of this name."""

MAX_INFLATED_BYTES = 512 * 1024 * 1024
"""Most bytes of all parts together once they are inflated: the largest upload."""

MAX_CHARACTERS = MAX_INFLATED_BYTES
"""In all cells that are read: one text of a workbook can stand in each of them."""

MAX_PARTS = 10_000
"""Files in the archive; a workbook has one for each sheet, picture and comment."""

LAST_ROW = 1_048_576
"""A sheet has no more rows."""

ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#SPILL!", "#CALC!", "#GETTING_DATA")
# A cell with a formula and no value, or an empty one that is no text: what wrote the workbook did not calculate.
UNCALCULATED = re.compile(
    rb"<c\b(?P<said>[^<>]*)>\s*<f\b(?:[^<>]*/>|[^<>]*>[^<]*</f>)\s*(?P<value><v\s*/>|<v>\s*</v>)?\s*</c>"
)
CELL = re.compile(rb'\br="([A-Z]{1,3})(\d{1,7})"')
LONGEST_CELL = 64 * 1024
"""Bytes of a cell's XML that are looked at together for a formula and its value."""


class Workbook:
    """Reads workbooks; macros, links to other files, charts and hidden sheets are not looked at."""

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

            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
            sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
            for sheet in sheets:
                records = _records(sheet)
                first = list(islice(records, 2))
                if len(first) == 2:
                    return _read(sheet, chain(first, records), columns, bad_rows, sheets)
        raise FormatError(
            "empty_file", "no visible sheet has a header and a row under it. Fill one, or show the one that is hidden."
        )


def _read(
    sheet: Any, records: Iterator[tuple[int, Record]], columns: Mapping[str, str], bad_rows: BadRows, sheets: list[Any]
) -> Parsed:
    try:
        _refuse_uncalculated(sheet)
        parsed = read_table(
            records, columns, bad_rows, kind=f"XLSX, sheet {quoted(sheet.title)}", place="row", fitted=_fitted
        )
    except FormatError as error:
        error.sheet = sheet.title
        raise
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
    """Refuse, before anything is inflated, what is no workbook to be read; no part inflates to more than it says."""
    parts = archive.infolist()
    if any(part.flag_bits & 0x1 for part in parts):
        raise FormatError("encrypted", "the archive has a password. Save the workbook without one and upload that.")
    if any(part.filename == "xl/workbook.bin" for part in parts):
        raise FormatError("unsupported_format", "this is a binary workbook (.xlsb). Save it as .xlsx or CSV.")
    inflated = sum(part.file_size for part in parts)
    if inflated > MAX_INFLATED_BYTES or len(parts) > MAX_PARTS:
        raise FormatError(
            "too_large",
            f"the workbook holds {inflated} bytes in {len(parts)} parts, over the limit of {MAX_INFLATED_BYTES} bytes "
            f"in {MAX_PARTS}. Keep the sheet with the rows alone, or save it as CSV.",
        )


def _refuse_uncalculated(sheet: Any) -> None:
    """Refuse a sheet with formulas that nothing has calculated: their cells would be read as empty ones.

    Raises:
        FormatError: there is such a formula.
    """
    with sheet.parent._archive.open(sheet._worksheet_path) as xml:  # noqa: SLF001 - openpyxl shows no formula once it reads values
        before = b""
        while chunk := xml.read(1024 * 1024):
            for found in UNCALCULATED.finditer(before + chunk):
                if not found["value"] or b't="str"' not in found["said"]:
                    _refuse_formula(CELL.search(found["said"]))
            before = chunk[-LONGEST_CELL:]


def _refuse_formula(cell: re.Match[bytes] | None) -> NoReturn:
    raise FormatError(
        "not_calculated",
        f"the formula in {cell[0][3:-1].decode() if cell else 'a cell'} has no value. Open the workbook in a "
        "spreadsheet program, save it and upload it again.",
        int(cell[2]) if cell else None,
    )


def _records(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, each with its number and the text of its cells.

    Raises:
        FormatError: there is more of them than is read.
    """
    sheet.reset_dimensions()  # what the sheet says of its size need not be so
    size = 0
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        if number > LAST_ROW:
            raise FormatError("too_many_rows", f"no sheet has more than {LAST_ROW} rows.", number, sheet.title)
        record = [_text(value) for value in values]
        if not any(map(says_something, record)):
            continue
        size += sum(map(len, record))
        if size > MAX_CHARACTERS:
            message = f"the cells up to here hold more than {MAX_CHARACTERS} characters. Send fewer rows."
            raise FormatError("too_large", message, number, sheet.title)
        while not says_something(record[-1]):
            del record[-1]
        yield number, record


def _text(value: Any) -> str:
    """What a cell says, as a spreadsheet shows it where it is not told how: dates as ISO 8601, numbers to 15 digits."""
    match value:
        case None:
            return ""
        case str():
            return CellError(value) if value in ERRORS else value.replace("_x000D_", "\r")
        case bool():
            return str(value).upper()
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
        case datetime():
            shown = (value + timedelta(milliseconds=500)).replace(microsecond=0)
            return shown.date().isoformat() if shown.time() == time() else shown.isoformat(" ")
        case time():
            return value.isoformat("seconds")
        case date():
            return value.isoformat()
        case timedelta():
            minutes, seconds = divmod(round(abs(value).total_seconds()), 60)
            return f"{'-' if value < timedelta() else ''}{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return str(value)


def _fitted(record: Record, header: Record, number: int) -> Record:
    """The record with as many cells as the header; those that a sheet leaves out at its end are blank."""
    if len(record) > len(header):
        raise FormatError(
            "wrong_columns",
            f"{_letters(len(record))}{number} holds {quoted(record[-1], 60)}, and no header stands above it. Name the "
            "column or empty the cell.",
            number,
        )
    if sum(map(len, record)) > MAX_LINE_BYTES:
        raise FormatError("line_too_long", f"the row is over {MAX_LINE_BYTES} characters. Split it.", number)
    return [*record, *[""] * (len(header) - len(record))]


def _letters(column: int) -> str:
    """A column as spreadsheets name it, from 1: A, B, …, Z, AA."""
    name = ""
    while column:
        column, letter = divmod(column - 1, 26)
        name = chr(ord("A") + letter) + name
    return name
