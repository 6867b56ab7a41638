"""What was read out of an upload, with what of it was not read."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from chassis.text import quoted
from ingest.readers.faults import FormatError
from schemas.artifacts import ChatRow, TextRow

MAX_ROWS = 1_000_000
MOST_NAMED = 10
MOST_COUNTED_NAMES = 1000
LONGEST_NAME = 60

Fields = Mapping[str, JsonValue]
"""A row as it was sent: an object of a line, or the cells of a table under their columns."""

Unread = list[tuple[str, JsonValue]]
"""Places of a row, such as `tools` or `messages[2].name`, with what stands there and nobody reads."""

INDEX = re.compile(r"\[\d+\]")


@dataclass
class Parsed:
    """What an upload holds.

    Attributes:
        kind: `rows` (with answers), `unlabelled`, or `document`.
        format: what it was recognised as.
        rows: what is read of each row that has an answer.
        texts: what is read of each row without one; a file has rows of one of the two.
        unread: for each row a digest of what is not read of it, empty where all is: rows are the same only if it is.
        unread_in: by place, how many rows say something there that is not read.
        text: the document.
        left_out: what the owner should know of bad rows, and of sheets, that were left out.
    """

    kind: Literal["rows", "unlabelled", "document"]
    format: str
    rows: list[ChatRow] = field(default_factory=list)
    texts: list[TextRow] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unread_in: Counter[str] = field(default_factory=Counter)
    text: str = ""
    left_out: str | None = None

    @property
    def count(self) -> int:
        """Rows with and without an answer."""
        return len(self.rows) + len(self.texts)

    def add(self, row: ChatRow | TextRow, unread: Unread, line: int) -> None:
        """Take in a row.

        Raises:
            FormatError: there are too many.
        """
        if self.count >= MAX_ROWS:
            raise FormatError("too_many_rows", f"more than {MAX_ROWS} rows. Send the best of them.", line)
        if "messages" in row:
            self.rows.append(row)
        else:
            self.texts.append(row)
        self.unread.append(_digest(unread) if unread else "")
        for place in dict.fromkeys(INDEX.sub("[]", place) for place, _ in unread):
            if place in self.unread_in or len(self.unread_in) < MOST_COUNTED_NAMES:
                self.unread_in[place] += 1

    def unread_note(self) -> str | None:
        """Which fields or columns hold something that is not read, for the owner of the file."""
        if not self.unread_in:
            return None
        named = [f"{quoted(place, LONGEST_NAME)} ({count})" for place, count in self.unread_in.most_common(MOST_NAMED)]
        more = f" and {len(self.unread_in) - MOST_NAMED} more" if len(self.unread_in) > MOST_NAMED else ""
        return f"Not read, in so many rows: {', '.join(named)}{more}."


def says_something(value: JsonValue) -> bool:
    """Whether leaving a value unread leaves anything out."""
    return value is not None and value not in ("", [], {}) and not (isinstance(value, str) and not value.strip())


def unread_of(record: Fields, known: Collection[str | None], where: str = "") -> Unread:
    """What a record says in fields that are not known."""
    return [(f"{where}{name}", value) for name, value in record.items() if name not in known and says_something(value)]


def _digest(unread: Unread) -> str:
    said = sorted(json.dumps(one, sort_keys=True, ensure_ascii=False) for one in unread)
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]
