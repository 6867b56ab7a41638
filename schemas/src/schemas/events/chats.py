"""Answers that were given: counts and lineage, no content."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.artifacts.arm import ArmKind
from schemas.envelope import Event
from schemas.refs import Id


class ChatCompleted(Event):
    """An answer was given; counts and lineage, no content."""

    type, topic, key = "chat.completed.v1", "chats", "chat_id"

    chat_id: Id = Field(description="Id of the completion.")
    model: Id = Field(description="The model asked for.")
    adapter_id: Id | None = Field(None, description="The adapter that answered; absent for a base model.")
    handed_over: ArmKind | None = Field(
        None, description="The arm that was asked first and was too unsure; absent where none handed over."
    )
    key_id: Id = Field(description="The API key used.")
    prompt_tokens: int = Field(ge=0, description="Tokens in.")
    completion_tokens: int = Field(ge=0, description="Tokens out.")
    latency_ms: int = Field(ge=0, description="Time to the last token.")
    finish_reason: Id = Field(description="stop, length or content_filter; cancelled where the client left.")
    retrieved: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=100, description="Ids of the files retrieval used."
    )
    cost: float | None = Field(
        None, ge=0, description="What its tokens cost at the base model's price; absent where it has none."
    )
