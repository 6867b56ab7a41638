"""Tables: CSV with commas, semicolons or tabs, as spreadsheets write it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping

from ingest.readers.faults import BadRows, Faults, FormatError, listed
from ingest.readers.json_lines import MAX_LINE_BYTES
from ingest.readers.parsed import Parsed, says_something
from ingest.readers.roles import Roles, find_roles

DELIMITERS = ",;\t"
# A spreadsheet's own first line, which says by what fields are separated.
SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?,*\r?\n', re.IGNORECASE)
LINE_END = re.compile(r"\r\n|\r|\n")
QUOTED_FIELD = re.compile(r'"(?:[^"]++|"")*+"')
LONGEST_HEADER = 64 * 1024


def parse_table(text: str, columns: Mapping[str, str], bad_rows: BadRows) -> Parsed:
    """Read a table whose first line names its columns.

    Args:
        text: the file.
        columns: role -> column, as the sender said.
        bad_rows: what becomes of the file if some are bad.

    Raises:
        FormatError: it is no such table, or rows are bad and refused.
    """
    records = _records(text)
    at, header = next(records, (1, []))
    if not header:
        raise FormatError("empty_file", "there is no header and there are no rows.")
    roles = _roles(header, columns, at)
    names = _unique(header)
    parsed, faults = Parsed("rows" if roles.answer is not None else "unlabelled", "CSV"), Faults(bad_rows)
    for number, record in records:
        try:
            row, unread = roles.read(dict(zip(names, _fitted(record, header, number), strict=True)), number)
        except FormatError as error:
            faults.add(error)
            continue
        parsed.add(row, unread, number)
    faults.settle(len(parsed.rows))
    if not parsed.rows:
        raise FormatError("empty_file", "there is a header and no rows.")
    parsed.left_out = faults.note()
    return parsed


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


def _roles(header: list[str], columns: Mapping[str, str], line: int) -> Roles:
    names = [name.strip() for name in header]
    if roles := find_roles(names, columns, "column", line):
        return roles
    raise FormatError(
        "unknown_column",
        f"cannot tell which column holds the text. The columns are: {listed(names)}. "
        'Send columns={"text": "…", "label": "…"} with the upload.',
        line,
    )


def _unique(header: list[str]) -> list[str]:
    """A name for each column: those without one, or with one that stands before, are named by their place."""
    names: list[str] = []
    for place, name in enumerate(map(str.strip, header), start=1):
        names.append(name if name and name not in names else f"column {place}")
    return names


def _fitted(record: list[str], header: list[str], number: int) -> list[str]:
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
