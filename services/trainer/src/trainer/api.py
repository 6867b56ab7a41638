"""The HTTP routes of the trainer: OpenAI's `/v1/fine_tuning/jobs`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from chassis.auth import Principal, require
from chassis.bodies import AnyJson, Body, Metadata, metadata_filter
from chassis.errors import Invalid
from chassis.http import Page, page
from chassis.ids import derived_id
from chassis.routes import Router
from schemas.artifacts import DataReport
from trainer.arms.reporting import sentences_of
from trainer.domain import OPENAI_STATUS, Job
from trainer.history import JobCheckpoint, JobEvent
from trainer.job_objects import JobObjects
from trainer.run.methods import DEFAULT, METHODS, method_of
from trainer.stages import Stage, Waiting, stage_of, waiting_of
from trainer.store import Jobs
from trainer.use_cases import Asked, Requests

Reads = Annotated[Principal, require("fine_tuning:read")]
Writes = Annotated[Principal, require("fine_tuning:write")]
ReadsRows = Annotated[Principal, require("files:read")]
Cancels = Annotated[Principal, require("fine_tuning:write", "own:delete")]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=128, description="Id of the last item of the previous page.")]
FileId = Annotated[str, Field(min_length=1, max_length=128)]


class HyperparametersAsked(Body):
    """Hyperparameters, each a number or "auto"; the method refuses those it does not know, and says which it does."""

    model_config = ConfigDict(extra="allow")

    n_epochs: AnyJson = None
    batch_size: AnyJson = None
    learning_rate_multiplier: AnyJson = None
    early_stop_patience: AnyJson = None


class MethodSettings(Body):
    """What a method is told."""

    hyperparameters: HyperparametersAsked | None = None


class MethodAsked(Body):
    """How to train: `type` names a method, and the field of that name may hold its hyperparameters."""

    type: str = Field(max_length=64)
    supervised: MethodSettings | None = None
    pretrain: MethodSettings | None = None

    def settings(self) -> dict[str, MethodSettings]:
        """What is said of each method, by its name."""
        return {name: said for name in METHODS if (said := getattr(self, name)) is not None}


class JobAsked(Body):
    """OpenAI's request for a job."""

    UNASKED: ClassVar[dict[str, tuple[JsonValue, ...]]] = {"integrations": ([],)}

    model: str = Field(min_length=1, max_length=256)
    training_file: FileId
    validation_file: FileId | None = None
    suffix: str | None = Field(None, max_length=64, pattern=r"^[A-Za-z0-9._-]*$")
    seed: int | None = Field(None, ge=0, le=2**31)
    method: MethodAsked | None = None
    hyperparameters: HyperparametersAsked | None = None
    metadata: Metadata | None = None

    def asked(self) -> Asked:
        """What is asked for.

        Raises:
            Invalid: a method that is not there, or hyperparameters given twice.
        """
        return Asked(
            model=self.model,
            training_file=self.training_file,
            validation_file=self.validation_file,
            suffix=self.suffix or "",
            seed=self.seed,
            metadata=self.metadata,
            method=method_of(self.method.type).name if self.method else DEFAULT,
            hyperparameters=self._hyperparameters(),
        )

    def _hyperparameters(self) -> dict[str, JsonValue]:
        nested, name = None, DEFAULT
        if self.method is not None:
            name, settings = self.method.type, self.method.settings()
            if others := settings.keys() - {name}:
                other = min(others)
                raise Invalid(
                    f"method.{other}: the method asked for is '{name}'. Leave it out, or ask for '{other}'.",
                    param=f"method.{other}",
                )
            nested = settings[name].hyperparameters if name in settings else None
        places = (self.hyperparameters, nested)
        given = [found for place in places if place and (found := place.model_dump(exclude_none=True))]
        if len(given) == 2 and given[0] != given[1]:
            raise Invalid(
                f"hyperparameters: they differ from those in method.{name}; give them in one place.",
                param="hyperparameters",
            )
        return given[0] if given else {}


class JobObject(BaseModel):
    """OpenAI's job object, and more: its stage, what it waits for from whom, and how its model answers."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: dict[str, str | None] | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, JsonValue]
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: str
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    estimated_finish: int | None
    integrations: list[JsonValue]
    metadata: dict[str, str] | None
    method: dict[str, JsonValue]
    stage: Stage
    waiting_for: Waiting | None
    answers_by: str | None

    @classmethod
    def of(cls, job: Job) -> JobObject:
        """The job as shown."""
        known = METHODS[job.method].hyperparameters
        auto = {one.name: "auto" for one in known if one.auto is not None}
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
            method={"type": job.method, job.method: {"hyperparameters": hyperparameters}},
            stage=stage_of(job),
            waiting_for=waiting_of(job),
            answers_by=job.answers_by,
        )


class EventObject(BaseModel):
    """OpenAI's job event."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, int | float]

    @classmethod
    def of(cls, event: JobEvent) -> EventObject:
        """The line as shown."""
        return cls(
            id=event.id,
            created_at=event.created_at,
            level=event.level,
            message=event.message,
            type=event.type,
            data=event.data,
        )


