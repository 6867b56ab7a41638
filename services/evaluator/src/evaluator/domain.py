"""An evaluation: its states and the only functions that change them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from chassis.errors import WriteRefused
from chassis.ids import derived_id
from eventbus import Aggregate
from schemas import CarriesDataset, EvaluationCompleted, EvidenceDeleted, Interval, ModelRegistered, ObjectRef, Usage
from schemas.artifacts import ArmKind, Cascade

State = Literal["queued", "running", "completed", "cancelled"]
System = Literal["base", "few_shot", "candidate"] | ArmKind
"""Who is asked: of an arm's kind, the arm that serves the candidate's name meanwhile."""

Content = Literal["kept", "unwanted", "deleted"]

OPEN: tuple[State, ...] = ("queued", "running")


SEED = 20261123
"""Of every choice and of the resampling, so that another evaluation of the same data is the same test."""


class ServingArm(BaseModel):
    """The arm that serves a candidate's name while the candidate is tested.

    Attributes:
        kind: how it answers.
        version: what it is asked by.
        arm_id: what must have answered.
        generates: whether the base model answers by it.
        away: why it could not be asked, so that the test goes on without it.
    """

    model_config = ConfigDict(frozen=True)

    kind: ArmKind
    version: str
    arm_id: str
    generates: bool = False
    away: str | None = None


class Plan(BaseModel):
    """What is asked, fixed by the first attempt so that a later one goes on with the same questions.

    Attributes:
        rows: places of the held-out rows, or windows of held-out text, that are used.
        examples: places of the training rows shown in the few-shot prompt.
        systems: who is asked, in this order.
        max_tokens: of each answer.
        stop: strings that end an answer.
        seed: of every choice and of the resampling.
        arm: what serves the candidate's name meanwhile, where an arm does.
    """

    model_config = ConfigDict(frozen=True)

    rows: list[int]
    examples: list[int]
    systems: list[System]
    max_tokens: int
    stop: list[str]
    seed: int
    arm: ServingArm | None = None

    @property
    def questions(self) -> int:
        """How many answers the evaluation needs."""
        return len(self.rows) * len(self.systems)

    @property
    def asked_arm(self) -> ServingArm | None:
        """The arm that serves the candidate's name, unless it cannot be asked."""
        return self.arm if self.arm is not None and self.arm.away is None else None

    def without_arm(self, why: str) -> Plan:
        """The same plan, in which the arm is not asked."""
        if self.arm is None:
            return self
        systems = [system for system in self.systems if system != self.arm.kind]
        return self.model_copy(update={"systems": systems, "arm": self.arm.model_copy(update={"away": why})})


