"""Model versions and the gate they pass: their states and the only functions that change them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from chassis.errors import WriteRefused
from chassis.ids import derived_id
from eventbus import Aggregate
from schemas import (
    CarriesDataset,
    EvaluationCompleted,
    FinetuneTrained,
    Interval,
    ModelDeleted,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    ModelWaiting,
    ObjectRef,
)
from schemas.datasets import flat

State = Literal["candidate", "awaiting_approval", "production", "retired", "rejected"]
Verdict = Literal["pass", "fail", "needs_human"]
GatePolicy = Literal["auto", "approval", "advisory"]
Outcome = Literal["promote", "reject", "retire", "wait"]

LOADED: tuple[State, ...] = ("candidate", "awaiting_approval", "production")
"""States in which a replica holds the model's adapter."""

KEPT_LOAD_FAILURES = 10

Awaited = Literal["evaluation", "approval", "replica"]

# What may not stand in the suffix of a model's name: ':' separates its parts, '/' would split the path of its address.
NOT_IN_SUFFIX = re.compile(r"[^\w.-]+")


class Part(BaseModel):
    """A value inside an aggregate."""

    model_config = ConfigDict(frozen=True)


class Lineage(CarriesDataset, Part):
    """What a model was made from, and how."""

    base_digest: str
    training_file: str
    trained_tokens: int
    train_seconds: float
    metrics: dict[str, float]
    hyperparameters: dict[str, float | int | str]
    seed: int
    method: str = "supervised"

    dataset_id: ClassVar[object] = flat("dataset_id", str, "Models are found by it.")
    dataset_manifest: ClassVar[object] = flat("manifest", ObjectRef, "Read by the release before.")


class Evaluation(Part):
    """What the evaluator found."""

    evaluation_id: str
    verdict: Verdict
    reason: str
    metric: str
    scores: dict[str, Interval]
    measured: dict[str, Interval] = Field(default_factory=dict)
    evidence: ObjectRef
    earlier_verdicts: int = 0


class Decision(Part):
    """One decision about a model: what, by whom, when (Unix seconds), why."""

    outcome: Outcome
    by: str
    at: int
    note: str = ""


class Replica(Part):
    """A replica that proved it holds the model's adapter, since `at` (Unix seconds)."""

    replica_id: str
    replica_url: str
    fingerprint_delta: float
    base_delta: float
    at: int


class LoadFailure(Part):
    """A replica that could not take the model's adapter, since `at` (Unix seconds)."""

    replica_id: str
    replica_url: str
    reason: str
    permanent: bool
    at: int

    @property
    def sentence(self) -> str:
        """What happened, for the model's owner."""
        then = "It will not be tried there again" if self.permanent else "It is tried again"
        return f"Replica {self.replica_id} could not load the adapter: {self.reason.rstrip(' .')}. {then}."


def model_name(base_model: str, organization: str, suffix: str, job_id: str) -> str:
    """The name of a job's model: `ft:{base}:{organization}:{suffix}:{8 hex digits that follow from the job}`.

    Characters of the suffix that have a meaning in names or addresses become `-`; it is cut at 64 characters.
    """
    short = derived_id("", job_id)[:8]
    return f"ft:{base_model}:{organization}:{NOT_IN_SUFFIX.sub('-', suffix)[:64]}:{short}"


