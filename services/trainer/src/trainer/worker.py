"""An attempt at a job: in a subprocess, with checkpoints that another worker can go on from, to a stored adapter."""

from __future__ import annotations

import contextlib
import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from chassis.crash import crash_point
from chassis.errors import Conflict, SartorError
from chassis.exhaustion import Exhausted
from chassis.ids import now
from chassis.private_folders import PrivateFolders
from chassis.text import quoted
from schemas.artifacts import BASE_FILE, BaseModelSpec
from trainer.arms.lines import lines_without_adapter, tell_lines
from trainer.domain import Adapter, Failure, Job
from trainer.job_objects import JobObjects
from trainer.run.config import FailedForGood, RunConfig
from trainer.run.fork_server import ForkServer
from trainer.run.hyperparameters import BASE_LEARNING_RATE, OF_ALL_METHODS
from trainer.settings import Settings
from trainer.store import Jobs
from trainer.training_process import Halted, TrainingProcess
from work import End, Failed, GiveUp, Held, Kind, Lost, OutOfAttempts, Policy, PutOff

log = structlog.get_logger()

IDLE_SECONDS = 1.0
RETRY_SECONDS = 10.0

MOST_DEATHS = 20
"""Workers that may die of a job, one after the other and without a checkpoint between, before it is given up."""


def policy(settings: Settings) -> Policy:
    """How long a job is held, and how often it is tried."""
    return Policy(
        lease_seconds=settings.trainer_lease_seconds,
        most_failures=settings.trainer_attempts,
        most_deaths=MOST_DEATHS,
        retry_seconds=RETRY_SECONDS,
        idle_seconds=IDLE_SECONDS,
        slice_seconds=settings.trainer_slice_seconds,
    )


