"""An answer that was given, and what people think of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from chassis.errors import NotFound
from chassis.text import quoted
from eventbus import Aggregate
from schemas import ChatCompleted, FeedbackDeleted, FeedbackRecorded
from schemas.artifacts import ArmKind


def not_stored(chat_id: str) -> NotFound:
    """There is no such answer whose content was kept."""
    return NotFound(f"No stored completion '{chat_id}'. Send store=true to keep one.", param="id")


def no_feedback(feedback_id: str) -> NotFound:
    """There is no such rating, or none that the caller may take back."""
    return NotFound(f"No feedback {quoted(feedback_id)} that you may take back.", param="feedback_id")


class KeptAnswer(BaseModel):
    """What was said in one choice, as far as it is stored."""

    model_config = ConfigDict(frozen=True)

    content: str
    finish_reason: str


class Chat(Aggregate):
    """One answer: counts and lineage; the content only where the caller asked to store it."""

    created_at: int
    owner: str = ""
    model: str
    adapter_id: str | None
    handed_over: ArmKind | None = None
    key_id: str
    prompt_tokens: int
    completion_tokens: int
    latency_ms: int
    finish_reason: str
    cost: float | None = None
    retrieved: list[str] = Field(default_factory=list)
    stored: bool = False
    metadata: dict[str, str] = Field(default_factory=dict)
    messages: list[dict[str, JsonValue]] = Field(default_factory=list)
    answer: KeptAnswer | None = None
    further_answers: list[KeptAnswer] = Field(default_factory=list)

    @property
    def answers(self) -> list[KeptAnswer]:
        """What was said, choice by choice."""
        return [*([self.answer] if self.answer else []), *self.further_answers]

    def announce(self) -> None:
        """Say that it was given."""
        self.record(
            ChatCompleted(
                tenant_id=self.tenant_id,
                chat_id=self.id,
                model=self.model,
                adapter_id=self.adapter_id,
                handed_over=self.handed_over,
                key_id=self.key_id,
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.completion_tokens,
                latency_ms=self.latency_ms,
                finish_reason=self.finish_reason,
                retrieved=self.retrieved,
                cost=self.cost,
            )
        )

    def forget_content(self) -> None:
        """Drop what was said; that it was said stays counted.

        Raises:
            NotFound: it is not stored.
        """
        self._must_be_stored()
        self.stored, self.messages, self.answer, self.metadata = False, [], None, {}
        self.further_answers = []

    def label(self, metadata: dict[str, str]) -> None:
        """Replace what its owner noted about it.

        Raises:
            NotFound: it is not stored.
        """
        self._must_be_stored()
        self.metadata = metadata

    def _must_be_stored(self) -> None:
        if not self.stored:
            raise not_stored(self.id)


class Feedback(Aggregate):
    """A person's rating of an answer; of one that was taken back, only that there was one."""

    created_at: int
    owner: str = ""
    chat_id: str
    model: str
    rating: Literal["up", "down"]
    correction: str | None = None
    comment: str | None = None
    deleted: bool = False

    def delete(self) -> None:
        """Drop what was written; that an answer was rated once stays.

        Raises:
            NotFound: it was taken back before.
        """
        if self.deleted:
            raise no_feedback(self.id)
        self.deleted, self.correction, self.comment = True, None, None
        self.record(FeedbackDeleted(tenant_id=self.tenant_id, feedback_id=self.id))

    def announce(self) -> None:
        """Say that it was given; the texts stay here."""
        self.record(
            FeedbackRecorded(
                tenant_id=self.tenant_id,
                feedback_id=self.id,
                chat_id=self.chat_id,
                model=self.model,
                rating=self.rating,
                has_correction=self.correction is not None,
            )
        )
