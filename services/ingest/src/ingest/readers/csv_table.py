"""CSV: a table with commas, semicolons or tabs, as spreadsheets write it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from ingest.readers.faults import BadRows, FormatError
from ingest.readers.json_lines import MAX_LINE_BYTES
from ingest.readers.parsed import Parsed, says_something
from ingest.readers.prose import PROSE_NAMES
from ingest.readers.reader import Source
from ingest.readers.rows.roles import find_roles
from ingest.readers.rows.table import Record, read_table

DELIMITERS = ",;\t"
# A spreadsheet's own first line, which says by what fields are separated.
SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?,*\r?\n', re.IGNORECASE)
LINE_END = re.compile(r"\r\n|\r|\n")
QUOTED_FIELD = re.compile(r'"(?:[^"]++|"")*+"')
LONGEST_HEADER = 64 * 1024


class CsvTable:
    """Reads a table whose first line names its columns."""

    makes: Literal["rows", "document"] = "rows"
    names: tuple[str, ...] = (".csv", ".tsv")
    binary = False

    def sniff(self, source: Source) -> bool:
        """Whether its first line reads as a header, unless its name says that it is prose."""
        return not source.name.endswith(PROSE_NAMES) and looks_like_table(source.text)

    def read(self, source: Source, columns: Mapping[str, str], bad_rows: BadRows) -> Parsed:
        """The rows; see `Reader`."""
        return read_table(_records(source.text), columns, bad_rows, kind="CSV", place="line", fitted=_fitted)


def looks_like_table(text: str) -> bool:
    """Whether the first line reads as a header that names a column of texts."""
    first = LINE_END.split(text.lstrip("\r\n"), maxsplit=1)[0][:LONGEST_HEADER]
    header = [name.strip() for name in next(csv.reader([first], delimiter=_delimiter(first)), [])]
    if len(header) < 2:
        return False
    try:
        return find_roles(header, {}, "column", 1) is not None
    except FormatError:
        return True


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The records that hold anything, each with the line it begins on.

    Raises:
        FormatError: quotes do not fit.
    """
    delimiter = _delimiter(_first_line_that_says_something(text))
    skipped = 0
    if told := SEPARATOR_LINE.match(text):
        delimiter, skipped, text = told[1], 1, text[told.end() :]
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = skipped + 1
    try:
        for record in reader:
            if any(map(says_something, record)):
                yield begins, record
            begins = skipped + reader.line_num + 1
    except csv.Error as error:
        opened = _open_quote(text, begins - skipped, delimiter)
        if opened is None:
            raise FormatError("invalid_csv", f"not valid CSV ({error}). Check the quotes.", begins) from error
        raise FormatError(
            "invalid_csv",
            "a quote opens a field on this line and is not closed before a separator or the end of a line. Close it, "
            "or write quotes inside a field twice.",
            skipped + opened,
        ) from error


def _delimiter(line: str) -> str:
    return max(DELIMITERS, key=line.count)


def _first_line_that_says_something(text: str) -> str:
    found = re.search(r'[^\r\n]*[^\r\n\s,;"][^\r\n]*', text)
    return found[0] if found else ""


def _open_quote(text: str, line: int, delimiter: str) -> int | None:
    """The line on which the first quoted field, from this line on, begins that does not end as it must."""
    beginnings = [0, *(end.end() for end in LINE_END.finditer(text))]
    start = beginnings[line - 1] if line <= len(beginnings) else len(text)
    opening = re.compile(rf'(?:^|[{delimiter}\r\n])"')
    rest, at = text[start:], 0
    while opened := opening.search(rest, at):
        closed = QUOTED_FIELD.match(rest, opened.end() - 1)
        fits = closed is not None and rest[closed.end() : closed.end() + 1] in ("", delimiter, "\r", "\n")
        if closed is None or not fits or len(closed[0]) > MAX_LINE_BYTES:
            return line + len(LINE_END.findall(rest, 0, opened.end() - 1))
        at = closed.end()
    return None


def _fitted(record: Record, header: Record, number: int) -> Record:
    """The record with as many fields as the header; blank ones that a spreadsheet left at its end are cut."""
    while len(record) > len(header) and not says_something(record[-1]):
        record = record[:-1]
    if len(record) != len(header):
        raise FormatError(
            "wrong_columns",
            f"the header has {len(header)} fields and this line {len(record)}. Check the quotes.",
            number,
        )
    return record
