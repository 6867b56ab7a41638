"""Value types that events share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ObjectRef(BaseModel):
    """Where bytes lie in the object store, and what they must be."""

    model_config = ConfigDict(frozen=True)

    bucket: str = Field(description="Bucket name.")
    key: str = Field(description="Object key.")
    sha256: str = Field(description="SHA-256 of the bytes, in hex.")
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
