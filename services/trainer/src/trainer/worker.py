"""Trains one job at a time: under a lease, in a subprocess, with checkpoints that another worker can go on from."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog

from chassis.errors import Conflict, NotFound, SartorError
from chassis.ids import now
from eventbus.heartbeat import Heartbeat
from schemas import ObjectRef
from stores.objects import Objects
from trainer.domain import Adapter, Checkpoint, Failure, Job
from trainer.hyperparameters import Hyperparameters
from trainer.settings import Settings
from trainer.store import Jobs
from trainer.use_cases import Datasets

log = structlog.get_logger()

IDLE_SECONDS = 1.0
WATCH_SECONDS = 1.0
RETRY_SECONDS = 10.0
SWEEP_SECONDS = 15.0
STOP_SECONDS = 10.0
EXIT_STOPPED = 75
MANIFEST = "manifest.json"
LOCK = ".held"
MOST_CLAIMS = 20


class FailedForGood(Exception):
    """The run says that another attempt would fail in the same way."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Halted(Exception):
    """The run stopped because its owner paused or cancelled the job, or another worker holds it."""


class Worker:
    """Claims jobs, fairly between tenants, and sees each through to a stored adapter.

    Args:
        jobs: where jobs are kept.
        objects: where datasets, checkpoints and adapters lie.
        settings: lease, limits and folders.
        owner: this replica's name in the lease.
    """

    def __init__(self, jobs: Jobs, objects: Objects, settings: Settings, owner: str) -> None:
        self.jobs = jobs
        self._objects = objects
        self._settings = settings
        self._owner = owner

    async def sweep(self) -> None:
        """Bring jobs on whose request ended between being stored and meeting its data."""
        while True:
            async for job in self.jobs.jobs.for_service({"state": "waiting_for_dataset"}):
                await Datasets(self.jobs).advance(job)
            await asyncio.sleep(SWEEP_SECONDS)

    async def run(self) -> None:
        """Work until cancelled."""
        self._sweep_work_dir()
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
        log.info("attempt_started", fence=fence)
        try:
            job = await self.jobs.jobs.update(job.tenant_id, job.id, Job.start, fence=fence)
            with self._folder(job) as folder:
                adapter = await self._attempt(job, folder)
            job = await self.jobs.jobs.update(job.tenant_id, job.id, lambda it: it.train(adapter), fence=fence)
            await self.jobs.tell(job, "trained", "Training is over; testing the model on held-out rows.")
            log.info("attempt_succeeded", adapter_id=adapter.adapter_id)
        except Halted as halted:
            log.info("attempt_halted", reason=str(halted))
        except FailedForGood as error:
            if error.failure.code == "checkpoint_corrupt":
                await self._start_over(job, error.failure)
                return
            await self._fail(job, error.failure)
        except Conflict as error:
            log.warning("attempt_superseded", error=error.message)
            return
        except asyncio.CancelledError:
            await asyncio.shield(self.jobs.jobs.leases.release(job.id, fence))
            raise
        except Exception as error:  # the boundary of an attempt: count it and try again, or give up with the reason
            await self._retry(job, error)
            return
        await self.jobs.jobs.leases.release(job.id, fence)

    async def _retry(self, job: Job, error: Exception) -> None:
        log.warning("attempt_failed", exc_info=error)
        fence = job.lease.fence
        with contextlib.suppress(Conflict):
            job = await self.jobs.jobs.update(job.tenant_id, job.id, Job.count_failure, fence=fence)
            if job.failures >= self._settings.trainer_attempts:
                reason = error.message if isinstance(error, SartorError) else "The training process kept dying."
                message = f"{reason} After {job.failures} attempts the job was given up; start it again."
                await self._fail(job, Failure(code="training_failed", message=message))
                return
            key = f"attempt-{fence}-failed"
            await self.jobs.tell(job, key, "An attempt failed; trying again from the last checkpoint.", level="warn")
            await self.jobs.jobs.leases.delay(job.id, fence, RETRY_SECONDS)

    async def _start_over(self, job: Job, failure: Failure) -> None:
        fence = job.lease.fence
        await self.jobs.jobs.update(job.tenant_id, job.id, Job.drop_checkpoint, fence=fence)
        await self.jobs.tell(job, f"attempt-{fence}-failed", f"{failure.message} Starting over.", level="warn")
        await self.jobs.jobs.leases.release(job.id, fence)

    async def _fail(self, job: Job, failure: Failure) -> None:
        fence = job.lease.fence
        job = await self.jobs.jobs.update(job.tenant_id, job.id, lambda it: it.fail(failure, now()), fence=fence)
        await self.jobs.tell(job, "failed", failure.message, level="error")

    async def _attempt(self, job: Job, folder: Path) -> Adapter:
        """Prepare the run's folder, train, and store what it made."""
        if job.lease.fence > MOST_CLAIMS:
            message = f"{MOST_CLAIMS} workers ended while they trained this job; it was given up."
            raise FailedForGood(Failure(code="training_failed", message=message))
        config = await self._prepare(job, folder)
        await self.jobs.jobs.leases.renew(job.id, job.lease.fence, self._settings.trainer_lease_seconds)
        await self._tell_start(job)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trainer.lora",
            str(folder),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            limit=2**20,
            start_new_session=True,
        )
        run = _Run(self, job, folder, process)
        began = time.monotonic()
        try:
            async with Heartbeat(
                self._settings,
                service="trainer",
                collection=self.jobs.jobs.collection.name,
                document_id=job.id,
                fence=job.lease.fence,
                lease_seconds=self._settings.trainer_lease_seconds,
                group=process.pid,
            ):
                await run.follow()
                seconds = time.monotonic() - began
                return await self._store_adapter(job, folder / "adapter", config["base_digest"], run.last, seconds)
        finally:
            _kill_group(process)
            await process.wait()

    async def _tell_start(self, job: Job) -> None:
        assert job.dataset is not None
        rows = job.dataset.rows.train
        message = f"Training started on {rows} rows."
        if job.checkpoint is not None:
            message = f"Training resumed from step {job.checkpoint.step} (attempt {job.lease.fence})."
        elif job.lease.fence > 1:
            message = f"Training started again on {rows} rows (attempt {job.lease.fence})."
        await self.jobs.tell(job, f"started-{job.lease.fence}", message)

    async def _prepare(self, job: Job, folder: Path) -> dict[str, Any]:
        """Write everything the run reads: rows, checkpoint, `run.json`."""
        assert job.dataset is not None
        base_dir = self._settings.models_dir / job.base_model
        try:
            base = json.loads((base_dir / "base.json").read_text())
        except FileNotFoundError as error:
            message = f"The base model '{job.base_model}' is not on this worker ({base_dir})."
            raise FailedForGood(Failure(code="base_model_missing", message=message)) from error
        await self._objects.download(job.dataset.train, folder / "train.jsonl")
        await self._write_validation(job, folder / "validation.jsonl")
        resume_from = await self._fetch_checkpoint(job, folder / "resume")
        chosen = job.hyperparameters
        rates = Hyperparameters(
            int(chosen["n_epochs"]), int(chosen["batch_size"]), float(chosen["learning_rate_multiplier"])
        )
        config = {
            "base_dir": str(base_dir.absolute()),
            "base_id": base["id"],
            "base_digest": base["digest"],
            "train_path": str(folder / "train.jsonl"),
            "validation_path": str(folder / "validation.jsonl") if _has_rows(folder / "validation.jsonl") else None,
            "epochs": rates.n_epochs,
            "batch_size": rates.batch_size,
            "learning_rate": rates.learning_rate,
            "seed": job.seed,
            "save_every_steps": self._settings.trainer_save_every_steps,
            "max_length": self._settings.trainer_max_length,
            "resume_from": str(resume_from) if resume_from else None,
            "threads": self._settings.trainer_threads or os.cpu_count() or 1,
            "dataset": {"dataset_id": job.dataset.dataset_id, "manifest_sha256": job.dataset.manifest.sha256},
            "code_version": _code_version(),
            "created_at": job.created_at,
        }
        (folder / "run.json").write_text(json.dumps(config))
        return config

    async def _write_validation(self, job: Job, path: Path) -> None:
        """The rows of the validation file, all its splits together, or the share ingest held out."""
        assert job.dataset is not None
        parts = [job.dataset.validation]
        if job.validation is not None:
            parts = [job.validation.train, job.validation.validation, job.validation.heldout]
        path.write_bytes(b"".join([await self._objects.get_bytes(part) for part in parts]))

    async def _fetch_checkpoint(self, job: Job, folder: Path) -> Path | None:
        """The job's newest checkpoint, every file verified; None, and a fresh start, when there is none."""
        if job.checkpoint is None:
            return None
        manifest = await self._objects.get_bytes(job.checkpoint.manifest)
        prefix = job.checkpoint.manifest.key.removesuffix(MANIFEST)
        for name, facts in json.loads(manifest)["files"].items():
            ref = ObjectRef(bucket=job.checkpoint.manifest.bucket, key=f"{prefix}{name}", **facts)
            await self._objects.download(ref, folder / name)
        (folder / MANIFEST).write_bytes(manifest)
        return folder

    async def store_checkpoint(self, job: Job, folder: Path, step: int, metrics: dict[str, float]) -> None:
        """Upload a checkpoint, its manifest last, then point the job at it.

        Raises:
            Conflict: another worker holds the job; nothing points at what was uploaded.
        """
        prefix = f"tenants/{job.tenant_id}/jobs/{job.id}/attempt-{job.lease.fence}/checkpoint-{step}"
        checkpoint = Checkpoint(step=step, manifest=await self._upload(folder, prefix))
        await self.jobs.jobs.update(job.tenant_id, job.id, lambda it: it.reach(checkpoint), fence=job.lease.fence)
        await self.jobs.list_checkpoint(job, step, metrics)

    async def _store_adapter(
        self, job: Job, folder: Path, base_digest: str, finished: dict[str, Any], seconds: float
    ) -> Adapter:
        manifest = (folder / MANIFEST).read_bytes()
        adapter_id = f"ad-{hashlib.sha256(manifest).hexdigest()[:24]}"
        stored = await self._upload(folder, f"tenants/{job.tenant_id}/adapters/{adapter_id}")
        metrics = {name: float(value) for name, value in (finished.get("metrics") or {}).items() if value is not None}
        return Adapter(
            adapter_id=adapter_id,
            manifest=stored,
            base_digest=base_digest,
            trained_tokens=int(finished.get("tokens") or 0),
            train_seconds=seconds,
            metrics=metrics,
        )

    async def _upload(self, folder: Path, prefix: str) -> ObjectRef:
        """Upload a folder, its manifest last; returns the manifest's reference."""
        for path in sorted(folder.iterdir()):
            if path.name != MANIFEST:
                await self._objects.put_file(f"{prefix}/{path.name}", path)
        return await self._objects.put_file(f"{prefix}/{MANIFEST}", folder / MANIFEST, "application/json")

    @contextlib.contextmanager
    def _folder(self, job: Job) -> Any:
        """The run's private folder; it holds the user's rows and is gone afterwards."""
        root = self._settings.trainer_work_dir
        if root:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(prefix=f"{job.id}-", dir=root))
        with (folder / LOCK).open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _sweep_work_dir(self) -> None:
        """Remove what killed workers left: the rows are private and nobody comes back for them. Held folders stay."""
        root = self._settings.trainer_work_dir
        if root and root.exists():
            for lock in root.glob(f"ftjob-*/{LOCK}"):
                with lock.open("w") as held, contextlib.suppress(BlockingIOError):
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.parent, ignore_errors=True)


