"""A fine-tuning job: its states and the only functions that change it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from chassis.errors import Conflict
from eventbus.aggregate import Aggregate
from schemas import (
    DatasetPrepared,
    FinetuneCancelled,
    FinetuneFailed,
    FinetuneRequested,
    FinetuneStarted,
    FinetuneSucceeded,
    FinetuneTrained,
    ObjectRef,
)

State = Literal["waiting_for_dataset", "queued", "paused", "running", "evaluating", "succeeded", "failed", "cancelled"]
Trigger = Literal["request", "upload", "labels", "feedback", "drift"]

ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")
CLAIMABLE: tuple[State, ...] = ("queued", "running")
OPEN: tuple[State, ...] = ("waiting_for_dataset", "queued", "paused", "running", "evaluating")

OPENAI_STATUS: dict[State, str] = {
    "waiting_for_dataset": "validating_files",
    "queued": "queued",
    "paused": "queued",
    "running": "running",
    "evaluating": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}


class Failure(BaseModel):
    """Why a job failed, in OpenAI's shape."""

    code: str
    message: str
    param: str | None = None


class Checkpoint(BaseModel):
    """The newest checkpoint a job can go on from."""

    step: int
    manifest: ObjectRef


class Adapter(BaseModel):
    """What a finished run made."""

    adapter_id: str
    manifest: ObjectRef
    base_digest: str
    trained_tokens: int
    train_seconds: float
    metrics: dict[str, float]


