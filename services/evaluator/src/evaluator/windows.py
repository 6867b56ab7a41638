"""Windows of held-out text, found in the training file by what its run says of them; none goes on into another text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chassis.errors import Invalid
from schemas.artifacts import HeldoutText

T = TypeVar("T")


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
    content = data.decode("utf-8")
    lines = [content] if heldout.kind == "document" else content.split("\n")
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

    Where there are more documents than that, some of them, at even distances too.
    """
    chosen = _spread(by_document(windows), most)
    return [window for document in chosen for window in _spread(document, most // len(chosen))]


def by_document(windows: Iterable[Window]) -> list[list[Window]]:
    """The windows of each document together."""
    documents: dict[int, list[Window]] = {}
    for window in windows:
        documents.setdefault(window.line, []).append(window)
    return list(documents.values())


def _text(lines: Sequence[str], line: int, *, rows: bool) -> str:
    try:
        return str(json.loads(lines[line])["text"] if rows else lines[line]).strip()
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise _not_there(line) from error


def _not_there(line: int) -> Invalid:
    message = f"Line {line + 1} of the training file does not hold the text that its run says it held out."
    return Invalid(message, code="heldout_text_differs")


def _spread(items: Sequence[T], most: int) -> Sequence[T]:
    return items if len(items) <= most else [items[place * len(items) // most] for place in range(most)]
