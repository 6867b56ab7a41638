"""What is gone, said by whoever owned it once nothing of it is wanted any more."""

from __future__ import annotations

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id, ObjectRef


class FileDeleted(Event):
    """A file and its bytes are gone."""

    type, topic, key = "file.deleted.v1", "files", "file_id"

    file_id: Id = Field(description="Id of the file.")


class DatasetDeleted(Event):
    """A dataset version is given up: its file is deleted, and no job or model rests on it."""

    type, topic, key = "dataset.deleted.v1", "datasets", "dataset_id"

    dataset_id: Id = Field(description="The dataset version.")
    file_id: Id | None = Field(None, description="The file it was made from.")
    heldout: ObjectRef = Field(description="Where its held-out rows lay; evaluations know it by them.")


class LabelsDeleted(Event):
    """A labeling project is deleted with its tasks and answers, and what it published is wanted no more."""

    type, topic, key = "labels.deleted.v1", "labels", "project_id"

    project_id: Id = Field(description="The labeling project.")
    file_id: Id | None = Field(None, description="The file the project was made from.")


class ModelDeleted(Event):
    """A model is deleted by its owner: what was made for it alone is wanted no more."""

    type, topic, key = "model.deleted.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    job_id: Id = Field(description="The job that made it.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")


class FinetuneAdapterDeleted(Event):
    """The files of the adapter that a job made are gone from the object store."""

    type, topic, key = "finetune.adapter_deleted.v1", "finetunes", "job_id"

    job_id: Id = Field(description="The job that made it.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")


class EvidenceDeleted(Event):
    """The evidence of an evaluation is gone from the object store."""

    type, topic, key = "evaluation.evidence_deleted.v1", "evaluations", "evaluation_id"

    evaluation_id: Id = Field(description="The evaluation.")
    model_id: Id = Field(description="The model it was about.")


class FeedbackDeleted(Event):
    """A rating is taken back, with what was written beside it."""

    type, topic, key = "feedback.deleted.v1", "feedback", "feedback_id"

    feedback_id: Id = Field(description="Id of the feedback.")
