"""Dataset versions: rows that can be trained and tested on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from schemas.datasets import CarriesDataset, flat
from schemas.envelope import Event
from schemas.refs import Id, ObjectRef, Purpose, RowCounts, Sentence


class DatasetPrepared(CarriesDataset, Event):
    """A dataset version is complete: parsed, cleaned, split, with a manifest and a card."""

    type, topic, key = "dataset.prepared.v1", "datasets", "dataset_id"
    required_parts = ("dataset_id", "manifest", "validation")

    file_id: Id | None = Field(None, description="The file it was made from.")
    project_id: Id | None = Field(None, description="The labeling project it was published from.")
    purpose: Purpose = Field(description="Purpose of the file.")
    rows: RowCounts = Field(description="Rows in each split.")
    labels: int = Field(0, ge=0, description="Distinct answers, for a classification task.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")

    dataset_id: ClassVar[object] = flat("dataset_id", Id, "Id of this dataset version: `dataset.dataset_id`.")
    manifest: ClassVar[object] = flat("manifest", ObjectRef, "Its manifest: `dataset.manifest`.")
    validation: ClassVar[object] = flat("validation", ObjectRef, "Validation rows: `dataset.validation`.")


class DatasetRejected(Event):
    """A file could not become a dataset; the reason is for its owner to act on."""

    type, topic, key = "dataset.rejected.v1", "datasets", "file_id"

    file_id: Id = Field(description="The file.")
    purpose: Purpose = Field(description="Purpose of the file.")
    code: Id = Field(description="Stable slug of the reason.")
    message: Sentence = Field(description="What is wrong, where, and what to do.")
    line: int | None = Field(None, ge=1, description="First line at fault, from 1.")


class DatasetDeleted(Event):
    """A dataset version is given up: its file is deleted, and no job or model rests on it."""

    type, topic, key = "dataset.deleted.v1", "datasets", "dataset_id"

    dataset_id: Id = Field(description="The dataset version.")
    file_id: Id | None = Field(None, description="The file it was made from.")
    heldout: ObjectRef = Field(description="Where its held-out rows lay; evaluations know it by them.")