class Job(Aggregate):
    """One fine-tuning job from the request to a model that answers, or to the reason why not."""

    created_at: int
    owner: str = ""
    organization: str
    base_model: str
    training_file: str
    validation_file: str | None = None
    suffix: str = ""
    seed: int
    metadata: dict[str, str] | None = None
    requested: dict[str, Any] = Field(default_factory=dict)
    trigger: Trigger = "request"

    state: State = "waiting_for_dataset"
    paused_from: State | None = None
    dataset: DatasetPrepared | None = None
    validation: DatasetPrepared | None = None
    hyperparameters: dict[str, int | float | str] = Field(default_factory=dict)
    failures: int = 0
    unfinished: int = 0
    furthest: int = 0
    swept: bool = False
    checkpoint: Checkpoint | None = None
    adapter: Adapter | None = None
    trained_tokens: int | None = None
    estimated_finish: int | None = None
    finished_at: int | None = None
    fine_tuned_model: str | None = None
    error: Failure | None = None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDED

    def request(self) -> None:
        """Say that it was asked for."""
        self.record(
            FinetuneRequested(
                tenant_id=self.tenant_id,
                job_id=self.id,
                base_model=self.base_model,
                training_file=self.training_file,
                trigger=self.trigger,
            )
        )

    def enqueue(
        self,
        dataset: DatasetPrepared,
        validation: DatasetPrepared | None,
        hyperparameters: dict[str, int | float | str],
    ) -> None:
        """Its data is there: it may be trained."""
        waiting = self.state == "waiting_for_dataset" or self.paused_from == "waiting_for_dataset"
        if not waiting or self.dataset is not None:
            return
        self.dataset, self.validation, self.hyperparameters = dataset, validation, hyperparameters
        if self.state == "paused":
            self.paused_from = "queued"
        else:
            self.state = "queued"

    def start(self) -> None:
        """A worker begins an attempt."""
        self._expect("queued", "running")
        self.state = "running"
        self.unfinished += 1
        self.record(FinetuneStarted(tenant_id=self.tenant_id, job_id=self.id, fence=self.lease.fence))

    def reach(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is stored and verified: go on from there if this attempt dies.

        One that lies further than any before ends the count of attempts that came to nothing.

        Raises:
            Conflict: the job does not wait for a checkpoint any more.
        """
        self._expect("running", "paused", "queued")
        self.checkpoint = checkpoint
        if checkpoint.step > self.furthest:
            self.furthest, self.failures, self.unfinished = checkpoint.step, 0, 0

    def drop_checkpoint(self) -> None:
        """Its checkpoint cannot be used: the next attempt starts over."""
        self.checkpoint, self.unfinished = None, 0

    def forget_checkpoints(self) -> None:
        """It is over and its checkpoints are deleted."""
        self.checkpoint, self.swept = None, True

    def expect_end(self, at: int) -> None:
        """About when training will be over (unix seconds)."""
        self.estimated_finish = at

    def train(self, adapter: Adapter) -> None:
        """The adapter is stored: hand it over to be tested."""
        self._expect("running")
        assert self.dataset is not None
        self.state, self.adapter, self.trained_tokens = "evaluating", adapter, adapter.trained_tokens
        self.record(
            FinetuneTrained(
                tenant_id=self.tenant_id,
                job_id=self.id,
                owner=self.owner,
                base_model=self.base_model,
                base_digest=adapter.base_digest,
                suffix=self.suffix,
                adapter_id=adapter.adapter_id,
                adapter_manifest=adapter.manifest,
                dataset_id=self.dataset.dataset_id,
                dataset_manifest=self.dataset.manifest,
                heldout=self.dataset.heldout,
                train=self.dataset.train,
                task=self.dataset.task,
                training_file=self.training_file,
                trained_tokens=adapter.trained_tokens,
                train_seconds=adapter.train_seconds,
                metrics=adapter.metrics,
                hyperparameters=self.hyperparameters,
                seed=self.seed,
            )
        )

    def succeed(self, model_id: str, at: int) -> None:
        """Its model answers."""
        if self.ended:
            return
        self.state, self.fine_tuned_model, self.finished_at = "succeeded", model_id, at
        self.record(FinetuneSucceeded(tenant_id=self.tenant_id, job_id=self.id, model_id=model_id))

    def fail(self, failure: Failure, at: int) -> None:
        """It is over without a model."""
        if self.ended:
            return
        self.state, self.error, self.finished_at = "failed", failure, at
        event = FinetuneFailed(tenant_id=self.tenant_id, job_id=self.id, code=failure.code, message=failure.message)
        self.record(event)

    def count_failure(self) -> None:
        """An attempt ended without a reason that would be final; one whose adapter is there has not failed."""
        self.unfinished = 0
        if self.state == "running":
            self.failures += 1

    def end_attempt(self) -> None:
        """An attempt was stopped in good order; what `unfinished` counts are attempts whose worker died."""
        self.unfinished = 0

    def cancel(self, at: int) -> None:
        """Its owner ends it; ending it again changes nothing.

        Raises:
            Conflict: it has succeeded or failed already.
        """
        if self.state == "cancelled":
            return
        self._not_ended("cancelled")
        self.state, self.finished_at = "cancelled", at
        self.record(FinetuneCancelled(tenant_id=self.tenant_id, job_id=self.id))

    def pause(self) -> None:
        """Its owner halts it; the training stops at its next checkpoint.

        Raises:
            Conflict: it is over, or being tested already.
        """
        self._not_ended("paused")
        if self.state == "evaluating":
            raise Conflict(f"Job '{self.id}' is trained and being tested; it cannot be paused any more.")
        if self.state != "paused":
            self.paused_from = "waiting_for_dataset" if self.state == "waiting_for_dataset" else "queued"
            self.state = "paused"

    def resume(self) -> None:
        """Its owner lets it go on.

        Raises:
            Conflict: it is over.
        """
        self._not_ended("resumed")
        if self.state == "paused":
            self.state, self.paused_from = self.paused_from or "queued", None

    def _not_ended(self, verb: str) -> None:
        if self.ended:
            raise Conflict(f"Job '{self.id}' has {self.state} and cannot be {verb}.", code="job_ended")

    def _expect(self, *states: State) -> None:
        if self.state not in states:
            raise Conflict(f"Job '{self.id}' is {self.state}.", code="wrong_state")
