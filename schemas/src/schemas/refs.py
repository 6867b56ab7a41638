"""Value types that events share. All of them are bounded, so that an event is small whatever a person wrote."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

T = TypeVar("T")


def _cut(value: T, most: int) -> T | str:
    """The beginning of a text that only people read; halves of surrogate pairs are escaped."""
    if not isinstance(value, str):
        return value
    text = value[: most + 1].encode(errors="backslashreplace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


Id = Annotated[str, Field(max_length=256)]
"""An id, a slug or an address: what programs compare. A longer one is refused."""

Label = Annotated[str, BeforeValidator(partial(_cut, most=300)), Field(max_length=300)]
"""A name that people gave: cut where it is longer."""

Sentence = Annotated[str, BeforeValidator(partial(_cut, most=2000)), Field(max_length=2000)]
"""What people are told: cut where it is longer."""

Parameter = Annotated[str, Field(max_length=48)]
"""Name of a metric, a hyperparameter or a system that was compared."""

Purpose = Literal["fine-tune", "user_data", "assistants", "evals", "batch", "vision"]
"""What a file was uploaded for, in the `openai` SDK's words."""

Task = Literal["classification", "generation"]
"""Kind of the answers in a dataset."""


class ObjectRef(BaseModel):
    """Where bytes lie in the object store, and what they must be."""

    model_config = ConfigDict(frozen=True)

    bucket: str = Field(max_length=63, description="Bucket name.")
    key: str = Field(max_length=400, description="Object key.")
    sha256: str = Field(max_length=64, description="SHA-256 of the bytes, in hex.")
    size: int = Field(ge=0, description="Size in bytes.")


FEWEST_TRAINING_ROWS = 10
"""Of all splits: with fewer there is nothing to learn from and to test on. A validation file needs one."""


class RowCounts(BaseModel):
    """Rows in each split of a dataset version."""

    model_config = ConfigDict(frozen=True)

    train: int = Field(ge=0, description="Rows trained on.")
    validation: int = Field(ge=0, description="Rows for validation loss and early stop.")
    heldout: int = Field(ge=0, description="Rows never trained on, for the evaluation.")

    @property
    def total(self) -> int:
        """Rows in all splits."""
        return self.train + self.validation + self.heldout


class Interval(BaseModel):
    """An estimate from `n` rows with its 95 % confidence interval."""

    model_config = ConfigDict(frozen=True)

    value: float = Field(description="The estimate.")
    low: float = Field(description="Lower end of the 95 % interval.")
    high: float = Field(description="Upper end of the 95 % interval.")
    n: int = Field(ge=0, description="Rows it was computed on.")


class Usage(BaseModel):
    """What the answers of one system took in a test, together."""

    model_config = ConfigDict(frozen=True)

    answers: int = Field(ge=0, description="How many there were; a refused question has none.")
    prompt_tokens: int = Field(ge=0, description="Tokens read.")
    completion_tokens: int = Field(ge=0, description="Tokens written.")
    seconds_median: float = Field(ge=0, description="Median time of an answer, as the test waited for it.")
    seconds_p95: float = Field(ge=0, description="The time that 95 % of them were within.")
    cost: float | None = Field(ge=0, description="At the base model's price; none where it has none.")

    @property
    def read(self) -> float:
        """Tokens read for an answer, in the mean."""
        return self.prompt_tokens / max(self.answers, 1)

    @property
    def written(self) -> float:
        """Tokens written of an answer, in the mean."""
        return self.completion_tokens / max(self.answers, 1)

    @property
    def cost_of_thousand(self) -> float | None:
        """What 1,000 answers cost; None where there is no price."""
        return None if self.cost is None else 1000 * self.cost / max(self.answers, 1)
