"""Training jobs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.artifacts.arm import ArmKind, EmbedderFacts
from schemas.artifacts.data_report import LearningCurve
from schemas.datasets import CarriesDataset, flat
from schemas.envelope import Event
from schemas.refs import Id, ObjectRef, Parameter, Sentence


class FinetuneRequested(Event):
    """A fine-tune was asked for, by a person or by the tenant's policy."""

    type, topic, key = "finetune.requested.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")
    base_model: Id = Field(description="Base model id.")
    training_file: Id = Field(description="File trained on.")
    validation_file: Id | None = Field(None, description="File validated with, if one was given.")
    trigger: Literal["request", "upload", "labels", "feedback", "drift"] = Field(description="What asked for it.")
    method: Id = Field("supervised", description="How it is trained: `method.type` of the job.")


class FinetuneStarted(Event):
    """A worker began an attempt at a job."""

    type, topic, key = "finetune.started.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")
    fence: int = Field(ge=1, description="Number of the attempt.")
    method: Id = Field("supervised", description="How it is trained: `method.type` of the job.")


class FinetuneArmFitted(CarriesDataset, Event):
    """A way to answer that needs no training run is fitted and lies verified in the object store, not tested yet."""

    type, topic, key = "finetune.arm_fitted.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job; its adapter is trained meanwhile.")
    base_model: Id = Field(description="Base model id of the job, a part of the model's name.")
    suffix: Id = Field("", description="The suffix asked for, used in the model's name.")
    arm: ArmKind = Field(description="How it answers.")
    generates: bool = Field(False, description="Whether the base model answers, shown the rows that the arm finds.")
    base_digest: str = Field(
        "", max_length=256, description="Of an arm that generates, digest of the files of the base model."
    )
    arm_id: Id = Field(description="Content-addressed id of the arm.")
    arm_manifest: ObjectRef = Field(description="Manifest of the arm's files; they lie beside it.")
    embedder: EmbedderFacts = Field(description="What its questions are embedded by.")
    training_file: Id = Field(description="File it was fitted on.")
    rows: int = Field(ge=1, description="Rows it was fitted on.")
    fit_seconds: float = Field(ge=0, description="Time spent fitting, embeddings included.")
    metrics: dict[Parameter, float] = Field(
        default_factory=dict, max_length=32, description="What was measured out of fold, of this arm and others."
    )
    learning_curve: LearningCurve | None = Field(
        None, description="How often it was right by how many rows it knew; none of an earlier release."
    )
    seed: int = Field(description="Seed of the fit.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")


class FinetuneTrained(CarriesDataset, Event):
    """Training is over and the adapter lies verified in the object store; it has not been tested yet."""

    type, topic, key = "finetune.trained.v1", "finetunes", "job_id"
    required_parts = ("dataset_id", "manifest")

    job_id: Id = Field(description="Id of the job.")
    base_model: Id = Field(description="Base model id.")
    base_digest: Id = Field(description="Digest of the base model's files.")
    suffix: Id = Field("", description="The suffix asked for, used in the model's name.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    adapter_manifest: ObjectRef = Field(description="Manifest of the adapter's files; they lie beside it.")
    adapter_bytes: int = Field(0, ge=0, description="Size of the adapter's files and manifest; 0 where it is not said.")
    training_file: Id = Field(description="File trained on.")
    trained_tokens: int = Field(ge=0, description="Tokens seen in training, all epochs.")
    train_seconds: float = Field(ge=0, description="Time spent training.")
    metrics: dict[Parameter, float] = Field(max_length=32, description="Final training metrics.")
    hyperparameters: dict[Parameter, float | int | Annotated[str, Field(max_length=64)]] = Field(
        max_length=32, description="As resolved."
    )
    seed: int = Field(description="Seed of the run.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")
    method: Id = Field("supervised", description="How it is trained: `method.type` of the job.")

    dataset_id: ClassVar[object] = flat("dataset_id", Id, "Dataset version trained on: `dataset.dataset_id`.")
    dataset_manifest: ClassVar[object] = flat("manifest", ObjectRef, "Its manifest: `dataset.manifest`.")


class FinetuneSucceeded(Event):
    """The job is over and its model answers."""

    type, topic, key = "finetune.succeeded.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")
    model_id: Id = Field(description="The fine-tuned model.")
    method: Id = Field("supervised", description="How it is trained: `method.type` of the job.")


class FinetuneFailed(Event):
    """The job is over without a model."""

    type, topic, key = "finetune.failed.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")
    code: Id = Field(description="Stable slug of the reason.")
    message: Sentence = Field(description="What happened and what to do.")


class FinetuneCancelled(Event):
    """The job was ended by its owner."""

    type, topic, key = "finetune.cancelled.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")


class FinetuneAdapterDeleted(Event):
    """The files of the adapter that a job made are gone from the object store."""

    type, topic, key = "finetune.adapter_deleted.v1", "finetunes", "job_id"

    job_id: Id = Field(description="The job that made it.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
