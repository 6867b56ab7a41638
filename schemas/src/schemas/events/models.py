"""Model versions in the registry, and what the gate decided.

A version that is an arm has the name it serves under and its kind as its id, `ft:…@head`; its `adapter_id` is that of
the arm.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.artifacts.arm import ArmKind
from schemas.datasets import CarriesDataset
from schemas.envelope import Event
from schemas.refs import Id, ObjectRef, Parameter, Sentence


class ModelRegistered(CarriesDataset, Event):
    """A candidate exists: it can be loaded and evaluated, and is not served."""

    type, topic, key = "model.registered.v1", "models", "model_id"

    model_id: Id = Field(description="The model's name, `ft:…`.")
    job_id: Id = Field(description="The job that made it.")
    base_model: Id = Field(description="Base model id.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    adapter_manifest: ObjectRef = Field(description="Manifest of the adapter's files.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")
    method: Id = Field("supervised", description="How it was trained: `method.type` of its job.")
    metrics: dict[Parameter, float] = Field(
        default_factory=dict, max_length=32, description="What the run measured of it."
    )
    name: Id = Field("", description="The name it serves under; empty from an earlier release, whose ids are names.")
    arm: ArmKind | None = Field(None, description="How it answers, where the version is an arm and no adapter.")
    generates: bool = Field(False, description="Of an arm: whether the base model answers, shown the rows it finds.")


class ModelWaiting(Event):
    """What a version waits for before it can be in production, or the reason why it still does, is now this."""

    type, topic, key = "model.waiting.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    job_id: Id = Field(description="The job that made it.")
    waiting_for: Literal["evaluation", "approval", "replica"] = Field(
        description="The test on held-out rows, a person's decision, or a replica that holds the adapter."
    )
    revision: int = Field(ge=1, description="Rises with every such event of the model; an older one is not taken.")
    reason: Sentence = Field("", description="Why it waits, in a sentence, where there is more to say.")
    evaluation_id: Id | None = Field(None, description="The evaluation that a person should look at.")
    arm: ArmKind | None = Field(None, description="How it answers, where the version is an arm and no adapter.")


class ModelPromoted(Event):
    """The gate opened: the model is in production for its tenant."""

    type, topic, key = "model.promoted.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    job_id: Id = Field(description="The job that made it.")
    base_model: Id = Field(description="Base model id.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    decided_by: Id = Field(description="`gate`, or the id of the person.")
    name: Id = Field("", description="The name it serves under; empty from an earlier release, whose ids are names.")
    arm: ArmKind | None = Field(None, description="How it answers, where the version is an arm and no adapter.")


class ModelRejected(Event):
    """The gate stayed shut, or the model was taken back before it was in production."""

    type, topic, key = "model.rejected.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    job_id: Id = Field(description="The job that made it.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    reason: Sentence = Field(description="The evidence in a sentence.")
    evaluation_id: Id | None = Field(None, description="The evaluation it rests on.")
    code: Id = Field("gate_rejected", description="Stable slug of the reason, with which the job ends.")
    withdrawn: ArmKind | None = Field(
        None, description="The arm of its name that is withdrawn with it, as the base model is better."
    )
    arm: ArmKind | None = Field(None, description="How it answers, where the version is an arm and no adapter.")


class ModelPinned(Event):
    """A person chose the version by which its name answers, whatever tests say."""

    type, topic, key = "model.pinned.v1", "models", "model_id"

    model_id: Id = Field(description="The version.")
    job_id: Id = Field(description="The job that made it.")
    name: Id = Field(description="The name that answers by it.")
    decided_by: Id = Field(description="Id of the person.")
    revision: int = Field(ge=1, description="Rises with every pin of the version and every end of one.")
    arm: ArmKind | None = Field(None, description="How it answers, where the version is an arm and no adapter.")
    hand_over_below: float | None = Field(
        None, gt=0, le=1, description="An arm less sure than this leaves the answer to the next; absent: it does not."
    )


class ModelUnpinned(Event):
    """A version is no longer pinned: its name answers by another that is, or by the one that tests choose."""

    type, topic, key = "model.unpinned.v1", "models", "model_id"

    model_id: Id = Field(description="The version.")
    job_id: Id = Field(description="The job that made it.")
    name: Id = Field(description="The name that answered by it.")
    decided_by: Id = Field(description="Id of the person.")
    revision: int = Field(ge=1, description="Rises with every pin of the version and every end of one.")
    arm: ArmKind | None = Field(None, description="How it answers, where the version is an arm and no adapter.")


class ModelDownloaded(Event):
    """Somebody takes a copy of a version's files out of the installation; what they do with it nobody here knows."""

    type, topic, key = "model.downloaded.v1", "models", "model_id"

    model_id: Id = Field(description="The version.")
    job_id: Id = Field(description="The job that made it.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    downloaded_by: Id = Field(description="Id of the person, or of the key of nobody.")


class ModelRetired(Event):
    """The model is no longer served."""

    type, topic, key = "model.retired.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    job_id: Id = Field("", description="The job that made it; empty from an earlier release.")
    reason: Sentence = Field("", description="Why; empty from an earlier release.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    arm: ArmKind | None = Field(None, description="How it answers, where the version is an arm and no adapter.")


class ModelDeleted(Event):
    """A model is deleted by its owner: what was made for it alone is wanted no more."""

    type, topic, key = "model.deleted.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    job_id: Id = Field(description="The job that made it.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    arm: ArmKind | None = Field(None, description="How it answers, where the version is an arm and no adapter.")
    name: Id = Field("", description="Its name, where that is taken back with every version, also those still to come.")
