"""Reads rows or text out of an upload, and says exactly what is wrong and where when it cannot."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_LINE_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_ROWS = 1_000_000
MOST_COUNTED_ERRORS = 10_000

MAGIC = {
    b"PK\x03\x04": "a zip archive (or an Office document)",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7-zip archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "a SQLite database",
    b"\x7fELF": "a program",
}
ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_COLUMNS = ("text", "message", "input", "prompt", "question", "query", "utterance", "sentence", "user")
ANSWER_COLUMNS = ("label", "intent", "answer", "output", "completion", "response", "category", "class", "assistant")
# A surrogate that is not half of a pair, as JSON can spell but no text can hold.
SURROGATE = re.compile("[\ud800-\udfff]")

Row = dict[str, Any]


class FormatError(Exception):
    """One thing wrong with an upload.

    Attributes:
        code: stable slug.
        message: what, where, what to do; the file's name is put before it.
        line: from 1, where one line is at fault.
    """

    def __init__(self, code: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.line = code, message, line


@dataclass
class Parsed:
    """What an upload holds.

    Attributes:
        kind: `rows` (with answers), `unlabelled`, or `document`.
        rows: chat rows `{"messages": […]}`, or `{"text": …}` where unlabelled.
        text: the document.
        format: what it was recognised as.
    """

    kind: str
    format: str
    rows: list[Row] = field(default_factory=list)
    text: str = ""


def decode(data: bytes) -> str:
    """The text of a file.

    Raises:
        FormatError: empty, a known binary format, not UTF-8, or holding NUL.
    """
    if not data.strip():
        raise FormatError("empty_file", "the file is empty. Upload a file with at least one row.")
    for magic, name in MAGIC.items():
        if data.startswith(magic):
            advice = "Upload the file inside it." if "archive" in name else "Upload it as text, Markdown, JSONL or CSV."
            raise FormatError("unsupported_format", f"this is {name}, whatever its name says. {advice}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError("not_utf8", "this is UTF-16 text. Save the file as UTF-8 and upload it again.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(
            "not_utf8",
            f"byte 0x{data[error.start]:02x} is not UTF-8. Save the file as UTF-8 and upload it again.",
            line,
        ) from error
    if (at := text.find("\x00")) >= 0:
        raise FormatError("nul_byte", "there is a NUL byte. Remove it and upload again.", text.count("\n", 0, at) + 1)
    return text


def parse(text: str, *, filename: str, columns: dict[str, str], purpose: str) -> Parsed:
    """Recognise the format by its content and read it.

    Args:
        text: the decoded file.
        filename: only to tell CSV from text where the content does not.
        columns: for CSV: our names (`text`, `label`, `system`) -> the file's columns.
        purpose: `assistants` files are documents whatever they look like.

    Raises:
        FormatError: the first thing wrong, and how many more lines are.
    """
    if purpose == "assistants":
        return Parsed("document", "text", text=text)
    start = text.lstrip()[:1]
    if start == "{":
        return _parse_jsonl(text)
    if start == "[" and _is_json(text):
        raise FormatError("json_array", "this is one JSON array. Write one JSON object a line (JSONL).", 1)
    if columns or _looks_like_csv(text, filename):
        return _parse_csv(text, columns)
    if purpose in ("fine-tune", "evals", "batch"):
        if filename.lower().endswith((".jsonl", ".json")):
            return _parse_jsonl(text)
        raise FormatError(
            "no_rows",
            f"this is plain text, and '{purpose}' needs rows. Upload JSONL or CSV, or use the purpose 'assistants'.",
        )
    if filename.lower().endswith(".jsonl"):
        return _parse_jsonl(text)
    return Parsed("document", "markdown" if re.search(r"^#{1,6} ", text, re.MULTILINE) else "text", text=text)


def check_jsonl(text: str) -> int:
    """Count the rows of a file that is kept as it is.

    Raises:
        FormatError: a line is not a JSON object.
    """
    rows = 0
    for number, line in _lines(text):
        _json_object(line, number)
        rows += 1
    return rows


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold anything, with their numbers from 1."""
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _json_object(line: str, number: int) -> Row:
    if len(line.encode()) > MAX_LINE_BYTES:
        raise FormatError("line_too_long", f"the line is over {MAX_LINE_BYTES} bytes. Split the row.", number)
    if _depth(line) > MAX_DEPTH:
        raise FormatError("too_deep", f"more than {MAX_DEPTH} levels of nesting. Flatten the row.", number)
    try:
        value = json.loads(line)
    except ValueError as error:
        reason = str(error).split(":")[0] if isinstance(error, json.JSONDecodeError) else str(error)
        column = error.colno if isinstance(error, json.JSONDecodeError) else 1
        raise FormatError(
            "invalid_json", f"not valid JSON at column {column} ({reason}). Fix the line and upload again.", number
        ) from error
    if not isinstance(value, dict):
        raise FormatError("not_an_object", 'every line must be a JSON object, like {"messages": […]}.', number)
    if SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise FormatError("lone_surrogate", "a \\ud800–\\udfff escape stands alone; it is no character.", number)
    if "\x00" in json.dumps(value, ensure_ascii=False) or "\\u0000" in line:
        raise FormatError("nul_byte", "a text holds a NUL character. Remove it.", number)
    return value


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


