"""Ratings of answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id


class FeedbackRecorded(Event):
    """A person rated an answer."""

    type, topic, key = "feedback.recorded.v1", "feedback", "feedback_id"

    feedback_id: Id = Field(description="Id of the feedback.")
    chat_id: Id = Field(description="The completion rated.")
    model: Id = Field(description="The model that answered.")
    rating: Literal["up", "down"] = Field(description="The rating.")
    has_correction: bool = Field(False, description="Whether a better answer was given.")
    producer: Id = Field("", description="Id of the API key of a service outside that recorded it; its word alone.")


class FeedbackDeleted(Event):
    """A rating is taken back, with what was written beside it."""

    type, topic, key = "feedback.deleted.v1", "feedback", "feedback_id"

    feedback_id: Id = Field(description="Id of the feedback.")
