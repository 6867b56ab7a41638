"""The HTTP routes of the trainer: OpenAI's `/v1/fine_tuning/jobs`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from chassis.auth import Principal, require
from chassis.errors import Invalid
from chassis.http import Page, page
from chassis.ids import derived_id
from trainer.domain import OPENAI_STATUS, Job
from trainer.store import JobCheckpoint, JobEvent, Jobs
from trainer.use_cases import Asked, Requests

Reads = Annotated[Principal, require("fine_tuning:read")]
Writes = Annotated[Principal, require("fine_tuning:write")]
Limit = Annotated[int, Query(ge=1, le=100)]
# metadata[key]=value; a key that MongoDB would read as an operator or a path does not match.
METADATA_FILTER = re.compile(r"metadata\[[A-Za-z0-9_-]{1,64}\]")


class Method(BaseModel):
    """How to fine-tune."""

    type: str
    supervised: dict[str, Any] | None = None


class JobAsked(BaseModel):
    """OpenAI's request for a job."""

    model: str = Field(min_length=1)
    training_file: str = Field(min_length=1)
    validation_file: str | None = None
    suffix: str | None = Field(None, max_length=64, pattern=r"^[A-Za-z0-9._-]*$")
    seed: int | None = Field(None, ge=0, le=2**31)
    method: Method | None = None
    hyperparameters: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    integrations: list[Any] | None = None

    def asked(self) -> Asked:
        """What is asked for.

        Raises:
            Invalid: a method or an integration that is not there.
        """
        if self.integrations:
            raise Invalid("integrations: none is supported; leave the field out.", param="integrations")
        given = self.hyperparameters
        if self.method is not None:
            if self.method.type != "supervised":
                raise Invalid(
                    f"method.type: '{self.method.type}' is not available; use 'supervised'.", param="method.type"
                )
            given = (self.method.supervised or {}).get("hyperparameters") or given
        return Asked(
            model=self.model,
            training_file=self.training_file,
            validation_file=self.validation_file,
            suffix=self.suffix or "",
            seed=self.seed,
            metadata=self.metadata,
            hyperparameters=given or {},
        )


class JobObject(BaseModel):
    """OpenAI's job object."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: dict[str, str | None] | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, Any]
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: str
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    estimated_finish: int | None
    integrations: list[Any]
    metadata: dict[str, str] | None
    method: dict[str, Any]

    @classmethod
    def of(cls, job: Job) -> JobObject:
        """The job as shown."""
        auto = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto")
        hyperparameters = {**auto, **job.requested, **job.hyperparameters}
        return cls(
            id=job.id,
            created_at=job.created_at,
            error=job.error.model_dump() if job.error else None,
            fine_tuned_model=job.fine_tuned_model,
            finished_at=job.finished_at,
            hyperparameters=hyperparameters,
            model=job.base_model,
            organization_id=job.organization,
            result_files=[],
            seed=job.seed,
            status=OPENAI_STATUS[job.state],
            trained_tokens=job.trained_tokens,
            training_file=job.training_file,
            validation_file=job.validation_file,
            estimated_finish=None if job.ended else job.estimated_finish,
            integrations=[],
            metadata=job.metadata,
            method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        )


def event_view(event: JobEvent) -> dict[str, Any]:
    """OpenAI's job event."""
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }


def checkpoint_view(checkpoint: JobCheckpoint, job: Job) -> dict[str, Any]:
    """OpenAI's checkpoint."""
    name = job.fine_tuned_model or f"ft:{job.base_model}:{job.organization}:{job.suffix}:{derived_id('', job.id)[:8]}"
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": checkpoint.created_at,
        "fine_tuned_model_checkpoint": f"{name}:ckpt-step-{checkpoint.step}",
        "fine_tuning_job_id": job.id,
        "metrics": {"step": checkpoint.step, **checkpoint.metrics},
        "step_number": checkpoint.step,
    }


def routes(jobs: Jobs, requests: Requests) -> APIRouter:
    """Create, list, read and steer jobs."""
    router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])

    @router.post("")
    async def create_job(asked: JobAsked, principal: Writes) -> JobObject:
        return JobObject.of(await requests.create(principal, asked.asked()))

    @router.get("")
    async def list_jobs(
        request: Request,
        principal: Reads,
        limit: Limit = 20,
        after: str | None = None,
        training_file: Annotated[str | None, Query(description="Only jobs that learn from this file.")] = None,
    ) -> Page:
        wanted = {"training_file": training_file} if training_file else {}
        wanted |= {
            f"metadata.{name[9:-1]}": value
            for name, value in request.query_params.items()
            if METADATA_FILTER.fullmatch(name)
        }
        found = await jobs.jobs.find(principal.tenant_id, wanted | principal.only, limit=limit + 1, after=after)
        return page([JobObject.of(job) for job in found], limit=limit)

    @router.get("/{job_id}")
    async def retrieve_job(job_id: str, principal: Reads) -> JobObject:
        return JobObject.of(await jobs.jobs.get(principal.tenant_id, job_id, principal.only))

    @router.post("/{job_id}/cancel")
    async def cancel_job(job_id: str, principal: Writes) -> JobObject:
        return JobObject.of(await requests.cancel(principal.tenant_id, job_id))

    @router.post("/{job_id}/pause")
    async def pause_job(job_id: str, principal: Writes) -> JobObject:
        return JobObject.of(await requests.pause(principal.tenant_id, job_id))

    @router.post("/{job_id}/resume")
    async def resume_job(job_id: str, principal: Writes) -> JobObject:
        return JobObject.of(await requests.resume(principal.tenant_id, job_id))

    @router.get("/{job_id}/events")
    async def list_events(job_id: str, principal: Reads, limit: Limit = 20, after: str | None = None) -> Page:
        job = await jobs.jobs.get(principal.tenant_id, job_id, principal.only)
        found = await jobs.history(job, limit=limit + 1, after=after)
        return page([event_view(event) for event in found], limit=limit)

    @router.get("/{job_id}/checkpoints")
    async def list_checkpoints(job_id: str, principal: Reads, limit: Limit = 10, after: str | None = None) -> Page:
        job = await jobs.jobs.get(principal.tenant_id, job_id, principal.only)
        found = await jobs.checkpoints(job, limit=limit + 1, after=after)
        return page([checkpoint_view(checkpoint, job) for checkpoint in found], limit=limit)

    return router
