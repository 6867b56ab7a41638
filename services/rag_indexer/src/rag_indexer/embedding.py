"""Turns texts into vectors; two embedders, chosen by the model's name."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from chassis.errors import Invalid
from rag_indexer.chunking import slices
from rag_indexer.e5 import E5
from rag_indexer.fair_executor import FairExecutor, Lane
from schemas.artifacts import EmbedderFacts

T = TypeVar("T")
Vectors = NDArray[np.float32]

BUILT_IN = E5.name
CHARACTERS_A_TURN = 1_000
"""Embedded before somebody else's turn: well under a second of one core, and as fast as in larger batches."""

SHORTEST = 20
"""Characters that a text of none costs: the model adds tokens of its own."""

COUNTED_A_TURN = 64_000
SURELY_SHORT = 200
"""Characters that every model reads in one piece, whatever they are."""

LONGEST_TOKEN = 16
"""Characters; a question is first cut to what could fit."""


class Embedder(Protocol):
    """A model that embeds questions and passages into the same space, as unit vectors."""

    dimensions: int
    longest: int  # tokens of a text; more are not read in one piece

    def passages(self, texts: list[str]) -> Vectors:
        """Vectors of passages, shape (texts, dimensions)."""

    def queries(self, texts: list[str]) -> Vectors:
        """Vectors of questions, shape (texts, dimensions)."""

    def facts(self) -> EmbedderFacts:
        """What another embedder must say of itself to be taken for this one."""

    def tokens(self, text: str) -> int:
        """How many tokens the model reads for a text, with those that it adds itself."""

    def count(self, text: str) -> int:
        """How many tokens a text has itself; may be called in any thread."""