class Evaluation(CarriesDataset, Aggregate):
    """The test of one candidate: `queued -> running -> completed`, or `cancelled`.

    A failed attempt goes back to `queued` with `last_error`; answers already given are kept.

    Attributes:
        method: how the candidate was trained.
        name: what it serves under; empty from an earlier release, where that is the id of the model.
        arm: how it answers, where it is an arm and no adapter.
        generates: whether the base model answers by that arm.
        adapter_manifest: of the candidate's files, among which may be what its run held out.
        attempts: as the lease counts them, for its owner to see.
        scores: of the metric that decided, by system.
        metrics: of every metric, metric -> system -> value.
        usage: what the answers took, by system; none of an earlier release.
        cost: of the answers that were kept to questions of the plan, at the base model's price; None where one of them
            has none. What is asked to see whether somebody can be asked, or by a metric, is not in it.
        beaten_by: the arm that serves the candidate's name and goes on doing so.
        below_base: that arm, where the base model is better than it beyond doubt.
        cascade: what that arm and the candidate would do together.
        content: whether its evidence, which holds rows and answers, is kept; scores and verdict stay in any case.
    """

    created_at: int
    owner: str = ""
    state: State = "queued"
    model_id: str
    job_id: str
    base_model: str
    adapter_id: str
    name: str = ""
    arm: ArmKind | None = None
    generates: bool = False
    adapter_manifest: ObjectRef | None = None
    method: str = "supervised"
    attempts: int = 0
    last_error: str | None = None
    adapter_missed_at: int | None = None
    plan: Plan | None = None
    started_at: int | None = None
    finished_at: int | None = None
    verdict: Literal["pass", "fail", "needs_human"] | None = None
    reason: str | None = None
    metric: str | None = None
    scores: dict[str, Interval] = Field(default_factory=dict)
    metrics: dict[str, dict[str, Interval]] = Field(default_factory=dict)
    usage: dict[str, Usage] = Field(default_factory=dict)
    evidence: ObjectRef | None = None
    cost: float | None = None
    beaten_by: ArmKind | None = None
    below_base: ArmKind | None = None
    cascade: Cascade | None = None
    content: Content = "kept"

    @classmethod
    def of(cls, registered: ModelRegistered, at: int) -> Evaluation:
        """The one evaluation that a registered model gets.

        Args:
            registered: the event.
            at: now, in Unix seconds.
        """
        return cls(
            id=derived_id("ev-", registered.model_id),
            tenant_id=registered.tenant_id,
            created_at=at,
            owner=registered.owner,
            model_id=registered.model_id,
            job_id=registered.job_id,
            base_model=registered.base_model,
            adapter_id=registered.adapter_id,
            name=registered.name,
            arm=registered.arm,
            generates=registered.generates,
            adapter_manifest=registered.adapter_manifest,
            dataset=registered.dataset,
            method=registered.method,
        )

    def begin(self, at: int) -> None:
        """An attempt begins.

        Raises:
            WriteRefused: the evaluation is over.
        """
        self._require_open()
        self.state = "running"
        self.attempts = self.lease.attempts
        self.started_at = self.started_at or at

    def fix_plan(self, plan: Plan) -> None:
        """Keep what will be asked; the first plan stays."""
        self._require_open()
        self.plan = self.plan or plan

    def go_on_without_arm(self, why: str) -> None:
        """The arm that serves the name cannot be asked: no attempt asks it again."""
        self._require_open()
        self.plan = self.plan and self.plan.without_arm(why)

    def put_back(self, error: str) -> None:
        """The attempt failed for a reason that may pass."""
        self._require_open()
        self.state = "queued"
        self.last_error = error

    def put_off(self, error: str, at: int) -> None:
        """Somebody cannot be asked yet: that was no attempt, and since when that is so is kept."""
        self._require_open()
        self.state = "queued"
        self.attempts = self.lease.failures
        self.last_error = error
        self.adapter_missed_at = self.adapter_missed_at or at

    def find_adapter(self) -> None:
        """A question of the plan was answered: should somebody be missed again, a new wait begins."""
        self.adapter_missed_at = None

    def complete(
        self,
        *,
        verdict: Literal["pass", "fail", "needs_human"],
        reason: str,
        metric: str,
        metrics: dict[str, dict[str, Interval]],
        evidence: ObjectRef,
        at: int,
        earlier: int = 0,
        usage: dict[str, Usage] | None = None,
        cost: float | None = None,
        beaten_by: ArmKind | None = None,
        below_base: ArmKind | None = None,
        cascade: Cascade | None = None,
    ) -> None:
        """Keep the result and tell everybody.

        Args:
            verdict: what is concluded.
            reason: why, in a sentence.
            metric: the one it rests on.
            metrics: the value of each, metric -> system -> value; none where nothing could be asked.
            evidence: where the report lies.
            at: now, in Unix seconds.
            earlier: how many candidates were judged on the same rows before.
            usage: what the answers took, by system; none where nobody answered.
            cost: of all; None where one of them has no price.
            beaten_by: the arm that serves the name and goes on doing so.
            below_base: that arm, where the base model is better than it beyond doubt.
            cascade: what that arm and the candidate would do together.

        Raises:
            WriteRefused: the evaluation is over.
        """
        self._require_open()
        self.state = "completed"
        self.verdict, self.reason, self.metric, self.evidence = verdict, reason, metric, evidence
        self.metrics, self.scores, self.usage = metrics, metrics.get(metric, {}), usage or {}
        self.finished_at, self.cost, self.beaten_by, self.below_base = at, cost, beaten_by, below_base
        self.cascade = cascade
        self.last_error = None
        self.record(
            EvaluationCompleted(
                tenant_id=self.tenant_id,
                evaluation_id=self.id,
                model_id=self.model_id,
                verdict=verdict,
                reason=reason,
                metric=metric,
                scores=self.scores,
                measured={name: found["candidate"] for name, found in metrics.items()},
                evidence=evidence,
                earlier_verdicts=earlier,
                usage=self.usage,
                cost=cost,
                beaten_by=beaten_by,
                below_base=below_base,
                cascade=cascade,
            )
        )

    def cancel(self, at: int) -> None:
        """Nobody wants the result any more; nothing happens to an evaluation that is over."""
        if self.state in OPEN:
            self.state = "cancelled"
            self.finished_at = at

    def forget(self, at: int) -> None:
        """Its model or its rows are deleted: no result is wanted, and no word of the rows."""
        self.cancel(at)
        if self.content == "kept":
            self.content, self.evidence, self.last_error = "unwanted", None, None

    def lose_content(self) -> None:
        """Evidence and answers are gone."""
        if self.content == "unwanted":
            self.content = "deleted"
            self.record(EvidenceDeleted(tenant_id=self.tenant_id, evaluation_id=self.id, model_id=self.model_id))

    def _require_open(self) -> None:
        if self.state not in OPEN:
            raise WriteRefused(f"Evaluation {self.id} is {self.state}.", code="wrong_state")
