"""What the trainer does besides training: takes requests, follows datasets and the gate."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from chassis.auth import Principal
from chassis.errors import Conflict, Invalid, NotFound, RateLimited, SartorError
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from chassis.peers import Peer
from chassis.text import quoted
from schemas import (
    FEWEST_TRAINING_ROWS,
    DatasetDeleted,
    DatasetPrepared,
    DatasetRejected,
    ModelDeleted,
    ModelPromoted,
    ModelRejected,
    ModelWaiting,
)
from schemas.artifacts import BaseModelSpec
from schemas.http.accounts import TenantFacts
from schemas.http.registry import PROVIDER_MODEL
from stores.mongo import PyMongoError
from trainer.domain import Failure, Job, Trigger
from trainer.hyperparameters import resolve_hyperparameters
from trainer.stages import waiting_line
from trainer.store import FILE_DELETED, Jobs

log = structlog.get_logger()

MOST_SEED = 2**31

SAME_ROWS = (
    "validation_file: it holds the rows of the training file. Give other rows, or leave it out: then some of the "
    "training file's own are held out for validation."
)


@dataclass(frozen=True)
class Asked:
    """A fine-tune as asked for."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str = ""
    seed: int | None = None
    metadata: dict[str, str] | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)


class Requests:
    """Takes fine-tunes in and lets their owners steer them.

    Args:
        jobs: where they are kept.
        ingest: asked whether a file is there.
        registry: asked whether a base model is there.
        open_jobs: most jobs of a tenant that are not over.
    """

    def __init__(self, jobs: Jobs, ingest: Peer, registry: Peer, open_jobs: int) -> None:
        self._jobs = jobs
        self._ingest = ingest
        self._registry = registry
        self._open_jobs = open_jobs

    async def create(self, principal: Principal, asked: Asked) -> Job:
        """Make a job that waits for its data, and queue it if the data is there.

        Raises:
            Invalid: unknown base model, unusable file, or bad hyperparameters.
            NotFound: no such file of this tenant.
            RateLimited: too many open jobs.
        """
        tenant_id = principal.tenant_id
        resolve_hyperparameters(1000, asked.hyperparameters)
        await self._check_base(tenant_id, asked.model)
        await self._check_file(principal, asked.training_file, "training_file")
        if asked.validation_file == asked.training_file:
            raise Invalid(SAME_ROWS, param="validation_file", code="same_file")
        if asked.validation_file:
            await self._check_file(principal, asked.validation_file, "validation_file")
        if await self._jobs.open_jobs(tenant_id) >= self._open_jobs:
            raise RateLimited(f"{self._open_jobs} of your jobs are not over. Wait or cancel some.", retry_after=60)
        job = Job(
            id=request_id_for("ftjob-", new_id("ftjob-")),
            tenant_id=tenant_id,
            created_at=now(),
            owner=principal.owner,
            organization=principal.organization or tenant_id,
            base_model=asked.model,
            training_file=asked.training_file,
            validation_file=asked.validation_file,
            suffix=asked.suffix,
            seed=asked.seed if asked.seed is not None else secrets.randbelow(MOST_SEED),
            metadata=asked.metadata,
            requested=asked.hyperparameters,
        )
        return await self._add(job)

    async def create_for(self, dataset: DatasetPrepared, base_model: str, organization: str) -> Job:
        """The automatic job of a dataset: one, however often its event comes; failed if there is no such base model."""
        trigger: Trigger = "labels" if dataset.project_id else "upload"
        job = Job(
            id=derived_id("ftjob-", dataset.dataset_id),
            tenant_id=dataset.tenant_id,
            created_at=now(),
            owner=dataset.owner,
            organization=organization,
            base_model=base_model,
            training_file=str(dataset.file_id),
            seed=int(derived_id("", dataset.dataset_id)[:7], 16),
            trigger=trigger,
        )
        try:
            await self._check_base(dataset.tenant_id, base_model)
        except Invalid as error:
            job.request()
            job.fail(Failure(code=error.code or "model_not_found", message=error.message, param="model"), now())
            job = await self._jobs.add_once(job)
            if job.error is not None:
                await self._jobs.tell(job, "created", f"Created fine-tuning job: {job.id}")
                await self._jobs.tell(job, "failed", job.error.message, level="error")
            return job
        return await self._add(job)

    async def _add(self, job: Job) -> Job:
        """Store the job; it is accepted then, and what cannot be done for it at once is done by the sweep."""
        job.request()
        job = await self._jobs.add_once(job)
        try:
            return await Datasets(self._jobs).begin(job)
        except (SartorError, PyMongoError) as error:
            log.warning("job_begins_later", job_id=job.id, error=f"{type(error).__name__}: {error}")
            return job

    async def _say(self, job: Job, key: str, message: str, level: str = "info") -> None:
        """Tell the job's owner what was done on request, which stays done where that cannot be told."""
        try:
            await self._jobs.tell(job, key, message, level=level)
        except PyMongoError as error:
            log.warning("line_not_told", job_id=job.id, key=key, error=f"{type(error).__name__}: {error}")

    async def has_file(self, tenant_id: str, file_id: str) -> bool:
        """Whether a file is there and not deleted."""
        try:
            await self._ingest.get("/v1/files/{}", file_id, tenant_id=tenant_id)
        except NotFound:
            return False
        return True

    async def _check_base(self, tenant_id: str, model: str) -> None:
        try:
            await self._registry.get("/internal/base_models/{}", model, tenant_id=tenant_id)
        except NotFound as error:
            bases = await self._registry.read(list[BaseModelSpec], "/internal/base_models", tenant_id=tenant_id)
            names = ", ".join(base.id for base in bases) or "none"
            if error.code == PROVIDER_MODEL:
                code, why = PROVIDER_MODEL, error.message
            else:
                code, why = "model_not_found", f"{quoted(model)} is not a base model that can be fine-tuned."
            raise Invalid(f"model: {why} Available: {names}.", param="model", code=code) from error

    async def _check_file(self, principal: Principal, file_id: str, param: str) -> None:
        try:
            file = await self._ingest.get("/v1/files/{}", file_id, tenant_id=principal.tenant_id, user=principal)
        except NotFound as error:
            raise NotFound(f"{param}: no such file '{file_id}'.", param=param, code="file_not_found") from error
        if file["purpose"] not in ("fine-tune", "user_data"):
            raise Invalid(
                f"{param}: file '{file_id}' has the purpose '{file['purpose']}'; upload it with 'fine-tune'.",
                param=param,
                code="invalid_purpose",
            )
        if file["status"] == "error":
            raise Invalid(f"{param}: {file['status_details']}", param=param, code="invalid_file")

    async def cancel(self, tenant_id: str, job_id: str, where: Mapping[str, str]) -> Job:
        """End a job, if it meets the conditions of `where`."""
        await self._jobs.get(tenant_id, job_id, where)
        job = await self._jobs.update(tenant_id, job_id, lambda it: it.cancel(now()))
        await self._say(job, "cancelled", "The job was cancelled.", level="warn")
        return job

    async def pause(self, tenant_id: str, job_id: str) -> Job:
        """Halt a job."""
        job = await self._jobs.update(tenant_id, job_id, lambda it: it.pause(now()))
        await self._say(job, f"paused-{job.version}", "The job is paused; its progress is kept.")
        return job

    async def resume(self, tenant_id: str, job_id: str) -> Job:
        """Let a job go on."""
        job = await self._jobs.update(tenant_id, job_id, lambda it: it.resume(now()))
        await self._say(job, f"resumed-{job.version}", "The job was taken up again.")
        return job


