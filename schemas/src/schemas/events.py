"""Every event of Sartor, grouped by aggregate. Payloads carry ids and object references, never content."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Event
from schemas.refs import Id, Interval, Label, ObjectRef, Parameter, RowCounts, Sentence

Purpose = Literal["fine-tune", "user_data", "assistants", "evals", "batch", "vision"]


# accounts: tenants; their keys are in `schemas.keys`


class TenantPolicy(BaseModel):
    """What a tenant lets happen by itself."""

    model_config = ConfigDict(frozen=True)

    tune_on_upload: bool = Field(True, description="Fine-tune by itself when a `user_data` dataset is ready.")
    gate: Literal["auto", "approval", "advisory"] = Field(
        "auto",
        description="auto: promote on a pass; approval: wait for a person; advisory: promote whatever the result.",
    )
    base_model: Id = Field("", description="Base model of automatic fine-tunes; the installation's default if empty.")


class TenantCreated(Event):
    """A tenant exists and may be used."""

    type, topic, key = "tenant.created.v1", "accounts", "tenant_id"

    name: Label = Field(description="Display name.")
    slug: Id = Field(description="Short name used in `ft:` model names.")
    policy: TenantPolicy = Field(description="The tenant's policy.")


class TenantPolicyChanged(Event):
    """A tenant's policy is now this one."""

    type, topic, key = "tenant.policy_changed.v1", "accounts", "tenant_id"

    policy: TenantPolicy = Field(description="The policy from now on.")
    revision: int = Field(0, description="Rises with every change of the tenant's policy; an older one is not taken.")


# uploaded files


class FileUploaded(Event):
    """The bytes of an upload are stored and hashed; nothing in them has been read yet."""

    type, topic, key = "file.uploaded.v1", "files", "file_id"

    file_id: Id = Field(description="Id of the file.")
    purpose: Purpose = Field(description="What it was uploaded for.")
    filename: Label = Field(description="The name it was given: a label, never a path.")
    object: ObjectRef = Field(description="The bytes as uploaded.")


# datasets: rows that can be trained and tested on


class DatasetPrepared(Event):
    """A dataset version is complete: parsed, cleaned, split, with a manifest and a card."""

    type, topic, key = "dataset.prepared.v1", "datasets", "dataset_id"

    dataset_id: Id = Field(description="Id of this dataset version.")
    file_id: Id | None = Field(None, description="The file it was made from.")
    project_id: Id | None = Field(None, description="The labeling project it was published from.")
    purpose: Purpose = Field(description="Purpose of the file.")
    task: Literal["classification", "generation"] = Field(description="Kind of answers in it.")
    rows: RowCounts = Field(description="Rows in each split.")
    labels: int = Field(0, ge=0, description="Distinct answers, for a classification task.")
    manifest: ObjectRef = Field(description="Manifest naming every part with its digest.")
    train: ObjectRef = Field(description="Training rows, chat JSONL.")
    validation: ObjectRef = Field(description="Validation rows, chat JSONL.")
    heldout: ObjectRef = Field(description="Held-out rows, chat JSONL.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")


class DatasetRejected(Event):
    """A file could not become a dataset; the reason is for its owner to act on."""

    type, topic, key = "dataset.rejected.v1", "datasets", "file_id"

    file_id: Id = Field(description="The file.")
    purpose: Purpose = Field(description="Purpose of the file.")
    code: Id = Field(description="Stable slug of the reason.")
    message: Sentence = Field(description="What is wrong, where, and what to do.")
    line: int | None = Field(None, ge=1, description="First line at fault, from 1.")


# documents: knowledge to retrieve from


class DocumentParsed(Event):
    """A text document is ready to be chunked and indexed."""

    type, topic, key = "document.parsed.v1", "documents", "file_id"

    file_id: Id = Field(description="The file it came from.")
    filename: Label = Field(description="The name it was uploaded under.")
    title: Label = Field(description="First heading, or the file's name.")
    purpose: Purpose = Field(description="Purpose of the file.")
    text: ObjectRef = Field(description="The document as UTF-8 text or Markdown.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")


