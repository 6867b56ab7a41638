"""Rows that need answers from people, and the answers they gave."""

from __future__ import annotations

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id, Label, ObjectRef


class LabelingRequested(Event):
    """A dataset has rows without answers; people should give them."""

    type, topic, key = "labeling.requested.v1", "labeling", "file_id"

    file_id: Id = Field(description="The file.")
    filename: Label = Field("", description="Its name, to be shown to people.")
    rows: int = Field(ge=1, description="Rows without an answer.")
    records: ObjectRef = Field(description='JSONL of {"text": …}.')


class LabelsPublished(Event):
    """A labeling project's answers are ready to become a dataset version."""

    type, topic, key = "labels.published.v1", "labels", "project_id"

    project_id: Id = Field(description="The labeling project.")
    publication: int = Field(ge=1, description="Counts the project's publications.")
    file_id: Id | None = Field(None, description="The file the project was made from.")
    name: Label = Field("", description="The project's name, to be shown to people.")
    rows: int = Field(ge=1, description="Labelled rows.")
    records: ObjectRef = Field(description="Chat JSONL of the labelled rows.")


class LabelsDeleted(Event):
    """A labeling project is deleted with its tasks and answers, and what it published is wanted no more."""

    type, topic, key = "labels.deleted.v1", "labels", "project_id"

    project_id: Id = Field(description="The labeling project.")
    file_id: Id | None = Field(None, description="The file the project was made from.")
