"""The folder of a dataset version: a file of rows for each split, a card for people and, written last, the manifest."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from schemas.refs import Id, ObjectRef, RowCounts, Task

CARD = "card.md"

Split = Literal["train", "validation", "heldout"]
"""What rows are for: to be learned, to choose the epoch, or to be asked and never learned."""

SPLITS: tuple[Split, ...] = get_args(Split)


def rows_file(split: Split) -> str:
    """Name of the file that holds the rows of a split."""
    return f"{split}.jsonl"


class DatasetFacts(BaseModel):
    """What is in a dataset version, and what its cleaning did."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["dataset"] = Field("dataset", description="What the upload turned out to be.")
    format: str = Field(description="Format that the upload was recognised as.")
    task: Task = Field(description="Kind of answers in it.")
    labels: int = Field(ge=0, description="Distinct answers of a classification; 0 otherwise.")
    system: str = Field("", description="System message that every row begins with; empty where they differ.")
    duplicates: int = Field(ge=0, description="Rows left out because an equal one stood before.")
    teach_nothing: int = Field(0, ge=0, description="Rows left out because every answer in them has the weight 0.")
    rows: RowCounts = Field(description="Rows in each split.")
    note: str | None = Field(None, description="What the owner of the upload should know of how it was read.")


class DatasetSource(BaseModel):
    """What a dataset version was made from."""

    model_config = ConfigDict(frozen=True)

    file_id: Id = Field(description="The upload.")
    project_id: Id | None = Field(None, description="The labeling project whose answers it holds.")
    sha256: str = Field(max_length=64, description="SHA-256 of the upload, in hex.")


class SplitShares(BaseModel):
    """Shares of the rows that are not for training, about."""

    model_config = ConfigDict(frozen=True)

    validation: float = Field(ge=0, le=1, description="For validation.")
    heldout: float = Field(ge=0, le=1, description="Held out.")


class DatasetParts(BaseModel):
    """The other files of the folder."""

    model_config = ConfigDict(frozen=True)

    train: ObjectRef = Field(description="Rows to learn, a chat row a line.")
    validation: ObjectRef = Field(description="Rows to validate on, likewise.")
    heldout: ObjectRef = Field(description="Held-out rows, likewise.")
    card: ObjectRef = Field(description="The card, as Markdown.")


class DatasetManifest(BaseModel):
    """The contents of a dataset version's `manifest.json`."""

    model_config = ConfigDict(frozen=True)

    dataset_id: Id = Field(description="Id of the dataset version.")
    source: DatasetSource = Field(description="What it was made from.")
    created_at: int = Field(description="When the upload came (Unix seconds).")
    seed: str = Field(description="Of the order in which rows were dealt to the splits.")
    shares: SplitShares = Field(description="Shares that were asked for.")
    result: DatasetFacts = Field(description="What is in it.")
    parts: DatasetParts = Field(description="Its files.")
