"""A fine-tuning job: its states and the only functions that change it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from chassis.errors import Conflict, WriteRefused
from eventbus import Aggregate
from schemas import (
    DatasetPrepared,
    DatasetRef,
    FinetuneAdapterDeleted,
    FinetuneArmFitted,
    FinetuneCancelled,
    FinetuneFailed,
    FinetuneRequested,
    FinetuneStarted,
    FinetuneSucceeded,
    FinetuneTrained,
    ModelWaiting,
)
from trainer.domain.arm import ArmOfJob, FittedArm
from trainer.domain.parts import Adapter, Checkpoint, Failure, GateWait, Text
from trainer.domain.states import CLAIMABLE, ENDED, State, Trigger


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
    method: str = "supervised"
    requested: dict[str, JsonValue] = Field(default_factory=dict)
    trigger: Trigger = "request"
    state: State = "waiting_for_dataset"
    paused_from: State | None = None
    since: int | None = None
    gate: GateWait = Field(default_factory=GateWait)
    dataset: DatasetPrepared | None = None
    validation: DatasetPrepared | None = None
    text: Text | None = None
    hyperparameters: dict[str, int | float | str] = Field(default_factory=dict)
    swept: bool = False
    checkpoint: Checkpoint | None = None
    earlier_checkpoint: Checkpoint | None = None
    adapter: Adapter | None = None
    adapter_files: Literal["kept", "unwanted", "deleted"] = "kept"
    arm: ArmOfJob = Field(default_factory=ArmOfJob)
    setback: Failure | None = None
    trained_tokens: int | None = None
    estimated_finish: int | None = None
    finished_at: int | None = None
    fine_tuned_model: str | None = None
    error: Failure | None = None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDED

    @property
    def answers_by(self) -> str | None:
        """How its model answers: by its adapter, or by its arm of which kind; None while it does not."""
        if self.fine_tuned_model is None:
            return None
        by_arm = self.arm.kind if self.arm.state == "serving" else None
        adapter_answers = self.state == "succeeded" and self.setback is None
        return "adapter" if adapter_answers and not (by_arm and self.arm.pinned) else by_arm

    @property
    def has_data(self) -> bool:
        """Whether what it learns from is known."""
        return self.dataset is not None or self.text is not None

    @property
    def learns_from(self) -> DatasetRef:
        """Its rows, or its text."""
        known = self.dataset or self.text
        assert known is not None
        return known.dataset

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that are kept, the newest first: it goes on from the second if the first cannot be used."""
        return [one for one in (self.checkpoint, self.earlier_checkpoint) if one is not None]

    def request(self) -> None:
        """Say that it was asked for."""
        self.since = self.created_at
        self.record(
            FinetuneRequested(
                tenant_id=self.tenant_id,
                job_id=self.id,
                base_model=self.base_model,
                training_file=self.training_file,
                validation_file=self.validation_file,
                trigger=self.trigger,
                method=self.method,
            )
        )

    def enqueue(
        self,
        dataset: DatasetPrepared,
        validation: DatasetPrepared | None,
        hyperparameters: dict[str, int | float | str],
        at: int,
    ) -> None:
        """Its rows are there: it may be trained."""
        if self._awaits_data():
            self.dataset, self.validation, self.hyperparameters = dataset, validation, hyperparameters
            self._queue(at)

    def enqueue_text(self, text: Text, hyperparameters: dict[str, int | float | str], at: int) -> None:
        """Its text is there: it may be trained."""
        if self._awaits_data():
            self.text, self.hyperparameters = text, hyperparameters
            self._queue(at)

    def _awaits_data(self) -> bool:
        waiting = self.state == "waiting_for_dataset" or self.paused_from == "waiting_for_dataset"
        return waiting and not self.has_data

    def _queue(self, at: int) -> None:
        if self.state == "paused":
            self.paused_from = "queued"
        else:
            self._enter("queued", at)

    def start(self, at: int) -> None:
        """A worker begins an attempt."""
        self._expect("queued", "running")
        self._enter("running", at)
        self.record(
            FinetuneStarted(tenant_id=self.tenant_id, job_id=self.id, fence=self.lease.fence, method=self.method)
        )

    def record_checkpoint(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is stored and verified: go on from there if this attempt dies.

        Raises:
            Conflict: the job does not wait for a checkpoint any more.
        """
        self._expect("running", "paused", "queued")
        if checkpoint != self.checkpoint:
            self.checkpoint, self.earlier_checkpoint = checkpoint, self.checkpoint

    def drop_checkpoint(self) -> None:
        """Its checkpoint cannot be used: the next attempt goes on from the one before, or starts over."""
        self.checkpoint, self.earlier_checkpoint = self.earlier_checkpoint, None

    def forget_checkpoints(self) -> None:
        """Nobody trains it any more and its checkpoints are deleted."""
        self.checkpoint, self.earlier_checkpoint, self.swept = None, None, True

    def expect_end(self, at: int) -> None:
        """About when training will be over (unix seconds)."""
        self.estimated_finish = at

    def finish_training(self, adapter: Adapter, at: int) -> None:
        """The adapter is stored: hand it over to be tested; also where it gave its place when it was about done."""
        self._expect(*CLAIMABLE)
        self._enter("evaluating", at)
        self.adapter, self.trained_tokens = adapter, adapter.trained_tokens
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
                adapter_bytes=adapter.bytes,
                dataset=self.learns_from,
                training_file=self.training_file,
                trained_tokens=adapter.trained_tokens,
                train_seconds=adapter.train_seconds,
                metrics=adapter.metrics,
                hyperparameters=self.hyperparameters,
                seed=self.seed,
                method=self.method,
            )
        )

    def wait(self, waiting: ModelWaiting, at: int) -> None:
        """The registry says what its model waits for; what was said before that, or comes too late, changes nothing."""
        if self.ended:
            return
        if waiting.arm is not None:
            self.arm.wait(waiting, at)
        elif self.state == "evaluating" and self.gate.hears(waiting):
            if waiting.waiting_for != self.gate.waiting_for:
                self.since = at
            self.gate = GateWait.of(waiting)

    def expect_arm(self) -> None:
        """It is queued with rows: a quick way to answer is fitted to them beside training."""
        if self.dataset is not None and not self.ended:
            self.arm.expect()

    def take_arm(self, fitted: FittedArm) -> None:
        """An arm is stored: hand it over to be tested, unless it is too late; `arm.made` tells which the job has."""
        if self.ended or self.arm.state != "to_fit":
            return
        self.arm.take(fitted)
        self.record(
            FinetuneArmFitted(
                tenant_id=self.tenant_id,
                job_id=self.id,
                owner=self.owner,
                base_model=self.base_model,
                suffix=self.suffix,
                dataset=self.learns_from,
                training_file=self.training_file,
                **fitted.facts,
                seed=self.seed,
            )
        )

    def give_up_arm(self, at: int) -> None:
        """None is fitted: the job goes on as it would without; one that waited for nothing else ends."""
        if self.arm.state == "to_fit":
            self.arm.end()
            self._settle(at)

    def answer_by_arm(self, name: str, at: int) -> None:
        """Its arm was let through: the model answers, whatever becomes of the training."""
        if self.arm.state != "fitted":
            return
        self.arm.serve()
        if not self.ended:
            self.fine_tuned_model = name
            self._settle(at)

    def lose_arm(self, at: int) -> None:
        """Its arm was refused, or taken back: its files are to be removed, and only the adapter may answer."""
        self.arm.end()
        if not self.ended:
            self.fine_tuned_model = None
            self._settle(at)

    def succeed(self, model_id: str, at: int) -> None:
        """Its model answers by its adapter."""
        if self.ended:
            return
        self.arm.stop_fitting()
        self._succeed(model_id, at)

    def _succeed(self, model_id: str, at: int) -> None:
        self.state, self.fine_tuned_model, self.finished_at = "succeeded", model_id, at
        self.record(FinetuneSucceeded(tenant_id=self.tenant_id, job_id=self.id, model_id=model_id, method=self.method))

    def fail(self, failure: Failure, at: int) -> None:
        """It is over without a model."""
        if self.ended:
            return
        self.state, self.error, self.finished_at = "failed", failure, at
        self._leave_nothing()
        event = FinetuneFailed(tenant_id=self.tenant_id, job_id=self.id, code=failure.code, message=failure.message)
        self.record(event)

    def come_to_nothing(self, failure: Failure, at: int) -> None:
        """Its training is given up, or its adapter refused: it is over, once its arm is decided.

        It succeeds where the arm answers, and fails where there is none.
        """
        if self.ended or self.setback is not None:
            return
        self.setback = failure
        self.discard_adapter()
        self._enter("awaiting_arm", at)
        self._settle(at)

    def _settle(self, at: int) -> None:
        """Its arm is decided: where the training came to nothing, nothing else is waited for."""
        if self.state != "awaiting_arm" or self.arm.undecided or self.setback is None:
            return
        if self.arm.state == "serving" and self.fine_tuned_model is not None:
            self._succeed(self.fine_tuned_model, at)
        else:
            self.fail(self.setback, at)

    def _leave_nothing(self) -> None:
        self.fine_tuned_model = None
        self.discard_adapter()
        self.arm.end()

    def discard_adapter(self) -> None:
        """Its model will not be served any more: the adapter's files are to be removed."""
        if self.adapter is not None and self.adapter_files == "kept":
            self.adapter_files = "unwanted"

    def leave_adapter(self, adapter: Adapter) -> None:
        """An attempt stored an adapter after the job was over: its files are to be removed."""
        if (self.ended or self.state == "awaiting_arm") and self.adapter is None:
            self.adapter, self.adapter_files = adapter, "unwanted"

    def lose_adapter(self) -> None:
        """The adapter's files are gone; which adapter it was stays known."""
        if self.adapter is not None and self.adapter_files == "unwanted":
            self.adapter_files = "deleted"
            self.record(
                FinetuneAdapterDeleted(tenant_id=self.tenant_id, job_id=self.id, adapter_id=self.adapter.adapter_id)
            )

    def rests_on(self, data_id: str) -> bool:
        """Whether it has yet to be trained, or to end its training, on a dataset version or on the text of a file."""
        used = [one.dataset.dataset_id for one in (self.dataset, self.validation, self.text) if one is not None]
        return self.state in ("queued", "paused", "running") and data_id in used

    def lose_data(self, data_id: str, failure: Failure, at: int) -> None:
        """A dataset version or text is deleted: the training of a job that rests on it comes to nothing."""
        if self.rests_on(data_id):
            self.arm.stop_fitting()
            self.come_to_nothing(failure, at)

    def give_place(self, at: int) -> None:
        """Others wait: its run ends at a checkpoint, and it goes on from there in its turn."""
        if self.state == "running":
            self._enter("queued", at)

    def fail_training(self, failure: Failure, at: int) -> None:
        """Its training is given up; one whose adapter is stored has not failed."""
        if self.state != "evaluating":
            self.come_to_nothing(failure, at)

    def may_be_given_up(self, fence: int) -> bool:
        """Whether `fail_training`, under that claim, would end its training."""
        return self.lease.fence == fence and self.state not in ("evaluating", "awaiting_arm", *ENDED)

    def may_be_handed_over(self, fence: int) -> bool:
        """Whether `train`, under that claim, would hand it over."""
        return self.lease.fence == fence and self.state in CLAIMABLE

    def cancel(self, at: int) -> None:
        """Its owner ends it; ending it again changes nothing.

        Raises:
            Conflict: it has succeeded or failed already.
        """
        if self.state == "cancelled":
            return
        self._not_ended("cancelled")
        self.state, self.finished_at = "cancelled", at
        self._leave_nothing()
        self.record(FinetuneCancelled(tenant_id=self.tenant_id, job_id=self.id))

    def pause(self, at: int) -> None:
        """Its owner halts it; the training stops at its next checkpoint.

        Raises:
            Conflict: it is over, or being tested already.
        """
        self._not_ended("paused")
        if self.state in ("evaluating", "awaiting_arm"):
            raise Conflict(f"Job '{self.id}' is not trained any more; its model is being tested. It cannot be paused.")
        if self.state != "paused":
            self.paused_from = "waiting_for_dataset" if self.state == "waiting_for_dataset" else "queued"
            self._enter("paused", at)

    def resume(self, at: int) -> None:
        """Its owner lets it go on.

        Raises:
            Conflict: it is over.
        """
        self._not_ended("resumed")
        if self.state == "paused":
            self._enter(self.paused_from or "queued", at)
            self.paused_from = None

    def _enter(self, state: State, at: int) -> None:
        if state != self.state:
            self.state, self.since = state, at

    def _not_ended(self, verb: str) -> None:
        if self.ended:
            raise Conflict(f"Job '{self.id}' has {self.state} and cannot be {verb}.", code="job_ended")

    def _expect(self, *states: State) -> None:
        if self.state not in states:
            raise WriteRefused(f"Job '{self.id}' is {self.state}.", code="wrong_state")
