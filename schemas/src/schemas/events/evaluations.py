"""Evidence about candidates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.artifacts.arm import ArmKind
from schemas.artifacts.cascade import Cascade
from schemas.envelope import Event
from schemas.refs import Id, Interval, ObjectRef, Parameter, Sentence, Usage


class EvaluationCompleted(Event):
    """A candidate was scored beside its base on the tenant's held-out rows."""

    type, topic, key = "evaluation.completed.v1", "evaluations", "evaluation_id"

    evaluation_id: Id = Field(description="Id of the evaluation.")
    model_id: Id = Field(description="The candidate.")
    verdict: Literal["pass", "fail", "needs_human"] = Field(description="What the evidence says.")
    reason: Sentence = Field(description="The verdict in a sentence.")
    metric: Id = Field(description="The metric it rests on.")
    scores: dict[Parameter, Interval] = Field(
        max_length=32,
        description="By system: `base`, `few_shot`, `candidate`, and by kind the arm that serves the name meanwhile.",
    )
    measured: dict[Parameter, Interval] = Field(
        default_factory=dict, max_length=32, description="By metric, that one and every other: the candidate's value."
    )
    usage: dict[Parameter, Usage] = Field(
        default_factory=dict,
        max_length=32,
        description="By system: what its answers took; absent of an earlier release.",
    )
    beaten_by: ArmKind | None = Field(
        None, description="The arm that serves the name meanwhile and does as well, for less: it goes on serving."
    )
    below_base: ArmKind | None = Field(
        None, description="The arm that serves the name meanwhile, where the base model is better beyond doubt."
    )
    cascade: Cascade | None = Field(
        None, description="What the arm that serves the name meanwhile and the candidate would do together."
    )
    evidence: ObjectRef = Field(description="The full report with every row's answer.")
    earlier_verdicts: int = Field(0, ge=0, description="Candidates judged before on the same held-out rows.")
    cost: float | None = Field(
        None,
        ge=0,
        description="What the answers to its questions cost at the base model's price; absent where one has none. "
        "Looks whether a model can be asked, questions without an answer, and what a metric asks are not in it.",
    )


class EvidenceDeleted(Event):
    """The evidence of an evaluation is gone from the object store."""

    type, topic, key = "evaluation.evidence_deleted.v1", "evaluations", "evaluation_id"

    evaluation_id: Id = Field(description="The evaluation.")
    model_id: Id = Field(description="The model it was about.")