class SentenceTransformers:
    """Any model of the sentence-transformers library."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._name = model
        self._model = SentenceTransformer(model)
        self.dimensions = int(self._model.get_sentence_embedding_dimension())
        self.longest = int(self._model.max_seq_length)
        self._counter = deepcopy(self._model.tokenizer)  # the model sets its own to cut, while others count
        self._lock = Lock()

    def passages(self, texts: list[str]) -> Vectors:
        """Vectors of passages."""
        return np.asarray(self._model.encode(texts, normalize_embeddings=True), dtype=np.float32)

    def queries(self, texts: list[str]) -> Vectors:
        """Vectors of questions."""
        return self.passages(texts)

    def facts(self) -> EmbedderFacts:
        """Its name, its weights as they were loaded, and the length of its vectors."""
        weights = hashlib.sha256()
        for name, numbers in sorted(self._model.state_dict().items()):
            weights.update(f"{name} {tuple(numbers.shape)}\0".encode())
            weights.update(numbers.detach().float().cpu().numpy().tobytes())
        return EmbedderFacts(id=self._name, digest=_digest(weights.hexdigest()), dimensions=self.dimensions)

    def tokens(self, text: str) -> int:
        """How many tokens the model reads for a text."""
        return self._counted(text, added=True)

    def count(self, text: str) -> int:
        """How many tokens a text has itself."""
        return self._counted(text, added=False)

    def _counted(self, text: str, *, added: bool) -> int:
        with self._lock:
            return len(self._counter(text, add_special_tokens=added, truncation=False, verbose=False)["input_ids"])


COMPUTED = "1"
"""Version of how vectors follow from weights here; another where those of questions become others."""


def _digest(weights: str) -> str:
    return hashlib.sha256(f"{COMPUTED} {weights}".encode()).hexdigest()


@dataclass(frozen=True)
class Read:
    """What a question took.

    Attributes:
        tokens: that were read of it.
        cpu_seconds: processor time of its vector and of what was made of that: its share, by tokens, of its turn's.
    """

    tokens: int
    cpu_seconds: float


@dataclass(frozen=True)
class Questions:
    """Questions that are embedded in one turn, and what is made of their vectors."""

    texts: list[str]
    made: Callable[[Vectors], list[Any]]


class Embedding:
    """Runs the embedder in one thread, in turns; the model is loaded at the first use.

    Args:
        model: its name.
        threads: the model may use.
        most_tokens: of a request.
        executor: the thread.
    """

    def __init__(self, model: str, threads: int, most_tokens: int, executor: FairExecutor) -> None:
        self.model = model
        self._threads = threads
        self._most_tokens = most_tokens
        self._executor = executor
        self._embedder: Embedder | None = None
        self._facts: EmbedderFacts | None = None

    def _loaded(self) -> Embedder:
        if self._embedder is None:
            built_in = self.model == BUILT_IN
            self._embedder = E5(self._threads) if built_in else SentenceTransformers(self.model)
        return self._embedder

    async def dimensions(self) -> int:
        """Length of the vectors."""
        if self._embedder is None:
            return await self._executor.run("", lambda: self._loaded().dimensions)
        return self._embedder.dimensions

    async def facts(self) -> EmbedderFacts:
        """What an arm must have been fitted on to be asked here."""
        return await self._executor.run("", self._told) if self._facts is None else self._facts

    def _told(self) -> EmbedderFacts:
        if self._facts is None:
            self._facts = self._loaded().facts()
        return self._facts

    def count(self, text: str) -> int:
        """Tokens that a text has itself, for any thread, once the model is loaded."""
        return self._loaded().count(text)

    async def passages(self, texts: list[str], who: str, lane: Lane = "people") -> Vectors:
        """Vectors of passages, shape (texts, dimensions).

        That of a passage longer than the model reads is the mean of its pieces', each counting by its length.

        Args:
            texts: the passages.
            who: takes turns with the others who wait.
            lane: in which they wait.
        """
        parts = [[text] for text in texts]
        if any(len(text) > SURELY_SHORT for text in texts):
            parts = await self._executor.run(who, lambda: [self._parts(text) for text in texts], lane)
        found = [
            await self._executor.run(who, lambda batch=batch: self._loaded().passages(batch), lane)  # type: ignore[misc]
            for batch in _batches([part for text in parts for part in text], CHARACTERS_A_TURN)
        ]
        vectors = np.concatenate(found) if len(found) != 1 else found[0]
        return vectors if len(vectors) == len(texts) else _means(vectors, parts)

    def _parts(self, text: str) -> list[str]:
        """A text that the model reads in one piece, or the pieces of a longer one."""
        embedder = self._loaded()
        if len(text) <= SURELY_SHORT or embedder.tokens(text) <= embedder.longest:
            return [text]
        return slices(text, embedder.longest - (embedder.tokens("a") - embedder.count("a")), embedder.count)

    async def query(self, text: str, who: str) -> Vectors:
        """Vector of what is searched for, shape (dimensions,); of a long text, of as much as the model reads first."""
        vectors = await self._executor.run(who, lambda: self._loaded().queries([self._beginning(text)]))
        return np.asarray(vectors[0])

    async def queries(self, texts: list[str], who: str, lane: Lane = "people") -> Vectors:
        """Vectors of questions, shape (texts, dimensions); see `questions`."""
        found = await self.questions(texts, who, _each, lane)
        return np.stack([vector for vector, _ in found])

    async def questions(
        self, texts: list[str], who: str, made: Callable[[Vectors], list[T]], lane: Lane = "people"
    ) -> list[tuple[T, Read]]:
        """What is made of the vector of each question, with what that took.

        Args:
            texts: the questions; of a long one, as much is read as the model reads last: what was asked last is asked.
            who: takes turns with the others who wait.
            made: makes it of vectors, shape (questions, dimensions), in the turn that embeds them with whatever
                questions of others wait in that lane and have room in it.
            lane: in which they wait.
        """
        found: list[tuple[T, Read]] = []
        for batch in _batches(texts, CHARACTERS_A_TURN):
            share = _size(batch) / CHARACTERS_A_TURN
            found += await self._executor.run_together(who, self._answered, Questions(batch, made), share, lane)
        return found

    def _answered(self, asked: list[Questions]) -> list[list[tuple[Any, Read]]]:
        """What is made of the questions of each: all are embedded at once."""
        embedder = self._loaded()
        began = self._processor_time()
        read, tokens = zip(*(self._ending(text) for one in asked for text in one.texts), strict=True)
        vectors = embedder.queries([*read])
        made, at = [], 0
        for one in asked:
            made.append(one.made(vectors[at : at + len(one.texts)]))
            at += len(one.texts)
        a_token = (self._processor_time() - began) / max(1, sum(tokens))
        took = iter([Read(one, one * a_token) for one in tokens])
        return [[(one, next(took)) for one in own] for own in made]

    def _processor_time(self) -> float:
        """Seconds of the thread that embeds; of the whole process where more threads do."""
        alone = self.model == BUILT_IN and self._threads == 1
        return time.thread_time() if alone else time.process_time()

    async def tokens(self, texts: list[str], who: str) -> int:
        """Tokens of all texts together.

        Raises:
            Invalid: a text is longer than the model reads, or all together are more than a request may have.
        """
        counted: list[int] = []
        for batch in _batches(texts, COUNTED_A_TURN):
            counted += await self._executor.run(who, lambda batch=batch: self._count(batch))  # type: ignore[misc]
            self._check(counted)
        return sum(counted)

    def _count(self, texts: list[str]) -> list[int]:
        return [self._loaded().tokens(text) for text in texts]

    def _check(self, counted: list[int]) -> None:
        longest = self._loaded().longest
        too_long = next((index for index, tokens in enumerate(counted) if tokens > longest), None)
        if too_long is not None:
            message = f"input[{too_long}]: has {counted[too_long]} tokens; this model reads {longest}. Split the text."
            raise Invalid(message, code="context_length_exceeded", param="input")
        if sum(counted) > self._most_tokens:
            message = f"input: a request may have {self._most_tokens} tokens; send fewer texts at a time."
            raise Invalid(message, code="context_length_exceeded", param="input")

    def _beginning(self, text: str) -> str:
        """As much of the beginning of a text as the model reads."""
        embedder = self._loaded()
        text = text[: embedder.longest * LONGEST_TOKEN]
        while (tokens := embedder.tokens(text)) > embedder.longest:
            text = text[: len(text) * embedder.longest // tokens]
        return text

    def _ending(self, text: str) -> tuple[str, int]:
        """As much of the end of a text as the model reads, and its tokens."""
        embedder = self._loaded()
        text = text[-embedder.longest * LONGEST_TOKEN :]
        while (tokens := embedder.tokens(text)) > embedder.longest:
            text = text[len(text) - len(text) * embedder.longest // tokens :]
        return text, tokens


def _each(vectors: Vectors) -> list[Vectors]:
    return list(vectors)


def _means(vectors: Vectors, parts: list[list[str]]) -> Vectors:
    """One unit vector for the parts of each text, shape (texts, dimensions)."""
    means, at = [], 0
    for pieces in parts:
        weights = [len(piece) for piece in pieces]
        mean = np.average(vectors[at : at + len(pieces)], axis=0, weights=weights)
        means.append(mean / np.linalg.norm(mean))
        at += len(pieces)
    return np.asarray(means, dtype=np.float32)


def _batches(texts: list[str], characters: int) -> Iterator[list[str]]:
    """Neighbours of together at most so many characters, each with what it costs without any; a longer text alone."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + _size([text]) > characters:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += _size([text])
    if batch:
        yield batch


def _size(texts: list[str]) -> int:
    return sum(len(text) + SHORTEST for text in texts)
