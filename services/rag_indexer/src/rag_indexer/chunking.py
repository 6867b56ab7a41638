"""Cuts documents into chunks that can be read on their own.

A chunk names the headings it stands under. What is too long is cut between paragraphs; then at line ends, with list
items whole and a table's header repeated; then between sentences; then at blanks; and only a word that is longer than
a chunk is cut itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise

from chassis.errors import TooLarge
from rag_indexer.markdown import ITEM, Block, Heading, Section, items, sections

# The end of a sentence: Chinese and Japanese marks need no blank after them.
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
PAUSE = re.compile(r"\s+|(?<=[、，；：])")

LONGEST_TOKEN = 16
"""Characters: a text that has more of them for each token allowed is cut without being counted."""

Count = Callable[[str], int]


@dataclass(frozen=True)
class Chunk:
    """A piece of a document. `text` begins with the headings it stands under."""

    text: str


@dataclass(frozen=True)
class Unit:
    """What is not cut any further.

    Attributes:
        text: of it.
        glue: what stands before it, unless it begins a chunk.
        weight: tokens of the text.
        header: of the table it is a row of; stands above the first one in each chunk.
        prose: whether an overlap may take a part of it.
    """

    text: str
    glue: str
    weight: int
    header: str = ""
    prose: bool = False


def chunks(text: str, *, limit: int, most: int, overlap: int = 0, count: Count = len) -> list[Chunk]:
    """Cut a document, in time that grows with its length.

    Args:
        text: Markdown or plain text.
        limit: most tokens of a chunk, headings included.
        most: chunks of a document.
        overlap: tokens of a chunk's end that the next one of the same section begins with, at most; in whole
            sentences where they fit, in whole rows and lines of tables and code.
        count: tokens of a text.

    Returns:
        Chunks in the document's order; none for a document without text.

    Raises:
        TooLarge: there would be more.
    """
    found = list(islice(Cutter(limit, overlap, count).cut(text), most + 1))
    if len(found) > most:
        raise TooLarge(f"The document has more than {most} chunks; split it into smaller files.")
    return found


def slices(text: str, room: int, count: Count = len) -> list[str]:
    """A text in pieces of at most `room` tokens, cut at blanks and pauses, in a word only if it is longer."""
    return [piece for _, piece, _ in Cutter(room, 0, count).slices(text, room)]


class Cutter:
    """Cuts documents to one size.

    Args:
        limit: most tokens of a chunk.
        overlap: of neighbours in a section.
        count: tokens of a text.
    """

    def __init__(self, limit: int, overlap: int, count: Count) -> None:
        self._limit = limit
        self._overlap = overlap
        self._count = count
        letter = count("a")
        self._glue = {glue: max(0, count(f"a{glue}a") - 2 * letter) for glue in ("\n\n", "\n", " ", "")}

    def cut(self, text: str) -> Iterator[Chunk]:
        """The chunks in the document's order."""
        for section, following in pairwise(chain(sections(text), [Section([])])):
            if not section.blocks and following.path[: len(section.path)] == section.path:
                continue  # its headings stand above what follows
            title, whole = self._title(section.path)
            unseen = [
                heading.text for heading in section.path if heading.text and not heading.shown and heading not in whole
            ]
            for heading in section.path:
                heading.shown = True
            blocks = [Block("prose", unseen), *section.blocks] if unseen else section.blocks
            bodies = self._pack(blocks, title)
            yield from (Chunk(f"{title}\n{body}" if title else body) for body in bodies)
            if title and not blocks:
                yield Chunk(title)

    def _title(self, path: list[Heading]) -> tuple[str, list[Heading]]:
        """The headings, each cut, and without the outermost where all are too long; and those that are whole in it."""
        most = self._limit // 2
        parts = [(heading, self._head(heading.text, most // 2)) for heading in path if heading.text]
        while parts and self._weigh(" > ".join(part for _, part in parts)) > most:
            parts = parts[1:]
        return " > ".join(part for _, part in parts), [one for one, part in parts if part == one.text]

    def _pack(self, blocks: list[Block], title: str) -> Iterator[str]:
        """Join neighbours while they fit."""
        room = self._limit - (self._weigh(title) + self._glue["\n"] if title else 0)
        overlap = min(self._overlap, room // 2)
        packed: list[Unit] = []
        weight = 0
        for block in blocks:
            for unit in self._units(block, room, room - overlap):
                added = self._added(packed, unit)
                if packed and weight + added > room:
                    yield _joined(packed)
                    packed = self._tail(packed, min(overlap, room - self._added([], unit)))
                    weight = self._weight(packed)
                    added = self._added(packed, unit)
                    if weight + added > room:
                        packed, weight, added = [], 0, self._added([], unit)
                packed.append(unit)
                weight += added
        if packed:
            yield _joined(packed)

    def _units(self, block: Block, room: int, prose_room: int) -> Iterator[Unit]:
        """The block whole, or its rows, its items and lines, their sentences, and slices of these."""
        glue = "\n\n" if block.apart else "\n"
        prose = block.kind == "prose"
        text = "\n".join(block.lines).rstrip()
        weight = self._weigh(text, prose_room if prose else room)
        if weight <= (prose_room if prose else room):
            yield Unit(text, glue, weight, prose=prose)
            return
        header, lines = "", block.lines
        if block.kind == "table":
            head = "\n".join(lines[:2])
            if self._weigh(head, room // 2) <= room // 2:
                header, lines = head, lines[2:]
                room -= self._weigh(head) + self._glue["\n"]
        for part in items(lines) if prose else lines:
            loose = prose and not ITEM.match(part)  # neither an item, nor a row or line of code
            for unit in self._parts(part.rstrip(), prose_room if loose else room, loose):
                yield replace(unit, glue=unit.glue if unit.glue != "\n" else glue, header=header)
                glue = "\n"
            if not part.strip():
                glue = "\n\n"

    def _parts(self, text: str, room: int, loose: bool) -> Iterator[Unit]:
        """A line or list item, whole if it fits; otherwise its lines, sentences, and slices."""
        weight = self._weigh(text, room)
        if not text:
            return
        if weight <= room:
            yield Unit(text, "\n", weight, prose=loose)
        elif "\n" in text:
            for line in text.split("\n"):
                yield from self._parts(line.rstrip(), room, loose)
        else:
            glue = "\n"
            for before, sentence in _split(text, SENTENCE):
                glue = glue or before
                for blank, piece, part in self.slices(sentence, room):
                    yield Unit(piece, glue or blank, part, prose=True)
                    glue = ""

    def slices(self, text: str, room: int) -> Iterator[tuple[str, str, int]]:
        """Pieces that fit, cut at blanks and pauses, and in a word only if it is too long, with the blank before."""
        weight = self._weigh(text, room)
        if weight <= room:
            yield "", text, weight
            return
        start, blank = 0, ""
        while start < len(text):
            end = self._end(text, start, room)
            piece = text[start:end]
            yield blank, piece, self._weigh(piece)
            start = end
            blank = ""
            while start < len(text) and text[start].isspace():
                start, blank = start + 1, " "

    def _end(self, text: str, start: int, room: int) -> int:
        """Where the longest piece that fits ends."""
        end = start + self._longest(lambda size: text[start : start + size], len(text) - start, room)
        if end == len(text) or text[end].isspace():
            return end
        pauses = [pause.start() for pause in PAUSE.finditer(text, start + 1, end)]
        if pauses:
            return pauses[-1]
        word = PAUSE.search(text, end, min(len(text), start + room * LONGEST_TOKEN))
        if word and self._weigh(text[start : word.start()], room) <= room:
            return word.start()
        while end > start + 1 and _joins(text[end]):
            end -= 1
        return end

    def _longest(self, piece: Callable[[int], str], most: int, room: int) -> int:
        """About how many characters have `room` tokens, found by their own density; one at least.

        Args:
            piece: the text's so many first, or last, characters.
            most: characters there are.
            room: tokens.
        """
        most = min(most, room * LONGEST_TOKEN)
        take = max(1, min(most, room * 2))
        while (tokens := self._count(piece(take))) > room and take > 1:
            take = max(1, min(take * room // tokens, take * 9 // 10))
        for _ in range(4):
            if take >= most or tokens * 10 >= room * 9:
                break
            longer = min(most, max(take + 1, take * room // max(1, tokens)))
            counted = self._count(piece(longer))
            if counted <= room:
                take, tokens = longer, counted
            else:
                most = (take + longer) // 2
        return take

    def _tail(self, packed: list[Unit], most: int) -> list[Unit]:
        """The end of a chunk that the next one begins with."""
        taken: list[Unit] = []
        for unit in reversed(packed if most > 0 else []):
            longer = [unit, *taken]
            if (weight := self._weight(longer)) > most:
                left = most - (weight - unit.weight)
                if unit.prose and left > most // 2 and (text := self._ending(unit.text, left)):
                    taken = [replace(unit, text=text, weight=self._weigh(text)), *taken]
                break
            taken = longer
        return taken

    def _ending(self, text: str, room: int) -> str:
        """The end of a text, as long as the room allows, that begins with a sentence or at least with a word."""
        take = self._longest(lambda size: text[-size:], len(text), room)
        start = len(text) - take
        for ends in (SENTENCE, PAUSE):
            end = ends.search(text, start)
            if end and len(text) - end.end() >= take // 2:
                return text[end.end() :]
        while start < len(text) and _joins(text[start]):
            start += 1
        return text[start:]

    def _added(self, packed: list[Unit], unit: Unit) -> int:
        """What a unit adds to a chunk that holds others."""
        added = unit.weight + (self._glue[unit.glue] if packed else 0)
        if unit.header and (not packed or packed[-1].header is not unit.header):
            added += self._weigh(unit.header) + self._glue["\n"]
        return added

    def _weight(self, packed: list[Unit]) -> int:
        return sum(self._added(packed[:index][-1:], unit) for index, unit in enumerate(packed))

    def _weigh(self, text: str, room: int | None = None) -> int:
        """Tokens of a text; of one that is too long for `room` by its characters, more than that."""
        if room is not None and len(text) > room * LONGEST_TOKEN:
            return room + 1
        return self._count(text)

    def _head(self, text: str, limit: int) -> str:
        """The beginning of a text, as long as the limit allows."""
        if self._weigh(text, limit) <= limit:
            return text
        return text[: self._longest(lambda size: text[:size], len(text), limit)].rstrip()


def _joined(units: list[Unit]) -> str:
    parts: list[str] = []
    header = ""
    for unit in units:
        above = f"{unit.header}\n" if unit.header and unit.header is not header else ""
        parts += [unit.glue if parts else "", above, unit.text]
        header = unit.header
    return "".join(parts)


def _split(text: str, ends: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Parts of a text, each with what stood before it."""
    start, before = 0, ""
    for end in ends.finditer(text):
        if text[start : end.start()].strip():
            yield before, text[start : end.start()]
            before = " " if end[0] else ""
        start = end.end()
    if text[start:].strip():
        yield before, text[start:]


def _joins(character: str) -> bool:
    """Whether a character belongs to the one before it: accents, variation selectors, joiners."""
    return unicodedata.combining(character) > 0 or character in "\u200d\ufe0e\ufe0f"
