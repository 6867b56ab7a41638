"""Cuts Markdown and text into chunks that can be read on their own: by heading, paragraph, sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from chassis.errors import TooLarge

HEADING = re.compile(r"(#{1,6})\s+(.*)")
# The end of a sentence: Japanese marks need no blank after them.
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


@dataclass(frozen=True)
class Chunk:
    """A piece of a document. `text` begins with the headings it stands under."""

    text: str


def chunks(text: str, *, limit: int, most: int) -> list[Chunk]:
    """Cut a document, in time that grows with its length.

    Args:
        text: Markdown or plain text.
        limit: longest chunk in characters, each Japanese one counting double (it is about as many tokens).
        most: chunks of a document.

    Returns:
        Chunks in the document's order; none for a document without text.

    Raises:
        TooLarge: there would be more.
    """
    found = list(islice(_chunks(text, limit), most + 1))
    if len(found) > most:
        raise TooLarge(f"The document has more than {most} chunks; split it into smaller files.")
    return found


def _chunks(text: str, limit: int) -> Iterator[Chunk]:
    for path, body in _sections(text):
        title = _title(path, limit // 2)
        room = limit - _weight(title)
        for piece in _pack(_pieces(body, room), room):
            yield Chunk(f"{title}\n{piece}" if title else piece)


def _title(path: list[str], limit: int) -> str:
    """The headings, each cut, and without the outermost where all are too long."""
    parts = [_head(part, limit // 2) for part in path]
    while _weight(title := " > ".join(parts)) > limit:
        parts = parts[1:]
    return title


def _sections(text: str) -> Iterator[tuple[list[str], str]]:
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    for line in text.splitlines():
        heading = HEADING.fullmatch(line.strip())
        if heading is None:
            lines.append(line)
            continue
        if any(part.strip() for part in lines):
            yield [title for _, title in path], "\n".join(lines)
        level = len(heading[1])
        path = [*(entry for entry in path if entry[0] < level), (level, heading[2].strip())]
        lines = []
    if any(part.strip() for part in lines):
        yield [title for _, title in path], "\n".join(lines)


def _pieces(body: str, limit: int) -> Iterator[str]:
    """Paragraphs; too long ones as sentences; too long ones of these in slices."""
    for paragraph in re.split(r"\n\s*\n", body):
        if not paragraph.strip():
            continue
        if _weight(paragraph) <= limit:
            yield paragraph.strip()
            continue
        for sentence in SENTENCE.split(paragraph):
            yield from _slices(sentence.strip(), limit)


def _slices(sentence: str, limit: int) -> Iterator[str]:
    if _weight(sentence) <= limit:
        if sentence:
            yield sentence
        return
    for start in range(0, len(sentence), limit // 2):
        yield sentence[start : start + limit // 2]


def _pack(pieces: Iterator[str], limit: int) -> Iterator[str]:
    """Join neighbours while they fit."""
    packed: list[str] = []
    weight = 0
    for piece in pieces:
        added = _weight(piece) + 1
        if packed and weight + added > limit + 1:
            yield "\n".join(packed)
            packed, weight = [], 0
        packed.append(piece)
        weight += added
    if packed:
        yield "\n".join(packed)


def _head(text: str, limit: int) -> str:
    """The beginning of a text, as long as the limit allows."""
    begin = text[:limit]
    while _weight(begin) > limit:
        begin = begin[: -max(1, (_weight(begin) - limit) // 2)]
    return begin


def _weight(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if character >= "\u3000" else 1 for character in text)
