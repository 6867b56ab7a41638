"""One sheet as the table it is, read in one pass over its XML that refuses what would be lost without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from itertools import chain, islice
from typing import TypedDict
from xml.etree.ElementTree import Element

from openpyxl.utils import get_column_letter, range_boundaries
from openpyxl.worksheet._read_only import ReadOnlyWorksheet
from openpyxl.worksheet._reader import CELL_TAG, FORMULA_TAG, ROW_TAG, VALUE_TAG, WorkSheetParser
from openpyxl.xml.constants import SHEET_MAIN_NS
from openpyxl.xml.functions import iterparse

from chassis.text import quoted, shown
from ingest.readers.faults import BadRows, FormatError
from ingest.readers.json_lines import MAX_LINE_BYTES
from ingest.readers.parsed import Parsed, says_something
from ingest.readers.rows.content import CellError
from ingest.readers.rows.table import Record, read_table

MERGED_TAG = f"{{{SHEET_MAIN_NS}}}mergeCell"

MAX_CHARACTERS = 512 * 1024 * 1024
"""In all cells that are read, the largest upload: one text of a workbook can stand in each of them."""

LAST_ROW = 1_048_576
"""A sheet has no more rows."""

SAVE_AGAIN = "Open the workbook in a spreadsheet program, save it and upload it again."
UNCALCULATED = CellError("=")
"""Stands for a formula without a value until its sheet is refused: its row is none that holds nothing."""

HALF_A_SECOND = timedelta(milliseconds=500)
SOME_DAY = date(2000, 1, 1)

Value = str | bool | int | float | datetime | date | time | timedelta


class Cell(TypedDict):
    """A cell as `openpyxl` reads it."""

    row: int
    column: int
    value: Value | None
    data_type: str


def read_sheet(sheet: ReadOnlyWorksheet, columns: Mapping[str, str], bad_rows: BadRows) -> Parsed | None:
    """The table of a worksheet; None where it has no header with a row under it.

    Args:
        sheet: of a workbook that openpyxl opened read-only, for values.
        columns: role -> column, as the sender said.
        bad_rows: what becomes of the file if some are bad.

    Raises:
        FormatError: it is no table, or something of it would be lost: a row or a cell stands twice, a formula has no
            value, cells under the header are merged.
    """
    records = _records(sheet)
    try:
        first = list(islice(records, 2))
        if len(first) < 2:
            return None
        kind = f"XLSX, sheet {quoted(sheet.title)}"
        return read_table(chain(first, records), columns, bad_rows, kind=kind, place="row", fitted=_fitted)
    except FormatError as error:
        error.sheet = sheet.title
        raise


def _records(sheet: ReadOnlyWorksheet) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, each with its number and the text of its cells up to the last that says something.

    Raises:
        FormatError: there is more than is read, or from the second of them on something would be lost.
    """
    header, last, width, size = 0, 0, 0, 0
    merged: list[str] = []
    uncalculated: FormatError | None = None
    for number, cells in _rows(sheet, merged):
        record: list[str] = []
        for column, text in cells:
            if text is UNCALCULATED:
                uncalculated = uncalculated or _uncalculated(column, number)
            if says_something(text):
                record.extend([""] * (column - 1 - len(record)))
                record.append(text)
        if not record:
            continue
        last, size = number, size + sum(map(len, record))
        if size > MAX_CHARACTERS:
            message = f"the cells up to here hold more than {MAX_CHARACTERS} characters. Send fewer rows."
            raise FormatError("too_large", message, number)
        if not header:
            header, width = number, len(record)
        elif uncalculated:
            raise uncalculated
        yield number, record
    if last > header:
        _refuse_merged(merged, header, last, width)


def _rows(sheet: ReadOnlyWorksheet, merged: list[str]) -> Iterator[tuple[int, Iterator[tuple[int, str]]]]:
    """Every row of the XML with its number and its cells; the ranges of merged cells are added to `merged`."""
    book = sheet.parent
    parser = WorkSheetParser(
        None,
        sheet._shared_strings,  # noqa: SLF001 - openpyxl's own rows leave out, unsaid, whatever stands twice
        data_only=True,
        epoch=book.epoch,
        date_formats=book._date_formats,  # noqa: SLF001
        timedelta_formats=book._timedelta_formats,  # noqa: SLF001
    )
    with book._archive.open(sheet._worksheet_path) as xml:  # noqa: SLF001
        for _, element in iterparse(xml):
            if element.tag == ROW_TAG:
                parser.row_counter = _number(element, parser.row_counter)
                yield parser.row_counter, _cells(parser, element)
                element.clear()
            elif element.tag == MERGED_TAG:
                merged.append(element.get("ref", ""))