class Model(Aggregate):
    """One model version: a base model with the adapter of one job, on its way through the gate.

    `candidate -> (awaiting_approval) -> production -> retired`, or `rejected` before production. A promotion that was
    decided waits in `promotion` until a replica holds the adapter.
    """

    created_at: int
    owner: str = ""
    organization: str
    state: State = "candidate"
    job_id: str
    base_model: str
    adapter_id: str
    adapter_manifest: ObjectRef
    lineage: Lineage
    evaluation: Evaluation | None = None
    promotion: Decision | None = None
    decisions: list[Decision] = Field(default_factory=list)
    replicas: list[Replica] = Field(default_factory=list)
    load_failures: list[LoadFailure] = Field(default_factory=list)
    waits: int = 0
    waiting_since: int | None = None
    promoted_at: int | None = None
    ended_at: int | None = None
    deleted_at: int | None = None

    _proven: frozenset[str] = PrivateAttr(frozenset())

    @classmethod
    def register(cls, trained: FinetuneTrained, organization: str, at: int) -> Model:
        """The candidate that follows from a trained adapter.

        Args:
            trained: the event that says so.
            organization: slug of the tenant, a part of the name.
            at: now, in Unix seconds.
        """
        facts = trained.model_dump()
        model = cls(
            id=model_name(trained.base_model, organization, trained.suffix, trained.job_id),
            tenant_id=trained.tenant_id,
            created_at=at,
            owner=trained.owner,
            organization=organization,
            job_id=trained.job_id,
            base_model=trained.base_model,
            adapter_id=trained.adapter_id,
            adapter_manifest=trained.adapter_manifest,
            lineage=Lineage(**{name: facts[name] for name in Lineage.model_fields}),
            waiting_since=at,
        )
        model.record(
            ModelRegistered(
                tenant_id=model.tenant_id,
                model_id=model.id,
                job_id=model.job_id,
                base_model=model.base_model,
                adapter_id=model.adapter_id,
                adapter_manifest=model.adapter_manifest,
                dataset=trained.dataset,
                owner=model.owner,
                method=trained.method,
                metrics=trained.metrics,
            )
        )
        return model

    @property
    def waiting_for(self) -> Awaited | None:
        """What must happen next before the model can be in production; None when nothing will."""
        if self.state not in ("candidate", "awaiting_approval"):
            return None
        if self.promotion is not None:
            return "replica"
        return "evaluation" if self.state == "candidate" else "approval"

    def is_held_by(self, replica_id: str) -> bool:
        """Whether a replica said last that it holds the adapter."""
        return any(one.replica_id == replica_id for one in self.replicas)

    def judge(self, completed: EvaluationCompleted, gate: GatePolicy, at: int) -> None:
        """Take the evaluation and let the gate decide by the tenant's policy.

        `auto` follows the verdict and asks a person where it is `needs_human`; `approval` asks a person whatever the
        verdict; `advisory` promotes whatever the verdict. An evaluation of a decided model changes nothing.
        """
        if self.state != "candidate" or self.evaluation is not None:
            return
        facts = completed.model_dump()
        self.evaluation = Evaluation(**{name: facts[name] for name in Evaluation.model_fields})
        if gate == "advisory" or (gate == "auto" and completed.verdict == "pass"):
            self._decide_promotion(Decision(outcome="promote", by="gate", at=at, note=completed.reason))
        elif gate == "auto" and completed.verdict == "fail":
            self._reject(Decision(outcome="reject", by="gate", at=at, note=completed.reason), completed.reason)
        else:
            self.state = "awaiting_approval"
            self._keep(Decision(outcome="wait", by="gate", at=at, note=completed.reason))
            self.waiting_since = at
            self._say_waiting(completed.reason)

    def approve(self, by: str, note: str, at: int) -> None:
        """A person lets the model through.

        Raises:
            WriteRefused: the model does not wait for a person.
        """
        if self.waiting_for != "approval":
            raise self._unexpected("approved", "Only a model that waits for approval can be.")
        self._decide_promotion(Decision(outcome="promote", by=by, at=at, note=note))

    def reject(self, by: str, note: str, at: int) -> None:
        """A person stops the model before it reaches production.

        Raises:
            WriteRefused: it is in production already, or at its end.
        """
        if self.state not in ("candidate", "awaiting_approval"):
            raise self._unexpected("rejected", "Retire a model in production with DELETE /v1/models/{model}.")
        said = note.strip(" .")
        why = f"Refused by a person: {said}." if said else "Refused by a person, who gave no reason."
        self._reject(Decision(outcome="reject", by=by, at=at, note=note), why)

    def retire(self, by: str, note: str, at: int) -> None:
        """Take the model out of use for good; nothing happens to one at its end already."""
        if self.state not in LOADED:
            return
        self.state = "retired"
        self.promotion = None
        self.waiting_since = None
        self.ended_at = at
        self._keep(Decision(outcome="retire", by=by, at=at, note=note))
        self.record(ModelRetired(tenant_id=self.tenant_id, model_id=self.id, adapter_id=self.adapter_id))

    def delete(self, by: str, at: int) -> None:
        """Its owner takes it back: it is out of use for good, and what was made for it alone is wanted no more.

        Nothing happens to one that was deleted before.
        """
        if self.deleted_at is not None:
            return
        note = "Deleted by its owner."
        if self.state in ("candidate", "awaiting_approval"):
            self._reject(Decision(outcome="reject", by=by, at=at, note=note), note, code="model_deleted")
        else:
            self.retire(by, note, at)
        self.deleted_at = at
        self.record(
            ModelDeleted(tenant_id=self.tenant_id, model_id=self.id, job_id=self.job_id, adapter_id=self.adapter_id)
        )

    def lose_rows(self, at: int) -> None:
        """The rows it was made from are deleted: one that is not tested on them yet never can be."""
        if self.waiting_for == "evaluation":
            note = "Its file was deleted before it was tested on the file's rows."
            self._reject(Decision(outcome="reject", by="gate", at=at, note=note), note, code="file_deleted")

    def hold(self, replica: Replica, at: int) -> None:
        """A replica holds the adapter: the promotion that waited for one goes through.

        It takes the place of one with its id, or its address: a replica that was killed comes back under a new id.
        """
        others = [
            one
            for one in self.replicas
            if one.replica_id != replica.replica_id and one.replica_url != replica.replica_url
        ]
        self.replicas = [*others, replica]
        failed = self.load_failures
        self.load_failures = [
            one for one in failed if one.replica_id != replica.replica_id and one.replica_url != replica.replica_url
        ]
        self._promote_if_held(at)
        if len(self.load_failures) < len(failed) and self.waiting_for in ("evaluation", "replica"):
            self._say_waiting(self.load_failures[-1].sentence if self.load_failures else "")

    def note_load_failure(self, failure: LoadFailure) -> None:
        """A replica could not take the adapter: who waits for the model is told, once for each reason.

        One that holds it, by what was heard since, has not failed.
        """
        if self.is_held_by(failure.replica_id):
            return
        if any(failure == one.model_copy(update={"at": failure.at}) for one in self.load_failures):
            return
        others = [one for one in self.load_failures if one.replica_id != failure.replica_id]
        self.load_failures = [*others, failure][-KEPT_LOAD_FAILURES:]
        if self.waiting_for in ("evaluation", "replica"):
            self._say_waiting(failure.sentence)

    def drop(self, replica_id: str) -> None:
        """A replica no longer holds the adapter."""
        self.replicas = [one for one in self.replicas if one.replica_id != replica_id]

    def trust(self, proven: Iterable[str]) -> None:
        """Promote it on the word of these replicas alone: they live, and proved the base model it stands on."""
        self._proven = frozenset(proven)

    def look_again(self, at: int) -> None:
        """A replica that holds it lives and proved its base: the promotion that waited for one goes through."""
        self._promote_if_held(at)

    def _decide_promotion(self, decision: Decision) -> None:
        self.promotion = decision
        self._keep(decision)
        self._promote_if_held(decision.at)
        if self.waiting_for == "replica":
            self.waiting_since = decision.at
            self._say_waiting(self.load_failures[-1].sentence if self.load_failures else "")

    def _promote_if_held(self, at: int) -> None:
        held = any(one.replica_id in self._proven for one in self.replicas)
        if self.promotion is None or not held or self.state == "production":
            return
        self.state = "production"
        self.promoted_at = at
        self.waiting_since = None
        self.record(
            ModelPromoted(
                tenant_id=self.tenant_id,
                model_id=self.id,
                job_id=self.job_id,
                base_model=self.base_model,
                adapter_id=self.adapter_id,
                decided_by=self.promotion.by,
            )
        )

    def _reject(self, decision: Decision, reason: str, code: str = "gate_rejected") -> None:
        self.state = "rejected"
        self.promotion = None
        self.waiting_since = None
        self.ended_at = decision.at
        self._keep(decision)
        self.record(
            ModelRejected(
                tenant_id=self.tenant_id,
                model_id=self.id,
                job_id=self.job_id,
                adapter_id=self.adapter_id,
                reason=reason,
                evaluation_id=self.evaluation.evaluation_id if self.evaluation else None,
                code=code,
            )
        )

    def _say_waiting(self, reason: str) -> None:
        waiting_for = self.waiting_for
        assert waiting_for is not None
        self.waits += 1
        self.record(
            ModelWaiting(
                tenant_id=self.tenant_id,
                model_id=self.id,
                job_id=self.job_id,
                waiting_for=waiting_for,
                revision=self.waits,
                reason=reason,
                evaluation_id=self.evaluation.evaluation_id if self.evaluation else None,
            )
        )

    def _keep(self, decision: Decision) -> None:
        self.decisions = [*self.decisions, decision]

    def _unexpected(self, verb: str, advice: str) -> WriteRefused:
        waits = f" and waits for {self.waiting_for}" if self.waiting_for else ""
        return WriteRefused(
            f"Model {self.id} cannot be {verb}: it is {self.state}{waits}. {advice}", code="wrong_state"
        )
