"""What is shown of answers that were stored, and of ratings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from inference_proxy.domain import Chat, Feedback, KeptAnswer


class MessageView(BaseModel):
    """What was said."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChoiceView(BaseModel):
    """One answer of a stored completion."""

    index: int
    message: MessageView
    finish_reason: str
    logprobs: None = None

    @classmethod
    def of(cls, index: int, answer: KeptAnswer) -> ChoiceView:
        """Show one."""
        return cls(index=index, message=MessageView(content=answer.content), finish_reason=answer.finish_reason)


class UsageView(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatView(BaseModel):
    """A stored completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    metadata: dict[str, str]
    choices: list[ChoiceView]
    usage: UsageView

    @classmethod
    def of(cls, chat: Chat) -> ChatView:
        """Show one."""
        return cls(
            id=chat.id,
            created=chat.created_at,
            model=chat.model,
            metadata=chat.metadata,
            choices=[ChoiceView.of(index, answer) for index, answer in enumerate(chat.answers)],
            usage=UsageView(
                prompt_tokens=chat.prompt_tokens,
                completion_tokens=chat.completion_tokens,
                total_tokens=chat.prompt_tokens + chat.completion_tokens,
            ),
        )


class ChatDeleted(BaseModel):
    """A stored completion was deleted."""

    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    id: str
    deleted: Literal[True] = True


class FeedbackView(BaseModel):
    """A rating."""

    id: str
    object: Literal["feedback"] = "feedback"
    created_at: int
    completion_id: str
    model: str
    rating: Literal["up", "down"]

    @classmethod
    def of(cls, feedback: Feedback) -> FeedbackView:
        """Show one."""
        return cls(
            id=feedback.id,
            created_at=feedback.created_at,
            completion_id=feedback.chat_id,
            model=feedback.model,
            rating=feedback.rating,
        )


class FeedbackTakenBack(BaseModel):
    """A rating was taken back."""

    id: str
    object: Literal["feedback.deleted"] = "feedback.deleted"
    deleted: Literal[True] = True
