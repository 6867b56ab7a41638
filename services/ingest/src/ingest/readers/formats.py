"""Recognises what an upload is: by what it is for, then by its name, then by how it begins."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ingest.readers.conversation import read_chat, read_sharegpt
from ingest.readers.faults import BadRows, Faults, FormatError, listed
from ingest.readers.json_lines import json_object, lines
from ingest.readers.parsed import Parsed, Row, Unread
from ingest.readers.roles import Roles, find_roles
from ingest.readers.table import looks_like_table, parse_table

FOR_ROWS = ("fine-tune", "evals", "batch")
JSON_NAMES = (".jsonl", ".ndjson", ".json")
TABLE_NAMES = (".csv", ".tsv")
PROSE_NAMES = (".md", ".markdown", ".txt", ".text", ".rst", ".html", ".htm")
MOST_REMEMBERED = 1000
# An object in JSON; a brace before anything else is a template's or a writer's.
JSON_OBJECT = re.compile(r'\s*\{\s*(["}]|$)')


def parse(
    text: str, *, filename: str, columns: Mapping[str, str], purpose: str, bad_rows: BadRows = "refuse"
) -> Parsed:
    """Recognise the format and read it.

    Args:
        text: the decoded file.
        filename: what it ends with outranks how the content begins.
        columns: role (`text`, `input`, `label`, `system`) -> the file's own column or field.
        purpose: `assistants` files are documents whatever they look like, and `fine-tune` files are rows.
        bad_rows: what becomes of a file if some of its rows are bad.

    Raises:
        FormatError: the first thing wrong, and how many more lines are.
    """
    name = filename.lower()
    if purpose == "assistants":
        return _document(text)
    if name.endswith(TABLE_NAMES):
        return parse_table(text, columns, bad_rows)
    prose = name.endswith(PROSE_NAMES) and purpose not in FOR_ROWS and not columns
    if not prose and text.lstrip()[:1] == "[" and _is_json(text):
        raise FormatError("json_array", "this is one JSON array. Write one JSON object a line (JSONL).", 1)
    if name.endswith(JSON_NAMES) or (not prose and JSON_OBJECT.match(text)):
        return _parse_jsonl(text, columns, bad_rows)
    if columns or (not name.endswith(PROSE_NAMES) and looks_like_table(text)):
        return parse_table(text, columns, bad_rows)
    if purpose in FOR_ROWS:
        raise FormatError(
            "no_rows",
            f"this is plain text, and '{purpose}' needs rows. Upload JSONL or CSV, or use the purpose 'assistants'.",
        )
    return _document(text)


def _document(text: str) -> Parsed:
    return Parsed("document", "markdown" if re.search(r"^#{1,6} ", text, re.MULTILINE) else "text", text=text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse_jsonl(text: str, columns: Mapping[str, str], bad_rows: BadRows) -> Parsed:
    reader, parsed, faults = _RowReader(columns), Parsed("rows", "JSONL"), Faults(bad_rows)
    expected: str | None = None
    for number, line in lines(text):
        try:
            kind, row, unread = reader.read(json_object(line, number), number)
            expected = expected or kind
            if kind != expected:
                raise FormatError(
                    "mixed_formats",
                    f"the rows before are {expected} rows, this is a {kind} row. Use one format.",
                    number,
                )
        except FormatError as error:
            faults.add(error)
            continue
        parsed.add(row, unread, number)
    faults.settle(len(parsed.rows))
    if not parsed.rows:
        raise FormatError("empty_file", "there are no rows. Upload a file with at least one row.")
    parsed.kind, parsed.format, parsed.left_out = _kind(expected), f"{expected} JSONL", faults.note()
    return parsed


def _kind(format_name: str | None) -> Any:
    return "unlabelled" if format_name == "text" else "rows"


class _RowReader:
    """Reads objects as rows; which fields are what is worked out once for each set of names."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._known: dict[tuple[str, ...], Roles] = {}

    def read(self, record: dict[str, Any], number: int) -> tuple[str, Row, Unread]:
        if not self._columns and "messages" in record and "conversations" in record:
            message = "the fields 'messages' and 'conversations' could both be the conversation. Remove one."
            raise FormatError("ambiguous_fields", message, number)
        if not self._columns and "messages" in record:
            return ("chat", *read_chat(record, number))
        if not self._columns and "conversations" in record:
            return ("ShareGPT", *read_sharegpt(record, number))
        roles = self._roles(tuple(record), number)
        return (roles.format, *roles.read(record, number))

    def _roles(self, names: tuple[str, ...], number: int) -> Roles:
        if names in self._known:
            return self._known[names]
        roles = find_roles(names, self._columns, "field", number)
        if roles is None:
            raise FormatError(
                "unknown_fields",
                f"found the fields {listed(names) or 'nothing'}. Use messages, conversations, instruction + output, "
                "prompt + completion, or text + label.",
                number,
            )
        if len(self._known) < MOST_REMEMBERED:
            self._known[names] = roles
        return roles