class Training(Kind[Job]):
    """Sees a job through to a stored adapter.

    Args:
        jobs: where jobs are kept.
        objects: where datasets, checkpoints and adapters lie.
        fork_server: starts training processes.
        settings: limits and folders.
    """

    name = "job"

    def __init__(self, jobs: Jobs, objects: JobObjects, fork_server: ForkServer, settings: Settings) -> None:
        self._jobs = jobs
        self._objects = objects
        self._settings = settings
        self._fork_server = fork_server
        self._folders = PrivateFolders(settings.trainer_work_dir, "trainer")

    async def prepare(self) -> None:
        """Remove what killed workers left."""
        self._folders.sweep()

    async def attempt(self, one: Job, held: Held[Job]) -> None:
        """Train, from the last checkpoint if there is one, and hand the adapter over.

        Raises:
            End: the job was halted, or its run cannot succeed.
        """
        log.info("attempt_started", fence=one.lease.fence)
        crash_point("trainer.claimed")
        job = await self._jobs.write(one, lambda it: it.start(now()))
        crash_point("trainer.started")
        try:
            with self._folders.folder(job.id) as folder:
                adapter = await self._train(job, folder, held)
        except Halted as halted:
            raise PutOff(0, str(halted)) from halted
        except FailedForGood as error:
            if error.code == "checkpoint_corrupt":
                await self._drop_checkpoint(job, str(error))
                raise PutOff(0, str(error)) from error
            raise GiveUp(str(error), error.code) from error
        crash_point("trainer.adapter_stored")
        if (await self._jobs.get(job.tenant_id, job.id)).may_be_handed_over(job.lease.fence):
            await self._jobs.tell(job, "trained", "Training is over; testing the model on held-out rows.")
        try:
            await self._jobs.write(job, lambda it: it.finish_training(adapter, now()))
        except Conflict:
            await self._jobs.update(job.tenant_id, job.id, lambda it: it.leave_adapter(adapter))
            raise
        crash_point("trainer.job_saved")
        log.info("attempt_succeeded", adapter_id=adapter.adapter_id)

    async def ended(self, one: Job, end: End) -> None:
        """Say what an attempt came to, and fail the job that is given up: last, as nobody comes to it again then."""
        if isinstance(end, GiveUp):
            failure = Failure(code=end.code or "training_failed", message=_reason(end))
            expected = await self._jobs.get(one.tenant_id, one.id)
            if expected.may_be_given_up(one.lease.fence):
                expected.fail_training(failure, now())
                await tell_lines(self._jobs, expected, lines_without_adapter(expected, failure.message))
            left = await self._jobs.write(one, lambda it: it.fail_training(failure, now()))
            if left.setback == failure:  # its arm may have been decided meanwhile
                await tell_lines(self._jobs, left, lines_without_adapter(left, failure.message))
        elif isinstance(end, Failed):
            key = f"attempt-{one.lease.fence}-failed"
            await self._jobs.tell(one, key, "An attempt failed; trying again from the last checkpoint.", level="warn")
        elif isinstance(end, PutOff) and end.cause is not None:
            what = "The machine is out of resources" if isinstance(end.cause, Exhausted) else "A part of Sartor is away"
            job = await self._jobs.get(one.tenant_id, one.id)
            step = job.checkpoint.step if job.checkpoint else 0
            if job.state == "running":  # however often, one line
                message = f"{what}; trying again from the last checkpoint."
                await self._jobs.tell(job, f"put-off-at-{step}", message, level="warn")

    async def _drop_checkpoint(self, job: Job, reason: str) -> None:
        job = await self._jobs.write(job, Job.drop_checkpoint)
        then = f"Going on from step {job.checkpoint.step}." if job.checkpoint else "Starting over."
        await self._jobs.tell(job, f"attempt-{job.lease.fence}-failed", f"{reason} {then}", level="warn")

    async def _train(self, job: Job, folder: Path, held: Held[Job]) -> Adapter:
        """Prepare the run's folder, train, and store what it made."""
        process = TrainingProcess(self._jobs, self._objects, self._fork_server, job, folder, held, self._settings)
        config = await held.while_ours(self._prepare(job, folder))
        async with contextlib.AsyncExitStack() as whatever_comes:
            group = await process.start()
            whatever_comes.push_async_callback(process.end)
            if not await held.renew():
                raise Lost("another worker claimed it while its run was prepared, or it was halted")
            began = time.monotonic()
            async with held.heartbeat(self._settings, "trainer", group):
                finished = await process.follow()
                crash_point("trainer.trained")
                return await self._objects.store_adapter(
                    job, folder / "adapter", config.base_digest, finished, time.monotonic() - began
                )

    async def _prepare(self, job: Job, folder: Path) -> RunConfig:
        """Write everything the run reads: rows, checkpoint, `run.json`."""
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
            await self._jobs.tell(job, "repeated-in-validation", message, level="warn")
        resume_from = await self._objects.fetch_checkpoint(job, folder / "resume")
        chosen = {name: float(value) for name, value in job.hyperparameters.items()}
        config = RunConfig(
            base_dir=str(base_dir.absolute()),
            base_id=base.id,
            base_digest=base.digest,
            train_path=str(rows.train),
            validation_path=str(rows.validation) if rows.validation else None,
            epochs=int(chosen["n_epochs"]),
            batch_size=int(chosen["batch_size"]),
            learning_rate=BASE_LEARNING_RATE * chosen["learning_rate_multiplier"],
            early_stop_patience=int(chosen.get("early_stop_patience", 0)),
            method=job.method,
            of_method={name: value for name, value in chosen.items() if name not in OF_ALL_METHODS},
            seed=job.seed,
            save_every_steps=self._settings.trainer_save_every_steps,
            max_length=self._settings.trainer_max_length,
            resume_from=str(resume_from) if resume_from else None,
            threads=self._settings.trainer_threads or os.cpu_count() or 1,
            dataset=data_of(job),
            code_version=code_version(),
            created_at=job.created_at,
            followed=True,
        )
        config.write(folder / "run.json")
        return config


def data_of(job: Job) -> dict[str, str]:
    """What an adapter's manifest says of the data."""
    if job.text is not None:
        return {"file_id": job.text.file_id, "kind": job.text.kind, "sha256": job.text.object.sha256}
    learned = job.learns_from
    return {"dataset_id": learned.dataset_id, "manifest_sha256": learned.manifest_sha256}


def code_version() -> str:
    """Of what trains."""
    try:
        return version("sartor-trainer")
    except PackageNotFoundError:
        return "0.1.0"


def _reason(end: GiveUp) -> str:
    """Why a job is given up, for its owner."""
    if not isinstance(end, OutOfAttempts):
        return end.reason
    if end.deaths:
        return f"{end.deaths} workers in a row died while they trained this job; it was given up."
    last = end.error.message if isinstance(end.error, SartorError) else "Training did not succeed."
    return f"{last} After {end.failures} attempts the job was given up; start it again."
