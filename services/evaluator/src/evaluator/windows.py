"""Windows of held-out text, found in the training file by what its run says of them; none goes on into another text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chassis.errors import Invalid
from schemas.artifacts import HeldoutText, read_text_row

T = TypeVar("T")

GOLDEN = (5**0.5 - 1) / 2
"""Steps of this, without the whole ones, fall everywhere alike between 0 and 1."""


@dataclass(frozen=True)
class Window:
    """A part of one document.

    Attributes:
        index: its place among all that the run lists, from 0.
        line: of the training file that the document is.
        text: what it says.
        tokens: that the run measured of it.
        run_gain: nats a token that the adapter saved when the run measured them.
    """

    index: int
    line: int
    text: str
    tokens: int
    run_gain: float


def read_windows(data: bytes, heldout: HeldoutText) -> list[Window]:
    """The windows of a training file.

    Args:
        data: the file.
        heldout: where they stand in it.

    Raises:
        Invalid: they do not stand there.
    """
    lines = _lines(data, heldout)
    windows: list[Window] = []
    for document in heldout.documents:
        text, after = _text(lines, document.line, rows=heldout.kind == "rows"), 0
        for one in document.windows:
            if not after <= one.start < one.end <= len(text):
                raise _not_there(document.line)
            after, part = one.end, text[one.start : one.end]
            windows.append(Window(len(windows), document.line, part, one.tokens, one.base - one.adapter))
    return windows


def choose(windows: Sequence[Window], most: int) -> list[Window]:
    """At most so many windows: of each document as many at most, at even distances, and one at least.

    Where there are more documents than that, some of them, at even distances too. Documents begin alike, so each has
    its windows taken from another place than the one before it.
    """
    chosen = _spread(by_document(windows), most)
    return [
        window
        for place, document in enumerate(chosen)
        for window in _spread(document, most // len(chosen), (0.5 + place * GOLDEN) % 1)
    ]


def by_document(windows: Iterable[Window]) -> list[list[Window]]:
    """The windows of each document together."""
    documents: dict[int, list[Window]] = {}
    for window in windows:
        documents.setdefault(window.line, []).append(window)
    return list(documents.values())


def _lines(data: bytes, heldout: HeldoutText) -> dict[int, bytes]:
    """The lines that documents stand in; a training file may be large, so no other is kept."""
    if heldout.kind == "document":
        return {0: data}
    wanted = {document.line for document in heldout.documents}
    return {place: line for place, line in enumerate(io.BytesIO(data)) if place in wanted}


def _text(lines: Mapping[int, bytes], line: int, *, rows: bool) -> str:
    try:
        text = read_text_row(lines[line])["text"] if rows else lines[line].decode("utf-8")
        return text.strip()
    except (ValueError, KeyError) as error:
        raise _not_there(line) from error


def _not_there(line: int) -> Invalid:
    message = f"Line {line + 1} of the training file does not hold the text that its run says it held out."
    return Invalid(message, code="heldout_text_differs")


def _spread(items: Sequence[T], most: int, phase: float = 0.5) -> Sequence[T]:
    """At most so many of them, at even distances; `phase`, from 0 to 1, is where in its share each is taken."""
    if len(items) <= most:
        return items
    return [items[int((place + phase) * len(items) / most)] for place in range(most)]