def _number(row: Element, before: int) -> int:
    """The number of a row: what it says, else the next.

    Raises:
        FormatError: it is none that can follow the row before.
    """
    said = row.get("r")
    if said is None:
        return before + 1
    number = float(said)  # some programs write 1.0
    if before < number <= LAST_ROW and number.is_integer():
        return int(number)
    if number > LAST_ROW:
        code, wrong = "too_many_rows", f"and no sheet has more than {LAST_ROW}"
    else:
        code, wrong = "repeated_row", "so rows stand twice or out of order"
    message = f"after row {before} comes one that says it is row {shown(said, 20)}, {wrong}. {SAVE_AGAIN}"
    raise FormatError(code, message, before or None)


def _cells(parser: WorkSheetParser, row: Element) -> Iterator[tuple[int, str]]:
    """The cells of a row, each with its column and its text.

    Raises:
        FormatError: one stands twice.
    """
    parser.col_counter = 0
    for element in row.iterfind(CELL_TAG):
        before = parser.col_counter
        cell = parser.parse_cell(element)
        if cell["row"] != parser.row_counter or cell["column"] <= before:
            raise FormatError(
                "repeated_cell",
                f"the cell {shown(element.get('r', ''), 20)} stands twice, out of order or in another row. "
                f"{SAVE_AGAIN}",
                parser.row_counter,
            )
        yield cell["column"], _text_of(cell, element)


def _text_of(cell: Cell, element: Element) -> str:
    value = cell["value"]
    if value is None:
        # A formula whose value is no text at all is written as an empty text.
        calculated = cell["data_type"] == "str" and element.find(VALUE_TAG) is not None
        return "" if calculated or element.find(FORMULA_TAG) is None else UNCALCULATED
    return CellError(value) if cell["data_type"] == "e" else _text(value)


def _text(value: Value) -> str:
    """What a cell says, as a spreadsheet shows it where it is not told how.

    Dates are ISO 8601, whatever tells a time is rounded to the second, and numbers have 15 digits.
    """
    match value:
        case str():
            return value.replace("_x000D_", "\r")
        case bool():
            return str(value).upper()
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
        case datetime():
            second = _to_the_second(value)
            return second.date().isoformat() if second.time() == time() else second.isoformat(" ")
        case time():
            return _to_the_second(datetime.combine(SOME_DAY, value)).time().isoformat()
        case date():
            return value.isoformat()
        case timedelta():
            minutes, seconds = divmod((abs(value) + HALF_A_SECOND) // timedelta(seconds=1), 60)
            return f"{'-' if value < timedelta() else ''}{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return str(value)


def _to_the_second(value: datetime) -> datetime:
    return (value + HALF_A_SECOND).replace(microsecond=0)


def _uncalculated(column: int, number: int) -> FormatError:
    message = f"the formula in {get_column_letter(column)}{number} has no value. {SAVE_AGAIN}"
    return FormatError("not_calculated", message, number)


def _refuse_merged(merged: Sequence[str], header: int, last: int, width: int) -> None:
    """Refuse a table in which one cell stands for several: only the first of them holds the text.

    Args:
        merged: ranges of cells.
        header: number of the row that names the columns.
        last: number of the last row that holds anything.
        width: columns that have a name.

    Raises:
        FormatError: the first range that reaches over more than one cell of the table.
    """
    wrong: list[tuple[int, str]] = []
    for cells in merged:
        left, top, right, bottom = range_boundaries(cells)  # None where it is whole rows or columns
        left, top, right, bottom = left or 1, top or 1, min(right or width, width), min(bottom or last, last)
        if header <= top <= bottom and left <= right and (left, top) != (right, bottom):
            wrong.append((top, cells))
    if wrong:
        first, cells = min(wrong)
        more = f" (and {len(wrong) - 1} more ranges)" if len(wrong) > 1 else ""
        raise FormatError(
            "merged_cells",
            f"the cells {shown(cells, 40)}{more} are merged, and only the first of them holds the text. Unmerge them, "
            "fill each one in and upload the workbook again.",
            first,
        )


def _fitted(record: Record, header: Record, number: int) -> Record:
    """The record with as many cells as the header; those that a sheet leaves out at its end are blank."""
    if len(record) > len(header):
        raise FormatError(
            "wrong_columns",
            f"{get_column_letter(len(record))}{number} holds {quoted(record[-1], 60)}, and no header stands above it. "
            "Name the column or empty the cell.",
            number,
        )
    if sum(map(len, record)) > MAX_LINE_BYTES:
        raise FormatError("line_too_long", f"the row is over {MAX_LINE_BYTES} characters. Split it.", number)
    return [*record, *[""] * (len(header) - len(record))]