class Datasets:
    """Brings jobs and their data together."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def arrive(self, event: DatasetPrepared | DatasetRejected) -> None:
        """A file became a dataset, or will never: the jobs that wait for it go on, or end."""
        if event.file_id is None:
            return
        await self._jobs.learn(event)
        for job in await self._jobs.waiting_for(event.tenant_id, event.file_id):
            await self.advance(job)

    async def leave(self, event: DatasetDeleted) -> None:
        """Rows are deleted: no job waits for them or is trained on them any longer."""
        if event.file_id is None:
            return
        await self._jobs.forget(event)
        for job in await self._jobs.waiting_for(event.tenant_id, event.file_id):
            await self.advance(job)
        failure = Failure(code="file_deleted", message=FILE_DELETED)
        for job in await self._jobs.resting_on(event.tenant_id, event.dataset_id):
            left = await self._jobs.update(
                job.tenant_id, job.id, lambda it: it.lose_rows(event.dataset_id, failure, now())
            )
            if left.error == failure:
                await self._jobs.tell(left, "failed", failure.message, level="error")

    async def begin(self, job: Job) -> Job:
        """Say that a job was accepted, and queue it if its data is there; doing it again changes nothing."""
        if not await self._jobs.told(job, "validating"):
            await self._jobs.tell(job, "created", f"Created fine-tuning job: {job.id}")
            await self._jobs.tell(job, "validating", f"Validating training file: {job.training_file}")
        return await self.advance(job)

    async def advance(self, job: Job) -> Job:
        """Queue a job if all of its data is there; fail it if some never will be."""
        if job.dataset is not None or job.ended:
            return job
        training = await self._jobs.dataset(job.tenant_id, job.training_file)
        validation = (
            await self._jobs.dataset(job.tenant_id, job.validation_file) if job.validation_file is not None else None
        )
        for dataset, param in ((training, "training_file"), (validation, "validation_file")):
            if isinstance(dataset, DatasetRejected):
                return await self._fail(job, Failure(code=f"invalid_{param}", message=dataset.message, param=param))
        if not isinstance(training, DatasetPrepared) or (job.validation_file and validation is None):
            return job
        if training.rows.total < FEWEST_TRAINING_ROWS:
            message = (
                f"training_file: {training.rows.total} different rows are too few to learn and to test from; at least "
                f"{FEWEST_TRAINING_ROWS}."
            )
            failure = Failure(code="invalid_training_file", message=message, param="training_file")
            return await self._fail(job, failure)
        if isinstance(validation, DatasetPrepared) and _same_rows(training, validation):
            failure = Failure(code="invalid_validation_file", message=SAME_ROWS, param="validation_file")
            return await self._fail(job, failure)
        try:
            resolved = resolve_hyperparameters(training.rows.train, job.requested)
        except Invalid as error:
            return await self._fail(
                job, Failure(code="invalid_hyperparameters", message=error.message, param=error.param)
            )
        chosen: dict[str, int | float | str] = {
            "n_epochs": resolved.n_epochs,
            "batch_size": resolved.batch_size,
            "learning_rate_multiplier": resolved.learning_rate_multiplier,
        }
        if resolved.early_stop_patience:
            chosen["early_stop_patience"] = resolved.early_stop_patience
        prepared = validation if isinstance(validation, DatasetPrepared) else None
        job = await self._jobs.update(job.tenant_id, job.id, lambda it: it.enqueue(training, prepared, chosen, now()))
        await self._jobs.tell(job, "split", _split_line(training, prepared))
        await self._jobs.tell(job, "queued", f"Files validated, the job is queued with {_chosen_line(chosen)}.")
        return job

    async def _fail(self, job: Job, failure: Failure) -> Job:
        job = await self._jobs.update(job.tenant_id, job.id, lambda it: it.fail(failure, now()))
        await self._jobs.tell(job, "failed", failure.message, level="error")
        return job


def _same_rows(one: DatasetPrepared, other: DatasetPrepared) -> bool:
    """Whether two files hold the same rows: they are then split alike."""
    parts = [[of.train.sha256, of.validation.sha256, of.heldout.sha256] for of in (one, other)]
    return parts[0] == parts[1]


def _split_line(training: DatasetPrepared, validation: DatasetPrepared | None) -> str:
    rows = training.rows
    if validation is None:
        return (
            f"No validation file was given: of {rows.total} rows, {rows.validation} were held out for validation and "
            f"{rows.heldout} for the evaluation; {rows.train} are trained on."
        )
    return f"Of {rows.total} rows, {rows.heldout} were held out for the evaluation; {rows.train} are trained on."


def _chosen_line(chosen: dict[str, int | float | str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in chosen.items())


class TuneOnUpload:
    """Asks for a fine-tune by itself when data arrives and the tenant's policy says so."""

    def __init__(self, requests: Requests, accounts: Peer, default_base: str) -> None:
        self._requests = requests
        self._accounts = accounts
        self._default_base = default_base

    async def consider(self, dataset: DatasetPrepared) -> Job | None:
        """Make the dataset's job if it was uploaded as `user_data`, is not deleted since, and the policy allows it."""
        if dataset.purpose != "user_data" or dataset.file_id is None:
            return None
        of_tenant = {"tenant_id": dataset.tenant_id}
        tenant = await self._accounts.read(TenantFacts, "/internal/tenants/{}", dataset.tenant_id, **of_tenant)
        if not tenant.policy.tune_on_upload:
            return None
        if not await self._requests.has_file(dataset.tenant_id, dataset.file_id):
            return None
        base = tenant.policy.base_model or self._default_base
        return await self._requests.create_for(dataset, base, tenant.slug)


