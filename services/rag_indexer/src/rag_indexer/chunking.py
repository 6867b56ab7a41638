"""Cuts Markdown and text into chunks that can be read on their own: by heading, paragraph, sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

HEADING = re.compile(r"(#{1,6})\s+(.*)")
# The end of a sentence: Japanese marks need no blank after them.
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


@dataclass(frozen=True)
class Chunk:
    """A piece of a document. `text` begins with the headings it stands under."""

    text: str


def chunks(text: str, *, limit: int) -> list[Chunk]:
    """Cut a document.

    Args:
        text: Markdown or plain text.
        limit: longest chunk in characters, each Japanese one counting double (it is about as many tokens).

    Returns:
        Chunks in the document's order; none for a document without text.
    """
    found: list[Chunk] = []
    for path, body in _sections(text):
        title = " > ".join(path)
        room = max(limit // 2, limit - _weight(title))
        found += [Chunk(f"{title}\n{piece}" if title else piece) for piece in _pack(_pieces(body, room), room)]
    return found


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
            rest = sentence.strip()
            while _weight(rest) > limit:
                cut = limit // 2
                yield rest[:cut]
                rest = rest[cut:]
            if rest:
                yield rest


def _pack(pieces: Iterator[str], limit: int) -> Iterator[str]:
    """Join neighbours while they fit."""
    packed = ""
    for piece in pieces:
        joined = f"{packed}\n{piece}" if packed else piece
        if packed and _weight(joined) > limit:
            yield packed
            packed = piece
        else:
            packed = joined
    if packed:
        yield packed


def _weight(text: str) -> int:
    return sum(2 if character >= "\u3000" else 1 for character in text)
