"""JSON Lines: an object a line, bounded in size and depth, each a conversation or a row of named fields."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import JsonValue

from chassis.text import quoted
from ingest.readers.faults import BadRows, Faults, FormatError, listed
from ingest.readers.parsed import Fields, Parsed, Unread
from ingest.readers.reader import Source
from ingest.readers.rows.conversation import read_chat, read_sharegpt
from ingest.readers.rows.roles import Roles, find_roles
from schemas.artifacts import ChatRow, TextRow

MAX_LINE_BYTES = 1024 * 1024
MAX_DEPTH = 64
MOST_REMEMBERED = 1000
"""Sets of field names of which the roles are remembered."""

# An object in JSON; a brace before anything else is a template's or a writer's.
JSON_OBJECT = re.compile(r'\s*\{\s*(["}]|$)')
# A surrogate that is not half of a pair, as JSON can spell but no text can hold.
SURROGATE = re.compile("[\ud800-\udfff]")
# A NUL as JSON spells it, and not a backslash that happens to stand before "u0000".
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class JsonLines:
    """Reads one row a line: a conversation, or fields by their names."""

    makes: Literal["rows", "document"] = "rows"
    names: tuple[str, ...] = (".jsonl", ".ndjson", ".json")
    binary = False

    def sniff(self, source: Source) -> bool:
        """Whether it begins as an object does; an array of objects is read too, to say what it must be."""
        return JSON_OBJECT.match(source.text) is not None or _is_array(source.text)

    def read(self, source: Source, columns: Mapping[str, str], bad_rows: BadRows) -> Parsed:
        """The rows; see `Reader`."""
        if _is_array(source.text):
            raise FormatError("json_array", "this is one JSON array. Write one JSON object a line (JSONL).", 1)
        reader, parsed, faults = _RowReader(columns), Parsed("rows", "JSONL"), Faults(bad_rows, "line")
        expected: str | None = None
        for number, line in lines(source.text):
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
        faults.end(parsed.count)
        if not parsed.count:
            raise FormatError("empty_file", "there are no rows. Upload a file with at least one row.")
        parsed.kind = "unlabelled" if expected == "text" else "rows"
        parsed.format, parsed.left_out = f"{expected} JSONL", faults.note()
        return parsed


def check_jsonl(text: str) -> int:
    """Count the rows of a file that is kept as it is.

    Raises:
        FormatError: a line is not a JSON object.
    """
    rows = 0
    for number, line in lines(text):
        json_object(line, number)
        rows += 1
    return rows


def lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold anything, with their numbers from 1."""
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\n")


def json_object(line: str, number: int) -> dict[str, JsonValue]:
    """The object that a line holds.

    Raises:
        FormatError: it holds none, or one that is too large, too deep, or not text.
    """
    if len(line.encode()) > MAX_LINE_BYTES:
        raise FormatError("line_too_long", f"the line is over {MAX_LINE_BYTES} bytes. Split the row.", number)
    if line.count("[") + line.count("{") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise FormatError("too_deep", f"more than {MAX_DEPTH} levels of nesting. Flatten the row.", number)
    try:
        value = json.loads(line, object_pairs_hook=_object)
    except _NamedTwice as error:
        raise FormatError(
            "named_twice", f"the field {quoted(error.name)} stands twice in one object. Keep one.", number
        ) from error
    except ValueError as error:
        reason = str(error).split(":")[0] if isinstance(error, json.JSONDecodeError) else str(error)
        column = error.colno if isinstance(error, json.JSONDecodeError) else 1
        raise FormatError(
            "invalid_json", f"not valid JSON at column {column} ({reason}). Fix the line and upload again.", number
        ) from error
    if not isinstance(value, dict):
        raise FormatError("not_an_object", 'every line must be a JSON object, like {"messages": […]}.', number)
    if "\\u" in line:
        _check_escapes(json.dumps(value, ensure_ascii=False), number)
    return value


def _check_escapes(said: str, number: int) -> None:
    if SURROGATE.search(said):
        raise FormatError("lone_surrogate", "a \\ud800–\\udfff escape stands alone; it is no character.", number)
    if NUL.search(said):
        raise FormatError("nul_byte", "a text holds a NUL character. Remove it.", number)


def _depth(line: str) -> int:
    deepest = depth = 0
    in_string = escaped = False
    for character in line:
        if in_string:
            in_string = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _is_array(text: str) -> bool:
    if text.lstrip()[:1] != "[":
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class _RowReader:
    """Reads objects as rows; which fields are what is worked out once for each set of names."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._known: dict[tuple[str, ...], Roles] = {}

    def read(self, record: Fields, number: int) -> tuple[str, ChatRow | TextRow, Unread]:
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


class _NamedTwice(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _NamedTwice(next(name for name in names if names.count(name) > 1))
    return made
