"""What the trainer does besides training: takes requests, and makes some by itself."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import structlog
from pydantic import JsonValue

from chassis.auth import Principal
from chassis.errors import Invalid, NotFound, RateLimited, SartorError
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from chassis.peers import Peer
from chassis.text import quoted
from schemas import DatasetPrepared
from schemas.artifacts import BaseModelSpec
from schemas.http.accounts import TenantFacts
from schemas.http.registry import PROVIDER_MODEL
from stores.mongo import PyMongoError, Query
from trainer.domain import Failure, Job, Trigger
from trainer.job_data import SAME_ROWS, JobData
from trainer.run.hyperparameters import resolve
from trainer.run.methods import DEFAULT, Source, method_of
from trainer.store import Jobs

log = structlog.get_logger()

MOST_SEED = 2**31

ANY_NUMBER = 1000
"""Of examples, while it is not known: what is given is checked, and what is "auto" is chosen later."""

PURPOSES: dict[Source, tuple[str, ...]] = {
    "answers": ("fine-tune", "user_data"),
    "text": ("assistants", "user_data"),
}
"""What a file may have been uploaded for, to learn from it."""

WANTED: dict[Source, str] = {
    "answers": "'fine-tune'",
    "text": "'assistants' (a document) or 'user_data' (rows of the one field 'text')",
}
"""How to upload it instead."""


@dataclass(frozen=True)
class Asked:
    """A fine-tune as asked for."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str = ""
    seed: int | None = None
    metadata: dict[str, str] | None = None
    method: str = DEFAULT
    hyperparameters: dict[str, JsonValue] = field(default_factory=dict)


class Requests:
    """Takes fine-tunes in and lets their owners steer them.

    Args:
        jobs: where they are kept.
        data: brings them their data.
        ingest: asked whether a file is there.
        registry: asked whether a base model is there.
        open_jobs: most jobs of a tenant that are not over.
    """

    def __init__(self, jobs: Jobs, data: JobData, ingest: Peer, registry: Peer, open_jobs: int) -> None:
        self._jobs = jobs
        self._data = data
        self._ingest = ingest
        self._registry = registry
        self._open_jobs = open_jobs

    async def create(self, principal: Principal, asked: Asked) -> Job:
        """Make a job that waits for its data, and queue it if the data is there.

        Raises:
            Invalid: unknown base model or method, unusable file, or bad hyperparameters.
            NotFound: no such file of this tenant.
            RateLimited: too many open jobs.
        """
        tenant_id = principal.tenant_id
        method = method_of(asked.method)
        resolve(method.hyperparameters, ANY_NUMBER, asked.hyperparameters)
        self._data.check(asked.hyperparameters)
        await self._check_base(tenant_id, asked.model)
        await self._check_file(principal, asked.training_file, "training_file", method.source)
        if asked.validation_file and method.source == "text":
            message = f"validation_file: '{method.name}' holds out a part of the training file itself. Leave it out."
            raise Invalid(message, param="validation_file")
        if asked.validation_file == asked.training_file:
            raise Invalid(SAME_ROWS, param="validation_file", code="same_file")
        if asked.validation_file:
            await self._check_file(principal, asked.validation_file, "validation_file", method.source)
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
            method=asked.method,
            requested=asked.hyperparameters,
        )
        return await self._add(job)

    async def create_for(self, prepared: DatasetPrepared, base_model: str, organization: str) -> Job:
        """The automatic job of a dataset: one, however often its event comes; failed if there is no such base model."""
        trigger: Trigger = "labels" if prepared.project_id else "upload"
        job = Job(
            id=derived_id("ftjob-", prepared.dataset.dataset_id),
            tenant_id=prepared.tenant_id,
            created_at=now(),
            owner=prepared.owner,
            organization=organization,
            base_model=base_model,
            training_file=str(prepared.file_id),
            seed=int(derived_id("", prepared.dataset.dataset_id)[:7], 16),
            trigger=trigger,
        )
        try:
            await self._check_base(prepared.tenant_id, base_model)
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
            return await self._data.begin(job)
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

    async def _check_file(self, principal: Principal, file_id: str, param: str, source: Source) -> None:
        try:
            file = await self._ingest.get("/v1/files/{}", file_id, tenant_id=principal.tenant_id, user=principal)
        except NotFound as error:
            raise NotFound(f"{param}: no such file '{file_id}'.", param=param, code="file_not_found") from error
        if file["purpose"] not in PURPOSES[source]:
            raise Invalid(
                f"{param}: file '{file_id}' has the purpose '{file['purpose']}'; upload it with {WANTED[source]}.",
                param=param,
                code="invalid_purpose",
            )
        if file["status"] == "error":
            raise Invalid(f"{param}: {file['status_details']}", param=param, code="invalid_file")

    async def cancel(self, tenant_id: str, job_id: str, where: Query) -> Job:
        """End a job, if it meets the conditions of `where`."""
        before = await self._jobs.get(tenant_id, job_id, where)
        job = await self._jobs.update(tenant_id, job_id, lambda it: it.cancel(now()))
        goes = f" Its model {before.fine_tuned_model} goes too and answers no more." if before.fine_tuned_model else ""
        await self._say(job, "cancelled", f"The job was cancelled.{goes}", level="warn")
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
        tenant_id = dataset.tenant_id
        tenant = await self._accounts.read(TenantFacts, "/internal/tenants/{}", tenant_id, tenant_id=tenant_id)
        if not tenant.policy.tune_on_upload:
            return None
        if not await self._requests.has_file(dataset.tenant_id, dataset.file_id):
            return None
        base = tenant.policy.base_model or self._default_base
        return await self._requests.create_for(dataset, base, tenant.slug)
