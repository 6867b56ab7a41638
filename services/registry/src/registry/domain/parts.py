"""What is known of a model version, and said of it: values that never change."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas import CarriesDataset, Interval, ObjectRef
from schemas.artifacts import ArmKind, EmbedderFacts
from schemas.datasets import flat

State = Literal["candidate", "awaiting_approval", "production", "retired", "rejected"]
Verdict = Literal["pass", "fail", "needs_human"]
GatePolicy = Literal["auto", "approval", "advisory"]
Outcome = Literal["promote", "reject", "retire", "wait"]

LOADED: tuple[State, ...] = ("candidate", "awaiting_approval", "production")
"""States in which a version can be asked, and a replica holds its adapter where it has one."""

KEPT_LOAD_FAILURES = 10

Awaited = Literal["evaluation", "approval", "replica"]

ANSWERS_BY: dict[ArmKind, str] = {
    "head": "a logistic regression on the embedding of the question, whose classes are the training rows' answers",
    "nearest": "the answer of the training row whose question is closest",
}
"""How an arm answers, in words for people."""


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


class Arm(Part):
    """What an arm is, beside its manifest."""

    kind: ArmKind
    embedder: EmbedderFacts
    rows: int


class Evaluation(Part):
    """What the evaluator found.

    Attributes:
        beaten_by: the arm in production that does as well for less, by the registry's own documents too.
    """

    evaluation_id: str
    verdict: Verdict
    reason: str
    metric: str
    scores: dict[str, Interval]
    measured: dict[str, Interval] = Field(default_factory=dict)
    evidence: ObjectRef
    earlier_verdicts: int = 0
    beaten_by: ArmKind | None = None

    @property
    def comparison(self) -> str:
        """That the arm does as well, in a sentence with both values; empty where none does."""
        if self.beaten_by is None:
            return ""
        arm, adapter = self.scores.get(self.beaten_by), self.scores.get("candidate")
        if arm is None or adapter is None:
            return f"The arm '{self.beaten_by}', which serves the name, does as well for less."
        return (
            f"The arm '{self.beaten_by}', which serves the name, reaches {self.metric} {arm.value:.3f} on the same "
            f"held-out rows where the adapter reaches {adapter.value:.3f}, and costs less."
        )


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
