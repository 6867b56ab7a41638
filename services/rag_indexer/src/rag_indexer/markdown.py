"""Reads Markdown, or plain text, as headings and the blocks that stand under them; every line is in one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
# https://spec.commonmark.org/0.31.2/#fenced-code-blocks: what stands after backticks has no backtick in it.
FENCE = re.compile(r"([ \t]*)(`{3,}(?=[^`]*$)|~{3,})")
# https://github.github.com/gfm/#tables-extension-: a row of dashes, with a bar somewhere.
RULE = re.compile(r"[ \t]*(?=[^|]*\|)\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
ITEM = re.compile(r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+(?=\S)|(?:[・•◦‣]|[(（]\d{1,9}[)）])[ \t]*(?=\S))")
BLANKS = re.compile(r"[ \t]*")

Kind = Literal["prose", "code", "table"]


@dataclass(eq=False)
class Heading:
    """A heading; `shown` is the reader's mark that some chunk has it whole."""

    level: int
    text: str
    shown: bool = False


@dataclass
class Block:
    """Neighbouring lines that belong together.

    Attributes:
        kind: a table begins with its two header lines; a list is prose with items.
        lines: as they stand in the document.
        apart: whether a blank line stands before it.
    """

    kind: Kind
    lines: list[str]
    apart: bool = True


@dataclass
class Section:
    """The headings that lead to a place, outermost first, and the blocks there."""

    path: list[Heading]
    blocks: list[Block] = field(default_factory=list)


def sections(text: str) -> Iterator[Section]:
    """The sections in the document's order, those without a block too."""
    section = Section([])
    open_fence = ""
    base = 0  # the column where the text of the list item begins that a line may stand in
    apart = True
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        blocks = section.blocks
        if open_fence:
            blocks[-1].lines.append(line)
            open_fence = "" if _closes(line, open_fence) else open_fence
        elif not (first := line.lstrip()[:1]):
            apart = True
        elif first == "#" and (heading := HEADING.fullmatch(line)):
            if section.path or blocks:
                yield section
            level = len(heading[1])
            outer = [one for one in section.path if one.level < level]
            section, apart, base = Section([*outer, Heading(level, _title(heading[2]))]), True, 0
        else:
            item = ITEM.match(line)
            base = _columns(item[0]) if item else base and _kept(line, base)
            fence = FENCE.match(line, item.end()) if item else first in "`~" and FENCE.match(line)
            if fence and _columns(fence[1]) < base + 4:
                blocks.append(Block("code", [line], apart))
                open_fence, apart = fence[2], False
            elif not apart and blocks and blocks[-1].kind != "code":
                _continue(blocks, line)
            else:
                blocks.append(Block("prose", [line], apart))
                apart = False
    if section.path or section.blocks:
        yield section


def items(lines: list[str]) -> Iterator[str]:
    """The lines of prose, those of a list item joined: its first one, and what follows until the next item."""
    item: list[str] = []
    for line in lines:
        if ITEM.match(line):
            if item:
                yield "\n".join(item)
            item = [line]
        elif item:
            item.append(line)
        else:
            yield line
    if item:
        yield "\n".join(item)


def _continue(blocks: list[Block], line: str) -> None:
    """Add a line to the last block, which becomes a table where the line is the rule under its header."""
    last = blocks[-1]
    if last.kind == "prose" and "|" in last.lines[-1] and RULE.fullmatch(line):
        table = Block("table", [last.lines.pop(), line], last.apart and not last.lines)
        if last.lines:
            blocks.append(table)
        else:
            blocks[-1] = table
    else:
        last.lines.append(line)


def _closes(line: str, fence: str) -> bool:
    marks = line.strip()
    return len(marks) >= len(fence) and not marks.strip(fence[0])


def _title(text: str) -> str:
    """A heading's text, without the marks that close it."""
    text = text.strip()
    open_ = text.rstrip("#")
    return open_.rstrip() if not open_ or open_[-1].isspace() else text


def _kept(line: str, base: int) -> int:
    """The list item's column while the line still stands in it, by its indent."""
    indent = BLANKS.match(line)
    return base if indent and _columns(indent[0]) >= min(base, 2) else 0


def _columns(text: str) -> int:
    return len(text.expandtabs(4))