class Outcomes:
    """Follows what becomes of a job's model: what it waits for, and how the gate decided."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def waits(self, event: ModelWaiting) -> None:
        """The model waits for something else than before, or for a new reason: the job and its events say so."""
        job = await self._change(event.tenant_id, event.job_id, lambda it: it.wait(event, now()))
        if job and job.state == "evaluating" and job.gate.revision == event.revision:
            level = "warn" if event.reason and event.waiting_for != "approval" else "info"
            await self._jobs.tell(job, f"waits-{event.revision}", waiting_line(job), level=level)

    async def promoted(self, event: ModelPromoted) -> None:
        """The model answers: the job has succeeded."""
        job = await self._change(event.tenant_id, event.job_id, lambda it: it.succeed(event.model_id, now()))
        if job and job.state == "succeeded":
            await self._jobs.tell(job, "answers", f"New fine-tuned model created: {event.model_id}")
            await self._jobs.tell(job, "ended", "The job has successfully completed")

    async def rejected(self, event: ModelRejected) -> None:
        """The gate refused, or the model was taken back: the job has failed, and says why."""
        failure = Failure(code=event.code, message=event.reason)
        job = await self._change(event.tenant_id, event.job_id, lambda it: it.fail(failure, now()))
        if job and job.state == "failed":
            await self._jobs.tell(job, "failed", f"The model was not let through: {event.reason}", level="error")

    async def deleted(self, event: ModelDeleted) -> None:
        """The model is taken back: its adapter's files go."""
        await self._change(event.tenant_id, event.job_id, Job.discard_adapter)

    async def _change(self, tenant_id: str, job_id: str, change: Any) -> Job | None:
        try:
            return await self._jobs.update(tenant_id, job_id, change)
        except (NotFound, Conflict):
            job = await self._jobs.find(tenant_id, job_id)
            if job is not None and not job.ended:
                raise
            return job