def _parse_jsonl(text: str) -> Parsed:
    rows: list[Row] = []
    expected: str | None = None
    first: FormatError | None = None
    bad = 0
    for number, line in _lines(text):
        try:
            value = _json_object(line, number)
            kind = _row_format(value, number)
            expected = expected or kind
            if kind != expected:
                raise FormatError(
                    "mixed_formats",
                    f"the rows before are {expected} rows, this is a {kind} row. Use one format.",
                    number,
                )
            rows.append(_read_row(value, kind, number))
        except FormatError as error:
            bad += 1
            first = first or error
            if bad >= MOST_COUNTED_ERRORS:
                break
        if len(rows) > MAX_ROWS:
            raise FormatError("too_many_rows", f"more than {MAX_ROWS} rows. Upload the file in parts.", number)
    if first is not None:
        more = f" {bad - 1} more line{'s are' if bad > 2 else ' is'} bad too." if bad > 1 else ""
        raise FormatError(first.code, first.message + more, first.line)
    if not rows:
        raise FormatError("empty_file", "there are no rows. Upload a file with at least one row.")
    return Parsed("unlabelled" if expected == "text" else "rows", f"{expected} JSONL", rows=rows)


def _row_format(value: Row, number: int) -> str:
    if "messages" in value:
        return "chat"
    if "instruction" in value and "output" in value:
        return "instruction"
    if "prompt" in value and "completion" in value:
        return "prompt/completion"
    if "text" in value and any(name in value for name in ("label", "intent")):
        return "text/label"
    if "text" in value:
        return "text"
    names = ", ".join(list(value)[:8]) or "nothing"
    raise FormatError(
        "unknown_fields",
        f"found the fields {names}. Use messages, instruction + output, prompt + completion, or text + label.",
        number,
    )


def _read_row(value: Row, kind: str, number: int) -> Row:
    if kind == "chat":
        return {"messages": _messages(value["messages"], number)}
    if kind == "text":
        return {"text": _content(value["text"], "text", number)}
    if kind == "instruction":
        question = _content(value["instruction"], "instruction", number)
        if value.get("input"):
            question = f"{question}\n\n{_content(value['input'], 'input', number)}"
        return chat_row(question, _content(value["output"], "output", number))
    if kind == "prompt/completion":
        return chat_row(
            _content(value["prompt"], "prompt", number), _content(value["completion"], "completion", number)
        )
    label = "label" if "label" in value else "intent"
    return chat_row(_content(value["text"], "text", number), _content(value[label], label, number))


