"""What the tokens of a base model cost."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

TOKENS_PRICED = 1_000_000
"""A price is that of so many tokens, as providers' lists have it."""


class Price(BaseModel):
    """Prices of a million tokens, in the currency of the installation."""

    model_config = ConfigDict(frozen=True)

    input: float = Field(ge=0, allow_inf_nan=False, description="Of a million tokens read.")
    output: float = Field(ge=0, allow_inf_nan=False, description="Of a million tokens written.")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What an answer costs."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / TOKENS_PRICED
