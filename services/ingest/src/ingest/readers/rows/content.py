"""The text of one field."""

from __future__ import annotations

from pydantic import JsonValue

from ingest.readers.faults import FormatError


class CellError(str):
    """What a spreadsheet shows in a cell that holds an error instead of a value, such as `#REF!`."""

    __slots__ = ()


def content(value: JsonValue, where: str, number: int) -> str:
    """The text that a field holds: a string, a number, or OpenAI's list of text parts.

    Raises:
        FormatError: it holds none.
    """
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
        if not parts or any(not isinstance(part, str) for part in parts):
            raise FormatError("bad_content", f"{where}: only text parts can be trained on.", number)
        value = "".join(str(part) for part in parts)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, CellError):
        raise FormatError("cell_error", f"{where}: holds the error {value}. Correct the formula or its row.", number)
    if not isinstance(value, str):
        raise FormatError("bad_content", f"{where}: must be text.", number)
    if not value.strip():
        raise FormatError("empty_content", f"{where}: is empty. Fill it in or remove the row.", number)
    return value


def blank(value: JsonValue) -> bool:
    """Whether an optional field is left empty."""
    return value is None or (isinstance(value, str) and not value.strip())