def chat_row(question: str, answer: str, system: str = "") -> Row:
    """A row of one question and one answer."""
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _messages(value: Any, number: int) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise FormatError("no_messages", "messages: must be a list with at least a user and an assistant.", number)
    read = [_message(message, index, number) for index, message in enumerate(value)]
    roles = [message["role"] for message in read]
    if "user" not in roles:
        raise FormatError("no_user", "messages: there is no user message.", number)
    if roles[-1] != "assistant":
        raise FormatError(
            "no_assistant", "messages: the last one must be the assistant's, the answer to learn.", number
        )
    return read


def _message(message: Any, index: int, number: int) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise FormatError("bad_message", f"messages[{index}]: must be an object with role and content.", number)
    role = message.get("role")
    if role not in ROLES:
        raise FormatError("wrong_role", f"messages[{index}].role: {role!r} is not one of {', '.join(ROLES)}.", number)
    read = {"role": role, "content": _content(message.get("content"), f"messages[{index}].content", number)}
    if "weight" in message:
        if role != "assistant" or message["weight"] not in (0, 1):
            raise FormatError("bad_weight", f"messages[{index}].weight: 0 or 1, on assistant messages only.", number)
        read["weight"] = message["weight"]
    return read


def _content(value: Any, where: str, number: int) -> str:
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
        if not parts or any(not isinstance(part, str) for part in parts):
            raise FormatError("bad_content", f"{where}: only text parts can be trained on.", number)
        value = "".join(str(part) for part in parts)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise FormatError("bad_content", f"{where}: must be text.", number)
    if not value.strip():
        raise FormatError("empty_content", f"{where}: is empty. Fill it in or remove the row.", number)
    return value


def _looks_like_csv(text: str, filename: str) -> bool:
    if filename.lower().endswith((".csv", ".tsv")):
        return True
    if filename.lower().endswith((".md", ".markdown", ".txt", ".jsonl", ".json")):
        return False
    header = [name.strip().casefold() for name in next(csv.reader(io.StringIO(text.split("\n", 1)[0])), [])]
    return len(header) > 1 and any(name in TEXT_COLUMNS for name in header)


def _parse_csv(text: str, columns: dict[str, str]) -> Parsed:
    first_line = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first_line.count)
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        question, answer, system = _columns(header, columns)
        rows: list[Row] = []
        for record in reader:
            if not record:
                continue
            number = reader.line_num
            if len(record) != len(header):
                raise FormatError(
                    "wrong_columns",
                    f"the header has {len(header)} fields and this line {len(record)}. Check the quotes.",
                    number,
                )
            asked = _content(record[header.index(question)], question, number)
            if answer is None:
                rows.append({"text": asked})
                continue
            instruction = record[header.index(system)] if system else ""
            rows.append(chat_row(asked, _content(record[header.index(answer)], answer, number), instruction))
    except csv.Error as error:
        raise FormatError("invalid_csv", f"not valid CSV ({error}). Check the quotes.", reader.line_num) from error
    if not rows:
        raise FormatError("empty_file", "there is a header and no rows.")
    return Parsed("rows" if answer is not None else "unlabelled", "CSV", rows=rows)


def _columns(header: list[str], wanted: dict[str, str]) -> tuple[str, str | None, str | None]:
    """The columns of question, answer (None: unlabelled) and system text."""
    given = {
        "text": wanted.get("text") or wanted.get("prompt"),
        "label": wanted.get("label") or wanted.get("completion"),
    }
    system = wanted.get("system")
    for column in (*given.values(), system):
        if column is not None and column not in header:
            raise FormatError(
                "unknown_column", f"there is no column '{column}'. The columns are: {', '.join(header)}.", 1
            )
    folded = {name.casefold(): name for name in header}
    question = given["text"] or next((folded[name] for name in TEXT_COLUMNS if name in folded), None)
    answer = given["label"] or next((folded[name] for name in ANSWER_COLUMNS if name in folded), None)
    if question is None:
        raise FormatError(
            "unknown_column",
            f"cannot tell which column holds the text. The columns are: {', '.join(header)}. "
            'Send columns={"text": "…", "label": "…"} with the upload.',
            1,
        )
    return question, answer, system
