"""Model versions and the gate they pass: their states and the only functions that change them."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field, PrivateAttr

from chassis.errors import WriteRefused
from eventbus import Aggregate
from registry.domain.names import model_name, name_of, version_id
from registry.domain.parts import (
    KEPT_LOAD_FAILURES,
    LOADED,
    Arm,
    Awaited,
    Decision,
    Download,
    Evaluation,
    GatePolicy,
    Lineage,
    LoadFailure,
    Pin,
    Replica,
    State,
)
from schemas import (
    EvaluationCompleted,
    FinetuneArmFitted,
    FinetuneTrained,
    ModelDeleted,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    ModelWaiting,
    ObjectRef,
)
from schemas.artifacts import ArmKind


class Model(Aggregate):
    """One model version on its way through the gate: a base model with the adapter of one job, or an arm of that job.

    `candidate -> (awaiting_approval) -> production -> retired`, or `rejected` before production. A promotion that was
    decided waits in `promotion` until a replica holds the adapter. An arm is held by no replica: it waits for none,
    and `adapter_id` and `adapter_manifest` are its own.
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
    arm: Arm | None = None
    evaluation: Evaluation | None = None
    promotion: Decision | None = None
    pin: Pin = Field(default_factory=Pin)
    decisions: list[Decision] = Field(default_factory=list)
    downloads: list[Download] = Field(default_factory=list)
    replicas: list[Replica] = Field(default_factory=list)
    load_failures: list[LoadFailure] = Field(default_factory=list)
    waits: int = 0
    waiting_since: int | None = None
    promoted_at: int | None = None
    ended_at: int | None = None
    deleted_at: int | None = None
    name_deleted: bool = False

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
        model._say_registered()
        return model

    @classmethod
    def register_arm(cls, fitted: FinetuneArmFitted, organization: str, at: int) -> Model:
        """The candidate that follows from a fitted arm; see `register`."""
        name = model_name(fitted.base_model, organization, fitted.suffix, fitted.job_id)
        model = cls(
            id=version_id(name, fitted.arm),
            tenant_id=fitted.tenant_id,
            created_at=at,
            owner=fitted.owner,
            organization=organization,
            job_id=fitted.job_id,
            base_model=fitted.base_model,
            adapter_id=fitted.arm_id,
            adapter_manifest=fitted.arm_manifest,
            lineage=Lineage.of_arm(fitted),
            arm=Arm.of(fitted),
            waiting_since=at,
        )
        model._say_registered()
        return model

    @property
    def name(self) -> str:
        """The name it serves under: its id, but for an arm."""
        return name_of(self.id) if self.arm else self.id

    @property
    def arm_kind(self) -> ArmKind | None:
        """How it answers where it is an arm; None of an adapter."""
        return self.arm.kind if self.arm else None

    @property
    def generates(self) -> bool:
        """Whether it is an arm by which the base model answers: its replicas are the base's."""
        return self.arm is not None and self.arm.generates

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
        verdict; `advisory` promotes an adapter whatever the verdict, and an arm that passed: its adapter comes. Where
        an arm that serves the name does as well, it goes on serving, unless a person decides. An evaluation of a
        decided model changes nothing.

        Args:
            completed: the evaluation; its `beaten_by` and `below_base` are believed, so who calls looks whether such
                an arm serves.
            gate: the tenant's policy.
            at: now, in Unix seconds.
        """
        if self.state != "candidate" or self.evaluation is not None:
            return
        facts = completed.model_dump()
        self.evaluation = Evaluation(**{name: facts[name] for name in Evaluation.model_fields})
        why = " ".join(filter(None, (completed.reason, self.evaluation.comparison)))
        failed = gate == "auto" and completed.verdict == "fail"
        if gate == "advisory" and self.arm is not None:
            failed = completed.verdict != "pass"
        if completed.beaten_by and gate != "approval" and not failed:
            self._reject(Decision(outcome="reject", by="gate", at=at, note=why), why, code="arm_is_better")
        elif failed:
            self._reject(Decision(outcome="reject", by="gate", at=at, note=completed.reason), completed.reason)
        elif gate == "advisory" or (gate == "auto" and completed.verdict == "pass"):
            self._decide_promotion(Decision(outcome="promote", by="gate", at=at, note=completed.reason))
        else:
            self.state = "awaiting_approval"
            self._keep(Decision(outcome="wait", by="gate", at=at, note=why))
            self.waiting_since = at
            self._say_waiting(why)

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
        self.record(
            ModelRetired(
                tenant_id=self.tenant_id,
                model_id=self.id,
                job_id=self.job_id,
                reason=note,
                adapter_id=self.adapter_id,
                arm=self.arm_kind,
            )
        )

    def delete(self, by: str, at: int, name: str = "") -> None:
        """Its owner takes it back: it is out of use for good, and what was made for it alone is wanted no more.

        Nothing happens to one that was deleted before; that its name is taken back too is said once.

        Args:
            by: who does.
            at: now, in Unix seconds.
            name: its name, where that is taken back with every version of it.
        """
        if self.deleted_at is not None and (self.name_deleted or not name):
            return
        note = "Deleted by its owner."
        if self.state in ("candidate", "awaiting_approval"):
            self._reject(Decision(outcome="reject", by=by, at=at, note=note), note, code="model_deleted")
        else:
            self.retire(by, note, at)
        self.deleted_at = self.deleted_at or at
        self.name_deleted = bool(name)
        self.record(
            ModelDeleted(
                tenant_id=self.tenant_id,
                model_id=self.id,
                job_id=self.job_id,
                adapter_id=self.adapter_id,
                arm=self.arm_kind,
                name=name,
            )
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
        held = self.arm is not None or any(one.replica_id in self._proven for one in self.replicas)
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
                name=self.name,
                arm=self.arm_kind,
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
                withdrawn=self.evaluation.below_base if self.evaluation else None,
                arm=self.arm_kind,
            )
        )

    def _say_registered(self) -> None:
        self.record(
            ModelRegistered(
                tenant_id=self.tenant_id,
                model_id=self.id,
                job_id=self.job_id,
                base_model=self.base_model,
                adapter_id=self.adapter_id,
                adapter_manifest=self.adapter_manifest,
                dataset=self.lineage.dataset,
                owner=self.owner,
                method=self.lineage.method,
                metrics=self.lineage.metrics,
                name=self.name,
                arm=self.arm_kind,
                generates=self.generates,
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
                arm=self.arm_kind,
            )
        )

    def _keep(self, decision: Decision) -> None:
        self.decisions = [*self.decisions, decision]

    def _unexpected(self, verb: str, advice: str) -> WriteRefused:
        waits = f" and waits for {self.waiting_for}" if self.waiting_for else ""
        return WriteRefused(
            f"Model {self.id} cannot be {verb}: it is {self.state}{waits}. {advice}", code="wrong_state"
        )
