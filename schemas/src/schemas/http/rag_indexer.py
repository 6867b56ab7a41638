"""What `rag_indexer` answers other services: vectors of texts, what arms say, and what a search finds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.artifacts.arm import ArmKind, EmbedderFacts
from schemas.refs import Id, ObjectRef

MOST_QUESTIONS = 64
"""Of one question to an arm, and texts of one question for vectors."""

QUESTION_CHARACTERS = 100_000
"""A longer question is cut by who asks: no embedder reads as much."""

Question = Annotated[str, Field(max_length=QUESTION_CHARACTERS)]

STALE_ARM = "stale_arm"
"""Code of the 409 to who asks an arm that was fitted on the vectors of another embedder."""

WRONG_ARM = "wrong_arm"
"""Code of the 409 to who asks an arm whose files, or what it says to its fingerprint's questions, are not its own."""


class Questions(BaseModel):
    """Body of `POST /internal/embeddings`: questions, whose vectors an arm is fitted on."""

    model_config = ConfigDict(frozen=True)

    texts: list[Question] = Field(min_length=1, max_length=MOST_QUESTIONS, description="The questions.")


class QuestionVectors(BaseModel):
    """`POST /internal/embeddings`: the vectors of questions."""

    model_config = ConfigDict(frozen=True)

    embedder: EmbedderFacts = Field(description="Who made them.")
    vectors: str = Field(
        description="Base64 of little-endian float32, (questions, dimensions), row by row; each a unit vector."
    )


class ArmAsked(BaseModel):
    """Body of `POST /internal/arms/answers`: questions to one arm."""

    model_config = ConfigDict(frozen=True)

    arm_id: Id = Field(description="Content-addressed id of the arm.")
    manifest: ObjectRef = Field(description="Manifest of its files; they lie beside it.")
    questions: list[Question] = Field(min_length=1, max_length=MOST_QUESTIONS, description="What it is asked.")
    top: int = Field(0, ge=0, le=20, description="How many of the likeliest answers come with each.")
    generates: bool = Field(
        False, description="Whether who asks knows that its answers are rows to be shown; else none are given of them."
    )
    testing: bool = Field(False, description="Whether a test asks, which never takes the places of people.")


class Likely(BaseModel):
    """An answer that an arm holds for possible."""

    model_config = ConfigDict(frozen=True)

    answer: str = Field(description="The answer.")
    confidence: float = Field(ge=0, le=1, description="How likely it is to be right.")


class ArmAnswer(BaseModel):
    """What an arm says to a question."""

    model_config = ConfigDict(frozen=True)

    answer: str = Field(description="The likeliest answer.")
    confidence: float = Field(ge=0, le=1, description="How likely it is to be right.")
    top: list[Likely] = Field(default_factory=list, description="The likeliest answers, the first among them.")
    tokens: int = Field(ge=0, description="Tokens that the embedder read of the question.")
    cpu_seconds: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Processor time that it took; 0 from a release that does not measure it.",
    )


class ArmAnswers(BaseModel):
    """`POST /internal/arms/answers`: one answer to each question, in their order."""

    model_config = ConfigDict(frozen=True)

    arm_id: Id = Field(description="The arm that answered, by the bytes of its own manifest.")
    kind: ArmKind = Field(description="How it answers.")
    embedder: EmbedderFacts = Field(description="What the questions were embedded by.")
    answers: list[ArmAnswer] = Field(description="The answers.")


class Text(BaseModel):
    """A piece of a document."""

    model_config = ConfigDict(frozen=True)

    type: Literal["text"] = "text"
    text: str = Field(description="Its text.")


class SearchResult(BaseModel):
    """A chunk that was found."""

    model_config = ConfigDict(frozen=True)

    file_id: str = Field(description="The file that it is of.")
    filename: str = Field(description="That file's name.")
    score: float = Field(description="How well it fits, from 0 to 1.")
    attributes: dict[str, str | bool | int | float] = Field(description="What whoever added the file noted about it.")
    content: list[Text] = Field(description="What it says.")


class SearchResults(BaseModel):
    """`POST /v1/vector_stores/{}/search`: what was found, as its only page."""

    model_config = ConfigDict(frozen=True)

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str] = Field(description="What was searched for.")
    data: list[SearchResult] = Field(description="Chunks, the best first.")
    has_more: Literal[False] = False
    next_page: None = None
