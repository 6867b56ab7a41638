"""What is known of a model version, and said of it: values that never change."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas import CarriesDataset, FinetuneArmFitted, Interval, ObjectRef, Usage
from schemas.artifacts import ArmKind, Cascade, EmbedderFacts, LearningCurve
from schemas.datasets import flat

State = Literal["candidate", "awaiting_approval", "production", "retired", "rejected"]
Verdict = Literal["pass", "fail", "needs_human"]
GatePolicy = Literal["auto", "approval", "advisory"]
Outcome = Literal["promote", "reject", "retire", "wait", "pin", "unpin"]

LOADED: tuple[State, ...] = ("candidate", "awaiting_approval", "production")
"""States in which a version can be asked, and a replica holds its adapter where it has one."""

KEPT_LOAD_FAILURES = 10

Awaited = Literal["evaluation", "approval", "replica"]

ANSWERS_BY: dict[ArmKind, str] = {
    "head": "a logistic regression on the embedding of the question, whose classes are the training rows' answers",
    "nearest": "the answer of the training row whose question is closest",
}
"""How an arm answers, in words for people; one that generates answers by `GENERATES`."""

GENERATES = "the base model, which is shown the training rows whose questions are closest"


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

    @classmethod
    def of_arm(cls, fitted: FinetuneArmFitted) -> Lineage:
        """That of an arm, which is not trained."""
        return cls(
            base_digest=fitted.base_digest,
            training_file=fitted.training_file,
            trained_tokens=0,
            train_seconds=fitted.fit_seconds,
            metrics=fitted.metrics,
            hyperparameters={},
            seed=fitted.seed,
            dataset=fitted.dataset,
        )

    dataset_id: ClassVar[object] = flat("dataset_id", str, "Models are found by it.")
    dataset_manifest: ClassVar[object] = flat("manifest", ObjectRef, "Read by the release before.")


class Arm(Part):
    """What an arm is, beside its manifest."""

    kind: ArmKind
    generates: bool = False
    embedder: EmbedderFacts
    rows: int
    learning_curve: LearningCurve | None = None

    @classmethod
    def of(cls, fitted: FinetuneArmFitted) -> Arm:
        """That of an event."""
        return cls(
            kind=fitted.arm,
            generates=fitted.generates,
            embedder=fitted.embedder,
            rows=fitted.rows,
            learning_curve=fitted.learning_curve,
        )

    @property
    def answers_by(self) -> str:
        """How it answers, in words for people."""
        return GENERATES if self.generates else ANSWERS_BY[self.kind]


class Evaluation(Part):
    """What the evaluator found.

    Attributes:
        beaten_by: the arm in production that does as well for less, by the registry's own documents too.
        below_base: the arm in production that is worse than the base model, by these too; it is withdrawn.
        cascade: what the arm in production and the adapter would do together.
    """

    evaluation_id: str
    verdict: Verdict
    reason: str
    metric: str
    scores: dict[str, Interval]
    measured: dict[str, Interval] = Field(default_factory=dict)
    usage: dict[str, Usage] = Field(default_factory=dict)
    evidence: ObjectRef
    earlier_verdicts: int = 0
    beaten_by: ArmKind | None = None
    below_base: ArmKind | None = None
    cascade: Cascade | None = None

    @property
    def comparison(self) -> str:
        """That the arm does as well, in a sentence with both values; empty where none does."""
        if self.beaten_by is None:
            return ""
        arm, adapter = self.scores.get(self.beaten_by), self.scores.get("candidate")
        if arm is None or adapter is None:
            return f"The arm '{self.beaten_by}', which serves the name, goes on: the adapter is no better."
        return (
            f"The arm '{self.beaten_by}', which serves the name, reaches {self.metric} {arm.value:.3f} on the same "
            f"held-out rows where the adapter reaches {adapter.value:.3f}, and goes on."
        )

    @property
    def superiority_of_base(self) -> str:
        """Why the arm is withdrawn, in a sentence with both values; empty where none is."""
        if self.below_base is None:
            return ""
        arm, base = self.scores.get(self.below_base), self.scores.get("base")
        if arm is None or base is None:
            return "The base model is clearly better on the same held-out rows."
        return (
            f"The base model is clearly better on the same held-out rows: {self.metric} {base.value:.3f}, where the "
            f"arm '{self.below_base}' reaches {arm.value:.3f}."
        )


class Decision(Part):
    """One decision about a model: what, by whom, when (Unix seconds), why."""

    outcome: Outcome
    by: str
    at: int
    note: str = ""


class Pin(Part):
    """Whether a person had the version's name answer by it.

    Attributes:
        since: when (Unix seconds), and later than every pin whose place it took; None while it is not pinned.
        changes: how often it was pinned, and how often that ended.
        decision: the last of these.
        hand_over_below: an arm less sure than this leaves the answer to the next; None where it answers whatever.
    """

    since: int | None = None
    changes: int = 0
    decision: Decision | None = None
    hand_over_below: float | None = None


class Download(Part):
    """Somebody took a copy of the files, `times` times by now, the last at `at` (Unix seconds)."""

    by: str
    at: int
    times: int


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