class CheckpointObject(BaseModel):
    """OpenAI's checkpoint."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, int | float]
    step_number: int

    @classmethod
    def of(cls, checkpoint: JobCheckpoint, job: Job) -> CheckpointObject:
        """The checkpoint as shown."""
        own = f"ft:{job.base_model}:{job.organization}:{job.suffix}:{derived_id('', job.id)[:8]}"
        return cls(
            id=checkpoint.id,
            created_at=checkpoint.created_at,
            fine_tuned_model_checkpoint=f"{job.fine_tuned_model or own}:ckpt-step-{checkpoint.step}",
            fine_tuning_job_id=job.id,
            metrics={"step": checkpoint.step, **checkpoint.metrics},
            step_number=checkpoint.step,
        )


class DataReportObject(DataReport):
    """What the rows of a job tell, and the same in sentences."""

    object: Literal["fine_tuning.job.data_report"] = "fine_tuning.job.data_report"
    job_id: str
    said: list[str]

    @classmethod
    def of(cls, job: Job, report: DataReport) -> DataReportObject:
        """The report as shown."""
        return cls(**dict(report), job_id=job.id, said=sentences_of(report))


def routes(jobs: Jobs, requests: Requests, objects: JobObjects) -> Router:
    """Create, list, read and steer jobs."""
    router = Router(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])

    @router.post("")
    async def create_job(asked: JobAsked, principal: Writes) -> JobObject:
        return JobObject.of(await requests.create(principal, asked.asked()))

    @router.get("", openapi_extra={"x-query-prefixes": ["metadata["]})
    async def list_jobs(
        request: Request,
        principal: Reads,
        limit: Limit = 20,
        after: After = None,
        training_file: Annotated[
            str | None, Query(max_length=128, description="Only jobs that learn from this file.")
        ] = None,
        metadata: Annotated[Literal["null"] | None, Query(description="`null`: only jobs without metadata.")] = None,
    ) -> Page:
        found = await jobs.page_of(
            principal.tenant_id,
            principal.only,
            training_file=training_file,
            metadata=metadata_filter(request),
            without_metadata=metadata == "null",
            limit=limit + 1,
            after=after,
        )
        return page([JobObject.of(job) for job in found], limit=limit)

    @router.get("/{job_id}")
    async def retrieve_job(job_id: str, principal: Reads) -> JobObject:
        return JobObject.of(await jobs.get(principal.tenant_id, job_id, principal.only))

    @router.post("/{job_id}/cancel")
    async def cancel_job(job_id: str, principal: Cancels) -> JobObject:
        where = principal.only if principal.may("fine_tuning:write") else {"owner": principal.owner}
        return JobObject.of(await requests.cancel(principal.tenant_id, job_id, where))

    @router.post("/{job_id}/pause")
    async def pause_job(job_id: str, principal: Writes) -> JobObject:
        return JobObject.of(await requests.pause(principal.tenant_id, job_id))

    @router.post("/{job_id}/resume")
    async def resume_job(job_id: str, principal: Writes) -> JobObject:
        return JobObject.of(await requests.resume(principal.tenant_id, job_id))

    @router.get("/{job_id}/events")
    async def list_events(job_id: str, principal: Reads, limit: Limit = 20, after: After = None) -> Page:
        job = await jobs.get(principal.tenant_id, job_id, principal.only)
        found = await jobs.history(job, limit=limit + 1, after=after)
        return page([EventObject.of(event) for event in found], limit=limit)

    @router.get("/{job_id}/checkpoints")
    async def list_checkpoints(job_id: str, principal: Reads, limit: Limit = 10, after: After = None) -> Page:
        job = await jobs.get(principal.tenant_id, job_id, principal.only)
        found = await jobs.checkpoints(job, limit=limit + 1, after=after)
        return page([CheckpointObject.of(checkpoint, job) for checkpoint in found], limit=limit)

    @router.get("/{job_id}/data_report")
    async def retrieve_data_report(job_id: str, principal: ReadsRows) -> DataReportObject:
        job = await jobs.get(principal.tenant_id, job_id, principal.only)
        return DataReportObject.of(job, await objects.report(job))

    return router