class DocumentIndexed(Event):
    """A document's chunks can be searched in a vector store."""

    type, topic, key = "document.indexed.v1", "indexes", "file_id"

    file_id: Id = Field(description="The file.")
    vector_store_id: Id = Field(description="The store it was added to.")
    chunks: int = Field(ge=0, description="Chunks indexed.")


# labels


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


# finetunes: training jobs


class FinetuneRequested(Event):
    """A fine-tune was asked for, by a person or by the tenant's policy."""

    type, topic, key = "finetune.requested.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")
    base_model: Id = Field(description="Base model id.")
    training_file: Id = Field(description="File trained on.")
    validation_file: Id | None = Field(None, description="File validated with, if one was given.")
    trigger: Literal["request", "upload", "labels", "feedback", "drift"] = Field(description="What asked for it.")


class FinetuneStarted(Event):
    """A worker began an attempt at a job."""

    type, topic, key = "finetune.started.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")
    fence: int = Field(ge=1, description="Number of the attempt.")


class FinetuneTrained(Event):
    """Training is over and the adapter lies verified in the object store; it has not been tested yet."""

    type, topic, key = "finetune.trained.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")
    base_model: Id = Field(description="Base model id.")
    base_digest: Id = Field(description="Digest of the base model's files.")
    suffix: Id = Field("", description="The suffix asked for, used in the model's name.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    adapter_manifest: ObjectRef = Field(description="Manifest of the adapter's files; they lie beside it.")
    adapter_bytes: int = Field(0, ge=0, description="Size of the adapter's files and manifest; 0 where it is not said.")
    dataset_id: Id = Field(description="Dataset version trained on.")
    dataset_manifest: ObjectRef = Field(description="Manifest of the dataset version.")
    heldout: ObjectRef = Field(description="Held-out rows to evaluate on, chat JSONL.")
    train: ObjectRef = Field(description="Training rows, from which few-shot examples are drawn.")
    task: Literal["classification", "generation"] = Field(description="Kind of answers.")
    training_file: Id = Field(description="File trained on.")
    trained_tokens: int = Field(ge=0, description="Tokens seen in training, all epochs.")
    train_seconds: float = Field(ge=0, description="Time spent training.")
    metrics: dict[Parameter, float] = Field(max_length=32, description="Final training metrics.")
    hyperparameters: dict[Parameter, float | int | Annotated[str, Field(max_length=64)]] = Field(
        max_length=32, description="As resolved."
    )
    seed: int = Field(description="Seed of the run.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")


class FinetuneSucceeded(Event):
    """The job is over and its model answers."""

    type, topic, key = "finetune.succeeded.v1", "finetunes", "job_id"

    job_id: Id = Field(description="Id of the job.")
    model_id: Id = Field(description="The fine-tuned model.")


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


# models: versions in the registry


class ModelRegistered(Event):
    """A candidate exists: it can be loaded and evaluated, and is not served."""

    type, topic, key = "model.registered.v1", "models", "model_id"

    model_id: Id = Field(description="The model's name, `ft:…`.")
    job_id: Id = Field(description="The job that made it.")
    base_model: Id = Field(description="Base model id.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    adapter_manifest: ObjectRef = Field(description="Manifest of the adapter's files.")
    heldout: ObjectRef = Field(description="Held-out rows, chat JSONL.")
    train: ObjectRef = Field(description="Training rows, for few-shot examples.")
    task: Literal["classification", "generation"] = Field(description="Kind of answers.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")


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


class ModelPromoted(Event):
    """The gate opened: the model is in production for its tenant."""

    type, topic, key = "model.promoted.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    job_id: Id = Field(description="The job that made it.")
    base_model: Id = Field(description="Base model id.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    decided_by: Id = Field(description="`gate`, or the id of the person.")


class ModelRejected(Event):
    """The gate stayed shut, or the model was taken back before it was in production."""

    type, topic, key = "model.rejected.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    job_id: Id = Field(description="The job that made it.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    reason: Sentence = Field(description="The evidence in a sentence.")
    evaluation_id: Id | None = Field(None, description="The evaluation it rests on.")
    code: Id = Field("gate_rejected", description="Stable slug of the reason, with which the job ends.")


class ModelRetired(Event):
    """The model is no longer served."""

    type, topic, key = "model.retired.v1", "models", "model_id"

    model_id: Id = Field(description="The model.")
    adapter_id: Id = Field(description="Content-addressed id of the adapter.")


# adapters: what is loaded where


class AdapterResident(Event):
    """A replica holds an adapter and has proved it by digest and fingerprint."""

    type, topic, key = "adapter.resident.v1", "adapters", "adapter_id"

    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    model_id: Id = Field(description="The model it serves.")
    replica_id: Id = Field(description="The replica.")
    replica_url: Id = Field(description="Where the replica's TGI API answers.")
    fingerprint_delta: float = Field(ge=0, description="Largest log-prob difference from the trainer's fingerprint.")
    base_delta: float = Field(ge=0, description="Largest log-prob difference from the base model on the same probes.")


class AdapterLoadFailed(Event):
    """A replica could not take an adapter that it should hold."""

    type, topic, key = "adapter.load_failed.v1", "adapters", "adapter_id"

    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    model_id: Id = Field(description="The model it serves.")
    replica_id: Id = Field(description="The replica.")
    replica_url: Id = Field("", description="Where the replica's TGI API answers.")
    permanent: bool = Field(description="The adapter itself is wrong here; otherwise the replica keeps trying.")
    reason: Sentence = Field(description="What went wrong, in a sentence.")


class AdapterEvicted(Event):
    """A replica no longer holds an adapter."""

    type, topic, key = "adapter.evicted.v1", "adapters", "adapter_id"

    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    replica_id: Id = Field(description="The replica.")


# evaluations


class EvaluationCompleted(Event):
    """A candidate was scored beside its base on the tenant's held-out rows."""

    type, topic, key = "evaluation.completed.v1", "evaluations", "evaluation_id"

    evaluation_id: Id = Field(description="Id of the evaluation.")
    model_id: Id = Field(description="The candidate.")
    verdict: Literal["pass", "fail", "needs_human"] = Field(description="What the evidence says.")
    reason: Sentence = Field(description="The verdict in a sentence.")
    metric: Id = Field(description="The metric it rests on.")
    scores: dict[Parameter, Interval] = Field(max_length=32, description="By system: `base`, `few_shot`, `candidate`.")
    evidence: ObjectRef = Field(description="The full report with every row's answer.")
    earlier_verdicts: int = Field(0, ge=0, description="Candidates judged before on the same held-out rows.")


# chats and feedback


class ChatCompleted(Event):
    """An answer was given; counts and lineage, no content."""

    type, topic, key = "chat.completed.v1", "chats", "chat_id"

    chat_id: Id = Field(description="Id of the completion.")
    model: Id = Field(description="The model asked for.")
    adapter_id: Id | None = Field(None, description="The adapter that answered; absent for a base model.")
    key_id: Id = Field(description="The API key used.")
    prompt_tokens: int = Field(ge=0, description="Tokens in.")
    completion_tokens: int = Field(ge=0, description="Tokens out.")
    latency_ms: int = Field(ge=0, description="Time to the last token.")
    finish_reason: Id = Field(description="stop or length; cancelled where the client left.")
    retrieved: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=100, description="Ids of the files retrieval used."
    )


class FeedbackRecorded(Event):
    """A person rated an answer."""

    type, topic, key = "feedback.recorded.v1", "feedback", "feedback_id"

    feedback_id: Id = Field(description="Id of the feedback.")
    chat_id: Id = Field(description="The completion rated.")
    model: Id = Field(description="The model that answered.")
    rating: Literal["up", "down"] = Field(description="The rating.")
    has_correction: bool = Field(False, description="Whether a better answer was given.")
    producer: Id = Field("", description="Id of the API key of a service outside that recorded it; its word alone.")
