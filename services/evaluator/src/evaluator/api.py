"""The evaluator's HTTP routes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Response
from pydantic import BaseModel

from chassis.auth import Principal, require
from chassis.http import Page, page
from chassis.routes import Router
from evaluator.domain import OPEN, Evaluation, State
from evaluator.store import Answers, Artifacts, Evaluations
from schemas import Interval, ObjectRef, Usage
from schemas.artifacts import Cascade

Reads = Annotated[Principal, require("evals:read")]


class Progress(BaseModel):
    """Answers given of those needed; both 0 before the first attempt has planned them."""

    done: int
    total: int


class EvaluationView(BaseModel):
    """An evaluation as shown to its owner."""

    id: str
    object: Literal["evaluation"] = "evaluation"
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: State
    progress: Progress
    attempts: int
    last_error: str | None
    model: str
    name: str
    arm: str | None
    base_model: str
    adapter_id: str
    job_id: str
    task: str
    verdict: str | None
    reason: str | None
    metric: str | None
    scores: dict[str, Interval]
    metrics: dict[str, dict[str, Interval]]
    usage: dict[str, Usage]
    evidence: ObjectRef | None
    cost: float | None
    beaten_by: str | None
    below_base: str | None
    cascade: Cascade | None

    @classmethod
    def of(cls, evaluation: Evaluation, answered: int) -> EvaluationView:
        """An evaluation with the number of answers it has so far."""
        total = evaluation.plan.questions if evaluation.plan else 0
        done = total if evaluation.state == "completed" and evaluation.scores else answered
        same = {name: getattr(evaluation, name) for name in set(cls.model_fields) & set(Evaluation.model_fields)}
        return cls(
            **same,
            task=evaluation.dataset.task,
            status=evaluation.state,
            model=evaluation.model_id,
            progress=Progress(done=done, total=total),
        )


def routes(evaluations: Evaluations, answers: Answers, artifacts: Artifacts) -> Router:
    """Evaluations of the tenant's models, their progress, and the evidence."""
    router = Router(prefix="/v1/evals/evaluations")

    async def view(evaluation: Evaluation) -> EvaluationView:
        return EvaluationView.of(evaluation, await answers.count(evaluation) if evaluation.state in OPEN else 0)

    @router.get("")
    async def list_evaluations(
        principal: Reads,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=128)] = None,
        order: Literal["asc", "desc"] = "desc",
        model: Annotated[str | None, Query(max_length=256, description="Only the evaluation of this model.")] = None,
        status: State | None = None,
    ) -> Page:
        found = await evaluations.page_of(
            principal.tenant_id,
            principal.only,
            model_id=model,
            state=status,
            limit=limit + 1,
            after=after,
            newest_first=order == "desc",
        )
        return page([await view(evaluation) for evaluation in found], limit=limit)

    @router.get("/{evaluation_id}")
    async def retrieve_evaluation(evaluation_id: str, principal: Reads) -> EvaluationView:
        return await view(await evaluations.get(principal.tenant_id, evaluation_id, principal.only))

    @router.get("/{evaluation_id}/evidence")
    async def download_evidence(evaluation_id: str, principal: Reads) -> Response:
        evaluation = await evaluations.get(principal.tenant_id, evaluation_id, principal.only)
        return Response(await artifacts.evidence(evaluation), media_type="application/json")

    return router
