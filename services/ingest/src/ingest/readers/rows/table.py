"""Tables: a header that names the columns, and records under it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ingest.readers.faults import BadRows, Faults, FormatError, listed
from ingest.readers.parsed import Parsed
from ingest.readers.rows.roles import Roles, find_roles

Record = Sequence[str]
Fit = Callable[[Record, Record, int], Record]


def read_table(
    records: Iterator[tuple[int, Record]],
    columns: Mapping[str, str],
    bad_rows: BadRows,
    *,
    kind: str,
    place: str,
    fitted: Fit,
) -> Parsed:
    """Read records of which the first names the columns.

    Args:
        records: those that hold anything, each with its number in the file.
        columns: role -> column, as the sender said.
        bad_rows: what becomes of the file if some are bad.
        kind: what the format is called.
        place: what a number counts, `line` or `row`.
        fitted: makes of a record, the header and the number a record with as many fields as the header.

    Raises:
        FormatError: it is no such table, or rows are bad and refused.
    """
    at, header = next(records, (1, []))
    if not header:
        raise FormatError("empty_file", "there is no header and there are no rows.")
    roles = _roles(header, columns, at)
    names = _unique(header)
    parsed, faults = Parsed("rows" if roles.answer is not None else "unlabelled", kind), Faults(bad_rows, place)
    for number, record in records:
        try:
            row, unread = roles.read(dict(zip(names, fitted(record, header, number), strict=True)), number)
        except FormatError as error:
            faults.add(error)
            continue
        parsed.add(row, unread, number)
    faults.end(parsed.count)
    if not parsed.count:
        raise FormatError("empty_file", "there is a header and no rows.")
    parsed.left_out = faults.note()
    return parsed


def _roles(header: Record, columns: Mapping[str, str], line: int) -> Roles:
    names = [name.strip() for name in header]
    if roles := find_roles(names, columns, "column", line):
        return roles
    raise FormatError(
        "unknown_column",
        f"cannot tell which column holds the text. The columns are: {listed(names)}. "
        'Send columns={"text": "…", "label": "…"} with the upload.',
        line,
    )


def _unique(header: Record) -> list[str]:
    """A name for each column: those without one, or with one that stands before, are named by their place."""
    names: list[str] = []
    for place, name in enumerate(map(str.strip, header), start=1):
        names.append(name if name and name not in names else f"column {place}")
    return names
