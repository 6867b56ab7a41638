"""What `inference_proxy` answers the service that tests candidates."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

UNSUPPORTED = "unsupported_parameter"
"""Code of the 400 to who asks for something that the engine of the model does not have."""


class EvaluationAnswer(BaseModel):
    """`POST /internal/evaluation/answers`: the answer of a base model or a candidate, as a person would get it."""

    model_config = ConfigDict(frozen=True)

    text: str = Field(description="The answer.")
    finish_reason: str = Field(description="stop, length or content_filter.")
    prompt_tokens: int = Field(ge=0, description="Tokens in.")
    completion_tokens: int = Field(ge=0, description="Tokens out.")
    adapter_id: str | None = Field(description="The adapter that answered; none for a base model.")
    cost: float | None = Field(description="What its tokens cost at the base model's price; none where it has none.")
    confidence: float | None = Field(
        None, ge=0, le=1, description="How sure an arm that gave it is; none of a model, and of an earlier release."
    )


class TextScore(BaseModel):
    """`POST /internal/evaluation/scores`: what a text is worth to a base model or a candidate, as `echo` tells it."""

    model_config = ConfigDict(frozen=True)

    logprobs: list[float] = Field(
        description="Natural-log probability of each of its tokens in turn, but for the first, which has none."
    )
    prompt_tokens: int = Field(ge=0, description="Tokens read.")
    adapter_id: str | None = Field(description="The adapter that read it; none for a base model.")
    cost: float | None = Field(description="What its tokens cost at the base model's price; none where it has none.")


class TokenCount(BaseModel):
    """`POST /internal/evaluation/token_counts`: how long a text is to a model."""

    model_config = ConfigDict(frozen=True)

    tokens: int = Field(ge=0, description="Tokens of its base model.")
