"""What clients ask for: the fields of OpenAI's requests, each of which changes something or is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, PlainValidator, field_validator, model_validator

from chassis.bodies import LONGEST_VALUE, AnyJson, Body, Metadata, Pairs
from chassis.errors import Invalid
from rag_indexer.domain import Chunking, Value
from schemas.http.rag_indexer import ArmAsked, Questions

MOST_INPUTS = 2_048
LONGEST_INPUT = 32_000
MOST_QUERIES = 8
LONGEST_QUERY = 1_000_000
"""Characters; what a chat sends may be long, and is searched by its beginning."""

LARGEST = 2**63 - 1
"""The largest whole number that MongoDB keeps."""


def _kept(value: JsonValue) -> Value:
    if isinstance(value, str) and len(value) <= LONGEST_VALUE:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and abs(value) <= LARGEST:
        return value
    raise ValueError(f"must be a text of at most {LONGEST_VALUE} characters, a number, true or false")


AttributesAsked = Pairs[Annotated[Value, PlainValidator(_kept)]]
FileId = Annotated[str, Field(min_length=1, max_length=200)]


class ExpiresAfter(Body):
    """When a store that nobody uses ends."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StaticSize(Body):
    """The size of chunks."""

    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0)

    @model_validator(mode="after")
    def _overlaps_by_half(self) -> Self:
        if self.chunk_overlap_tokens * 2 > self.max_chunk_size_tokens:
            raise ValueError("chunk_overlap_tokens may be at most half of max_chunk_size_tokens")
        return self


class ChunkingAsked(Body):
    """How a file is cut: as this installation does it, or to a size of its own."""

    type: Literal["auto", "static"]
    static: StaticSize | None = None

    @model_validator(mode="after")
    def _static_has_a_size(self) -> Self:
        if (self.type == "static") != (self.static is not None):
            raise ValueError("the type 'static', and no other, has a field 'static' with its size")
        return self


class StoreAsked(Body):
    """A store to be made."""

    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=1_000)
    metadata: Metadata | None = None
    file_ids: list[FileId] | None = Field(None, max_length=100)
    chunking_strategy: ChunkingAsked | None = None
    expires_after: ExpiresAfter | None = None


class StoreChange(Body):
    """What to change about a store; `expires_after: null` lets it stay for ever."""

    name: str | None = Field(None, max_length=256)
    metadata: Metadata | None = None
    expires_after: ExpiresAfter | None = None


class FileAsked(Body):
    """A file to be put into a store."""

    file_id: FileId
    attributes: AttributesAsked | None = None
    chunking_strategy: ChunkingAsked | None = None


class FileChange(Body):
    """What to change about a file of a store."""

    attributes: AttributesAsked | None


class RankingOptions(Body):
    """How results are ranked: by their similarity, without a second model."""

    ranker: Literal["none", "auto"] = "auto"
    score_threshold: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)


class SearchAsked(Body):
    """A search."""

    UNASKED: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"rewrite_query": (False,)}

    query: list[Annotated[str, Field(max_length=LONGEST_QUERY)]] = Field(min_length=1, max_length=MOST_QUERIES)
    max_num_results: int = Field(10, ge=1, le=50)
    filters: dict[str, AnyJson] | None = Field(None, max_length=8)
    ranking_options: RankingOptions | None = None

    @field_validator("query", mode="before")
    @classmethod
    def _one_or_more(cls, value: JsonValue) -> JsonValue:
        return [value] if isinstance(value, str) else value

    @field_validator("query")
    @classmethod
    def _say_something(cls, value: list[str]) -> list[str]:
        if not all(query.strip() for query in value):
            raise ValueError("is empty")
        return value


class EmbeddingsAsked(Body):
    """Texts to be embedded."""

    ADVICE: ClassVar[frozenset[str]] = frozenset({"user"})

    model: str = Field(max_length=200)
    input: Annotated[str, Field(max_length=LONGEST_QUERY)] | Annotated[list[Any], Field(max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """The texts, or each one's token ids.

        Raises:
            Invalid: there are none, or too many, or one that is neither.
        """
        if isinstance(self.input, str):
            return [self.input]
        if self.input and all(_is_id(one) for one in self.input):
            return [self.input]
        if not self.input:
            raise Invalid(f"input: from 1 to {MOST_INPUTS} texts.", param="input")
        if all(isinstance(one, str) for one in self.input):
            return self.input
        for index, ids in enumerate(self.input):
            if not isinstance(ids, list) or not 1 <= len(ids) <= MOST_INPUTS * 4 or not all(map(_is_id, ids)):
                raise Invalid(
                    f"input[{index}]: send texts only, or lists of 1 to {MOST_INPUTS * 4} token ids only.",
                    param="input",
                )
        return self.input


def _is_id(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def checked_texts(texts: list[str]) -> list[str]:
    """Texts that can be embedded.

    Raises:
        Invalid: one is empty or too long.
    """
    for index, text in enumerate(texts):
        if not text.strip() or len(text) > LONGEST_INPUT:
            raise Invalid(f"input[{index}]: must have 1 to {LONGEST_INPUT} characters.", param="input")
    return texts


def chunking(asked: ChunkingAsked | None, auto: Chunking) -> Chunking | None:
    """The sizes asked for; None where nothing is said."""
    if asked is None:
        return None
    if asked.static is None:
        return auto
    return Chunking(tokens=asked.static.max_chunk_size_tokens, overlap=asked.static.chunk_overlap_tokens)


class QuestionsAsked(Body, Questions):
    """`POST /internal/embeddings`."""


class ArmQuestions(Body, ArmAsked):
    """`POST /internal/arms/answers`."""
