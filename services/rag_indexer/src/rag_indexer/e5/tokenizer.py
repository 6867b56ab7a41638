"""Cuts text into the pieces that the model knows, the likeliest way (Kudo, arXiv 1804.10959)."""

from __future__ import annotations

import re
from array import array
from functools import lru_cache
from math import inf

from rag_indexer.e5.weights import Vocabulary

BLANK = "\u2581"
"""What a piece begins with that begins a word; no piece has one further on, so each word is cut for itself."""

BLANKS = re.compile(" {2,}")
UNLIKELIER = 10.0
"""By so much than the unlikeliest piece is a character that the vocabulary lacks."""

WORDS_KEPT = 20_000
LONGEST_KEPT = 32
"""Characters of a word whose pieces are kept for the next time."""


class Tokenizer:
    """Text to ids; may be used in any thread."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = {piece: number for number, piece in enumerate(vocabulary.pieces)}
        self._scores = array("f", vocabulary.scores.tobytes())
        self._unknown = vocabulary.unknown
        del self._ids[vocabulary.pieces[self._unknown]]
        self._unknown_score = float(vocabulary.scores.min()) - UNLIKELIER
        self._replacements = {0: " ", **vocabulary.replacements}
        self._lengths = _lengths(vocabulary.pieces)
        self._known = lru_cache(WORDS_KEPT)(self._cut)

    def ids(self, text: str) -> list[int]:
        """Ids of a text, without those of its beginning and end."""
        text = BLANKS.sub(" ", text.translate(self._replacements))
        found: list[int] = []
        for word in text.removeprefix(" ").replace(" ", BLANK).split(BLANK):
            found += self._known(word) if len(word) <= LONGEST_KEPT else self._cut(word)
        return found

    def _cut(self, word: str) -> list[int]:
        """Ids of the pieces of a word whose scores have the highest sum."""
        text = BLANK + word
        ids, scores, lengths = self._ids, self._scores, self._lengths
        best = [0.0] + [-inf] * len(text)
        last = [(0, self._unknown)] * (len(text) + 1)  # where the last piece before a place begins, and its id
        for begin in range(len(text)):
            room = len(text) - begin
            unknown = best[begin] + self._unknown_score
            if unknown > best[begin + 1]:
                best[begin + 1], last[begin + 1] = unknown, (begin, self._unknown)
            for length in (1, *lengths.get(text[begin : begin + 2], ())):
                number = ids.get(text[begin : begin + length]) if length <= room else None
                if number is not None and (score := best[begin] + scores[number]) > best[begin + length]:
                    best[begin + length], last[begin + length] = score, (begin, number)
        found, place = [], len(text)
        while place:
            place, number = last[place]
            found.append(number)
        return found[::-1]


def _lengths(pieces: list[str]) -> dict[str, tuple[int, ...]]:
    """Lengths of the pieces that begin with the same two characters."""
    bits: dict[str, int] = {}
    for piece in pieces:
        if len(piece) > 1:
            bits[piece[:2]] = bits.get(piece[:2], 0) | 1 << len(piece)
    return {start: tuple(n for n in range(bit.bit_length()) if bit >> n & 1) for start, bit in bits.items()}
