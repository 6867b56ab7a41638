"""The arm of a job, an answer by embeddings that is there within seconds, and the work of fitting it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from eventbus import Aggregate
from schemas import ModelPinned, ModelUnpinned, ModelWaiting, ObjectRef
from schemas.artifacts import ArmKind, EmbedderFacts, LearningCurve
from trainer.domain.parts import GateWait


class FittedArm(BaseModel):
    """What a fit made; one of an earlier release has no report."""

    kind: ArmKind
    generates: bool = False
    base_digest: str = ""
    arm_id: str
    manifest: ObjectRef
    embedder: EmbedderFacts
    rows: int
    fit_seconds: float
    metrics: dict[str, float]
    report: ObjectRef | None = None
    learning_curve: LearningCurve | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the event says of it that hands it over."""
        told = ("generates", "base_digest", "arm_id", "embedder", "rows", "fit_seconds", "metrics", "learning_curve")
        return {"arm": self.kind, "arm_manifest": self.manifest, **{name: getattr(self, name) for name in told}}


class ArmOfJob(BaseModel):
    """Where a job's arm stands.

    Attributes:
        state: `no` of a job that has none; `fitted` until the registry decides; `over` where none is fitted, or it was
            refused or taken back.
        made: what was fitted.
        files: whether they are stored.
        gate: what it waits for, as the registry said last.
        since: when it began to wait for that.
        pinned: a person has the model answer by it, also once the adapter is there.
        pin: the revision of what was heard last of that.
    """

    state: Literal["no", "to_fit", "fitted", "serving", "over"] = "no"
    made: FittedArm | None = None
    files: Literal["kept", "unwanted", "deleted"] = "kept"
    gate: GateWait = Field(default_factory=GateWait)
    since: int | None = None
    pinned: bool = False
    pin: int = 0

    @property
    def undecided(self) -> bool:
        """Whether it may still come to answer."""
        return self.state in ("to_fit", "fitted")

    @property
    def kind(self) -> ArmKind | None:
        """How it answers, once that is known."""
        return self.made.kind if self.made else None

    def expect(self) -> None:
        """One is to be fitted, once."""
        if self.state == "no":
            self.state = "to_fit"

    def take(self, fitted: FittedArm) -> None:
        """One is fitted and stored."""
        self.state, self.made = "fitted", fitted

    def wait(self, waiting: ModelWaiting, at: int) -> None:
        """The registry says what it waits for; what is older, or comes too late, changes nothing."""
        if self.state == "fitted" and self.gate.hears(waiting):
            if waiting.waiting_for != self.gate.waiting_for:
                self.since = at
            self.gate = GateWait.of(waiting)

    def serve(self) -> None:
        """It was let through."""
        self.state = "serving"

    def hear_of_pin(self, event: ModelPinned | ModelUnpinned) -> None:
        """A person has the model answer by it, or leaves that to tests again; what is older changes nothing."""
        if event.revision > self.pin:
            self.pin, self.pinned = event.revision, isinstance(event, ModelPinned)

    def stop_fitting(self) -> None:
        """One that is not fitted yet is wanted no more."""
        if self.state == "to_fit":
            self.state = "over"

    def end(self) -> None:
        """It will not answer, or not any more: its files are to be removed."""
        if self.state != "no":
            self.state = "over"
        if self.made is not None and self.files == "kept":
            self.files = "unwanted"

    def lose_files(self) -> None:
        """Its files are gone; which arm it was stays known."""
        if self.files == "unwanted":
            self.files = "deleted"


class ArmFit(Aggregate):
    """The work of fitting one job's arm, under the job's id and a lease of its own: the job is trained meanwhile."""

    created_at: int
    state: Literal["to_fit", "done"] = "to_fit"
    away_since: int | None = None
    exchanged_since: int | None = None

    def miss_vectors(self, at: int) -> None:
        """Who makes vectors is away, and was so since the first time that this is said."""
        self.away_since = self.away_since or at

    def get_vectors(self) -> None:
        """Who makes vectors is there."""
        self.away_since = None

    def meet_exchange(self, at: int) -> None:
        """Vectors came of two embedders; that some come is no sign that those of one will."""
        self.exchanged_since = self.exchanged_since or at

    def finish(self) -> None:
        """The job has its arm, or will have none."""
        self.state = "done"
