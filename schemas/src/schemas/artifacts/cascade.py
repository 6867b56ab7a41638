"""What an arm and the adapter of its name would do together: the adapter answers what the arm is unsure of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from schemas.artifacts.arm import ArmKind
from schemas.refs import Interval, Usage


class CascadeStep(BaseModel):
    """What they would have done by one bound, on the held-out rows of the adapter's test."""

    model_config = ConfigDict(frozen=True)

    below: float = Field(gt=0, le=1, description="The arm leaves to the adapter what it is less sure of.")
    handed_over: float = Field(ge=0, le=1, description="Share of the rows that it leaves.")
    score: Interval = Field(description="By the metric that decides about the adapter.")
    over_adapter: Interval = Field(description="The same, less that of the adapter alone.")
    took: Usage = Field(
        description="What the answers take: of a row that is left the time and cost of both, and the tokens of the "
        "adapter; of another what the arm takes, whose tokens are those that its embedder read."
    )


class Cascade(BaseModel):
    """An arm first, then the adapter of its name (Chen et al., FrugalGPT, arXiv 2305.05176)."""

    model_config = ConfigDict(frozen=True)

    arm: ArmKind = Field(description="Who is asked first.")
    steps: list[CascadeStep] = Field(min_length=1, max_length=16, description="By growing bounds.")
    advised: float | None = Field(
        None,
        description="The least bound from which on both together do as well as the adapter alone, for less; none where "
        "there is none, or where the adapter comes into no use.",
    )

    @property
    def advised_step(self) -> CascadeStep | None:
        """The step of the bound that is advised."""
        return next((one for one in self.steps if one.below == self.advised), None)
