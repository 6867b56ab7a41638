"""JSON Lines: an object a line, bounded in size and depth."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from chassis.text import quoted
from ingest.readers.faults import FormatError

MAX_LINE_BYTES = 1024 * 1024
MAX_DEPTH = 64
# A surrogate that is not half of a pair, as JSON can spell but no text can hold.
SURROGATE = re.compile("[\ud800-\udfff]")
# A NUL as JSON spells it, and not a backslash that happens to stand before "u0000".
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


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


def json_object(line: str, number: int) -> dict[str, Any]:
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


class _NamedTwice(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _NamedTwice(next(name for name in names if names.count(name) > 1))
    return made
