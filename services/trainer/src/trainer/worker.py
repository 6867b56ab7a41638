"""Trains one job at a time: under a lease, in a subprocess, with checkpoints that another worker can go on from."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from chassis.crash import crash_point
from chassis.errors import Conflict, NotFound, SartorError, Transient
from chassis.exhaustion import EXHAUSTED_SECONDS, Exhausted
from chassis.ids import now
from chassis.private_folders import PrivateFolders
from chassis.text import quoted
from eventbus.heartbeat import Heartbeat
from schemas.artifacts import BASE_FILE, BaseModelSpec
from stores.mongo import PyMongoError
from trainer.domain import Adapter, Failure, Job
from trainer.hyperparameters import Hyperparameters
from trainer.job_objects import JobObjects
from trainer.nursery import Nursery
from trainer.run_config import FailedForGood, RunConfig
from trainer.settings import Settings
from trainer.store import Jobs
from trainer.training_process import Halted, TrainingProcess
from trainer.use_cases import Datasets

log = structlog.get_logger()

IDLE_SECONDS = 1.0
RETRY_SECONDS = 10.0
SWEEP_SECONDS = 15.0
SHARED_SECONDS = 60.0
"""Until it is looked again whether another job makes the same adapter."""

MOST_DEATHS = 20
"""Workers that may die of a job, one after the other and without a checkpoint between, before it is given up."""


class Worker:
    """Claims jobs, fairly between tenants, and sees each through to a stored adapter.

    Args:
        jobs: where jobs are kept.
        objects: where datasets, checkpoints and adapters lie.
        nursery: starts training processes.
        settings: lease, limits and folders.
        owner: this replica's name in the lease.
    """

    def __init__(self, jobs: Jobs, objects: JobObjects, nursery: Nursery, settings: Settings, owner: str) -> None:
        self.jobs = jobs
        self._objects = objects
        self._settings = settings
        self._owner = owner
        self._nursery = nursery
        self._folders = PrivateFolders(settings.trainer_work_dir, "trainer")

    async def sweep(self) -> None:
        """Bring jobs on whose request ended between being stored and meeting its data; delete what others left."""
        while True:
            async for tenant_id, job_id in self.jobs.without_data():
                await self._begin(tenant_id, job_id)
            await self._delete_checkpoints()
            await self._delete_adapters()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _begin(self, tenant_id: str, job_id: str) -> None:
        """Bring one job on; whatever is wrong with it, the sweep goes on with the others."""
        try:
            await Datasets(self.jobs).begin(await self.jobs.jobs.get(tenant_id, job_id))
        except PyMongoError:
            raise  # the others cannot be begun either
        except Exception as error:  # the boundary of one job: an odd document raises anything
            log.warning("job_begins_later", job_id=job_id, error=f"{type(error).__name__}: {error}")

    async def _delete_checkpoints(self) -> None:
        """Of jobs not trained any more; a claim keeps every attempt out, and one that ends half-way is made again."""
        while job := await self.jobs.claim_trained(self._owner, self._settings.trainer_lease_seconds):
            fence = job.lease.fence
            try:
                await self._objects.delete_checkpoints(job)
                await self.jobs.jobs.update(job.tenant_id, job.id, Job.forget_checkpoints, fence=fence)
            except SartorError as error:
                log.warning("checkpoints_not_deleted", job_id=job.id, error=error.message)
                return
            await self.jobs.jobs.leases.release(job.id, fence)

    async def _delete_adapters(self) -> None:
        """Of models that nobody will serve; another job that made the same one keeps its files."""
        while job := await self.jobs.claim_discarded(self._owner, self._settings.trainer_lease_seconds):
            fence = job.lease.fence
            shared = await self.jobs.shares_adapter(job)
            if shared == "perhaps":
                await self.jobs.jobs.leases.delay(job.id, fence, SHARED_SECONDS)
                continue
            try:
                if shared == "no":
                    await self._objects.delete_adapter(job)
                await self.jobs.jobs.update(job.tenant_id, job.id, Job.lose_adapter, fence=fence)
            except SartorError as error:
                log.warning("adapter_not_deleted", job_id=job.id, error=error.message)
                return
            await self.jobs.jobs.leases.release(job.id, fence)

    async def run(self) -> None:
        """Work until cancelled."""
        self._folders.sweep()
        while True:
            job = await self.jobs.claim(self._owner, self._settings.trainer_lease_seconds)
            if job is None:
                await asyncio.sleep(IDLE_SECONDS)
                continue
            with structlog.contextvars.bound_contextvars(tenant_id=job.tenant_id, job_id=job.id):
                await self._see_through(job)

    async def _see_through(self, job: Job) -> None:
        """One attempt at a job; whatever happens, the job is left in a state from which somebody goes on."""
        fence = job.lease.fence
        adapter: Adapter | None = None
        log.info("attempt_started", fence=fence)
        crash_point("trainer.claimed")
        try:
            job = await self.jobs.jobs.update(job.tenant_id, job.id, lambda it: it.start(now()), fence=fence)
            crash_point("trainer.started")
            with self._folders.folder(job.id) as folder:
                adapter = await self._attempt(job, folder)
            crash_point("trainer.adapter_stored")
            made = adapter
            job = await self.jobs.jobs.update(job.tenant_id, job.id, lambda it: it.train(made, now()), fence=fence)
            crash_point("trainer.job_saved")
            await self.jobs.tell(job, "trained", "Training is over; testing the model on held-out rows.")
            log.info("attempt_succeeded", adapter_id=adapter.adapter_id)
        except Halted as halted:
            log.info("attempt_halted", reason=str(halted))
            await self._let_go(job)
            return
        except FailedForGood as error:
            if error.code == "checkpoint_corrupt":
                await self._start_over(job, str(error))
                return
            await self._fail(job, Failure(code=error.code, message=str(error)))
        except Conflict as error:
            log.warning("attempt_superseded", error=error.message)
            if adapter is not None:
                stored = adapter
                await self.jobs.jobs.update(job.tenant_id, job.id, lambda it: it.leave_adapter(stored))
            await self._let_go(job)
            return
        except asyncio.CancelledError:
            try:
                await asyncio.shield(self._let_go(job))
            except Exception as error:  # nothing may take the cancellation's place; the lease runs out by itself
                log.warning("lease_not_released", error=f"{type(error).__name__}: {error}")
            raise
        except Exception as error:  # the boundary of an attempt: count it and try again, or give up with the reason
            await self._retry(job, error)
            return
        await self.jobs.jobs.leases.release(job.id, fence)

    async def _let_go(self, job: Job) -> None:
        """Give the job back as it is, for another attempt or none; no harm where somebody else holds it by now."""
        with contextlib.suppress(Conflict, NotFound):
            await self.jobs.jobs.update(job.tenant_id, job.id, Job.end_attempt, fence=job.lease.fence)
        await self.jobs.jobs.leases.release(job.id, job.lease.fence)

    async def _retry(self, job: Job, error: Exception) -> None:
        log.warning("attempt_failed", exc_info=error)
        fence = job.lease.fence
        with contextlib.suppress(Conflict):
            if isinstance(error, (Transient, PyMongoError)):  # something is away: the job is not at fault
                await self.jobs.jobs.update(job.tenant_id, job.id, Job.end_attempt, fence=fence)
                what = "The machine is out of resources" if isinstance(error, Exhausted) else "A part of Sartor is away"
                message = f"{what}; trying again from the last checkpoint."
                step = job.checkpoint.step if job.checkpoint else 0
                await self.jobs.tell(job, f"put-off-at-{step}", message, level="warn")  # however often, one line
                await self.jobs.jobs.leases.delay(job.id, fence, RETRY_SECONDS)
                if isinstance(error, Exhausted):
                    await asyncio.sleep(EXHAUSTED_SECONDS)  # other workers may have room
                return
            job = await self.jobs.jobs.update(job.tenant_id, job.id, Job.count_failure, fence=fence)
            if job.failures >= self._settings.trainer_attempts:
                reason = error.message if isinstance(error, SartorError) else "The training process kept dying."
                message = f"{reason} After {job.failures} attempts the job was given up; start it again."
                await self._fail(job, Failure(code="training_failed", message=message))
                return
            key = f"attempt-{fence}-failed"
            await self.jobs.tell(job, key, "An attempt failed; trying again from the last checkpoint.", level="warn")
            await self.jobs.jobs.leases.delay(job.id, fence, RETRY_SECONDS)

    async def _start_over(self, job: Job, reason: str) -> None:
        fence = job.lease.fence
        job = await self.jobs.jobs.update(job.tenant_id, job.id, Job.drop_checkpoint, fence=fence)
        then = f"Going on from step {job.checkpoint.step}." if job.checkpoint else "Starting over."
        await self.jobs.tell(job, f"attempt-{fence}-failed", f"{reason} {then}", level="warn")
        await self.jobs.jobs.leases.release(job.id, fence)

    async def _fail(self, job: Job, failure: Failure) -> None:
        fence = job.lease.fence
        job = await self.jobs.jobs.update(job.tenant_id, job.id, lambda it: it.fail(failure, now()), fence=fence)
        await self.jobs.tell(job, "failed", failure.message, level="error")

    async def _attempt(self, job: Job, folder: Path) -> Adapter:
        """Prepare the run's folder, train, and store what it made."""
        if job.unfinished > MOST_DEATHS:
            message = f"{MOST_DEATHS} workers in a row died while they trained this job; it was given up."
            raise FailedForGood("training_failed", message)
        stall = self._settings.trainer_stall_seconds
        process = TrainingProcess(self.jobs, self._objects, self._nursery, job, folder, stall)
        async with contextlib.AsyncExitStack() as whatever_comes:
            async with self._kept(job):
                config = await self._prepare(job, folder)
                group = await process.start()
                whatever_comes.push_async_callback(process.end)
            began = time.monotonic()
            async with Heartbeat(
                self._settings,
                service="trainer",
                collection=self.jobs.jobs.collection.name,
                document_id=job.id,
                fence=job.lease.fence,
                lease_seconds=self._settings.trainer_lease_seconds,
                group=group,
            ):
                await process.follow()
                crash_point("trainer.trained")
                return await self._objects.store_adapter(
                    job, folder / "adapter", config.base_digest, process.last, time.monotonic() - began
                )

    @contextlib.asynccontextmanager
    async def _kept(self, job: Job) -> AsyncIterator[None]:
        """Renew the lease until there is a process that a heartbeat can end.

        Raises:
            Conflict: it was lost; another worker may hold the job.
        """
        seconds = self._settings.trainer_lease_seconds

        async def renew() -> None:
            while True:
                await asyncio.sleep(seconds / 4)
                with contextlib.suppress(PyMongoError):
                    await self.jobs.jobs.leases.renew(job.id, job.lease.fence, seconds)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
        if not await self.jobs.jobs.leases.renew(job.id, job.lease.fence, seconds):
            raise Conflict(f"Job '{job.id}' was claimed by another worker while its run was prepared.")

    async def _prepare(self, job: Job, folder: Path) -> RunConfig:
        """Write everything the run reads: rows, checkpoint, `run.json`."""
        assert job.dataset is not None
        base_dir = self._settings.models_dir / job.base_model
        missing = f"The base model {quoted(job.base_model)} is not on this worker."
        if job.base_model in ("", "..") or Path(job.base_model).name != job.base_model:
            raise FailedForGood("base_model_missing", missing)
        try:
            base = BaseModelSpec.model_validate_json((base_dir / BASE_FILE).read_bytes())
        except (FileNotFoundError, ValueError) as error:
            log.error("base_model_missing", base_model=job.base_model, folder=str(base_dir), error=str(error))
            raise FailedForGood("base_model_missing", missing) from error
        rows = await self._objects.fetch_rows(job, folder)
        if rows.repeated:
            message = f"Validation rows left out because the training file has them too: {rows.repeated}."
            await self.jobs.tell(job, "repeated-in-validation", message, level="warn")
        resume_from = await self._objects.fetch_checkpoint(job, folder / "resume")
        chosen = job.hyperparameters
        rates = Hyperparameters(
            int(chosen["n_epochs"]),
            int(chosen["batch_size"]),
            float(chosen["learning_rate_multiplier"]),
            int(chosen.get("early_stop_patience", 0)),
        )
        config = RunConfig(
            base_dir=str(base_dir.absolute()),
            base_id=base.id,
            base_digest=base.digest,
            train_path=str(rows.train),
            validation_path=str(rows.validation) if rows.validation else None,
            epochs=rates.n_epochs,
            batch_size=rates.batch_size,
            learning_rate=rates.learning_rate,
            early_stop_patience=rates.early_stop_patience,
            seed=job.seed,
            save_every_steps=self._settings.trainer_save_every_steps,
            max_length=self._settings.trainer_max_length,
            resume_from=str(resume_from) if resume_from else None,
            threads=self._settings.trainer_threads or os.cpu_count() or 1,
            dataset={"dataset_id": job.dataset.dataset_id, "manifest_sha256": job.dataset.manifest.sha256},
            code_version=_code_version(),
            created_at=job.created_at,
            followed=True,
        )
        config.write(folder / "run.json")
        return config


def _code_version() -> str:
    try:
        return version("sartor-trainer")
    except PackageNotFoundError:
        return "0.1.0"