class _Run:
    """Follows one training process: reads its progress, stores its checkpoints, stops it when told to."""

    def __init__(self, worker: Worker, job: Job, folder: Path, process: asyncio.subprocess.Process) -> None:
        self._worker = worker
        self._job = job
        self._folder = folder
        self._process = process
        self._metrics: dict[str, float] = {}
        self._began = time.monotonic()
        self._first_step: int | None = None
        self._failure: Failure | None = None
        self._halted: str | None = None
        self.last: dict[str, Any] = {}

    async def follow(self) -> None:
        """Until the process ends.

        Raises:
            Halted: paused, cancelled, or claimed by another worker.
            FailedForGood: the run gave a reason that is final.
            RuntimeError: it died without one.
        """
        watch = asyncio.create_task(self._watch())
        errors = asyncio.create_task(self._errors())
        try:
            async for event in self._progress():
                await self._take(event)
        except asyncio.CancelledError:
            await asyncio.shield(self._stop_with_checkpoint())
            raise
        finally:
            watch.cancel()
        code = await self._process.wait()
        if self._halted:
            raise Halted(self._halted)
        if self._failure is not None:
            raise FailedForGood(self._failure)
        if code == EXIT_STOPPED:
            raise Halted("stopped")
        if code != 0:
            raise RuntimeError(f"the training process ended with {code}: {await errors}")

    async def _progress(self) -> AsyncIterator[dict[str, Any]]:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{"):
                yield json.loads(line)

    async def _errors(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read())[-2000:].decode(errors="replace")

    async def _take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "step":
            await self._step(event)
        elif kind == "validation":
            self._metrics |= _numbers(event)
            message = f"Step {event['step']}: validation loss={event['valid_loss']:.4f}"
            await self._worker.jobs.tell(self._job, f"validation-{event['step']}", message, data=_numbers(event))
        elif kind == "checkpoint":
            path = Path(event["path"])
            path = path if path.is_absolute() else self._folder / path
            await self._worker.store_checkpoint(self._job, path, event["step"], self._metrics)
        elif kind == "failed" and event["permanent"]:
            self._failure = Failure(code=event["code"], message=event["message"])
        elif kind == "finished":
            self.last = event

    async def _step(self, event: dict[str, Any]) -> None:
        step, total = event["step"], event["total_steps"]
        self._metrics |= _numbers(event)
        if self._first_step is None:
            self._first_step, self._began = step, time.monotonic()
        elif step % 10 == 0:
            a_step = (time.monotonic() - self._began) / (step - self._first_step)
            end = now() + round((total - step) * a_step)
            with contextlib.suppress(NotFound):
                await self._worker.jobs.jobs.update(
                    self._job.tenant_id, self._job.id, lambda it: it.expect_end(end), fence=self._job.lease.fence
                )
        message = f"Step {step}/{total}: training loss={event['train_loss']:.4f}"
        await self._worker.jobs.tell(self._job, f"step-{step}", message, data=_numbers(event))

    async def _watch(self) -> None:
        """Stop the process when the job's owner, or another worker, says so."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                job = await self._worker.jobs.jobs.get(self._job.tenant_id, self._job.id)
            except NotFound:
                self._halted = "the job is gone"
                _kill_group(self._process)
                return
            if job.lease.fence != self._job.lease.fence:
                self._halted = "another worker holds the job"
                _kill_group(self._process)
                return
            if job.ended:
                self._halted = job.state
                _kill_group(self._process)
                return
            if job.state == "paused" and not self._halted:
                self._halted = "paused"
                self._process.terminate()

    async def _stop_with_checkpoint(self) -> None:
        """The service stops: let the run save itself, and keep that."""
        if self._process.returncode is None:
            self._process.terminate()
        with contextlib.suppress(TimeoutError, Conflict):
            async with asyncio.timeout(STOP_SECONDS):
                async for event in self._progress():
                    await self._take(event)


def _environment() -> dict[str, str]:
    """The run's environment: none of this service's credentials."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SARTOR_")}


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _numbers(event: dict[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in event.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "elapsed_s"
    }


def _has_rows(path: Path) -> bool:
    return bool(path.read_bytes().strip())


def _code_version() -> str:
    try:
        return version("sartor-trainer")
    except PackageNotFoundError:
        return "0.1.0"
