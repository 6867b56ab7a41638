"""One training process: started, followed, stopped when told to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from chassis.crash import crash_point
from chassis.errors import Conflict, NotFound, SartorError
from chassis.exhaustion import Exhausted, exhaustion_named, raise_for_exit
from chassis.ids import now
from stores.mongo import PyMongoError
from trainer.domain import Job
from trainer.job_objects import JobObjects
from trainer.run.config import EXIT_STOPPED, FailedForGood, stored_mark
from trainer.run.fork_server import ForkServer
from trainer.run.reports import (
    CheckpointSaved,
    Finished,
    Reason,
    Report,
    RunFailed,
    Started,
    Step,
    Validation,
    read_report,
)
from trainer.settings import Settings
from trainer.store import Jobs
from work import Held

log = structlog.get_logger()

WATCH_SECONDS = 1.0
STOP_SECONDS = 15.0
"""Until a run that was told to stop has saved itself: it gives way to others, so a step may take long."""
GO_ON_LATER = ("paused", "queued")
"""States of a job that was halted under a worker's hands and may be trained on: its run saves itself before it ends."""


class Halted(Exception):
    """The run stopped because its owner paused or cancelled the job, or another worker holds it."""


class Hung(SartorError):
    """The run said nothing for too long."""


class TrainingProcess:
    """Follows one training process: reads its progress, stores its checkpoints, stops it when told to.

    Args:
        jobs: told of its progress.
        objects: where its checkpoints go.
        fork_server: starts it.
        job: the job, as claimed.
        folder: the run's folder, with `run.json`.
        held: its lease, told how far it got.
        settings: how long it may say nothing, and how often it saves.
    """

    def __init__(
        self,
        jobs: Jobs,
        objects: JobObjects,
        fork_server: ForkServer,
        job: Job,
        folder: Path,
        held: Held[Job],
        settings: Settings,
    ) -> None:
        self._jobs = jobs
        self._objects = objects
        self._fork_server = fork_server
        self._job = job
        self._folder = folder
        self._held = held
        self._stall_seconds = settings.trainer_stall_seconds
        self._save_every_steps = settings.trainer_save_every_steps
        self._metrics: dict[str, float] = {}
        self._first_step: int | None = None
        self._failure: FailedForGood | None = None
        self._halted: str | None = None
        self._finished: Finished | None = None

    async def start(self) -> int:
        """Start it, in a process group of its own; returns the group."""
        self._process = await self._fork_server.start(self._folder)
        self._began = time.monotonic()
        return self._process.pid

    async def end(self) -> None:
        """Kill whatever still runs of it."""
        self._process.kill()
        await self._process.wait()

    async def follow(self) -> Finished:
        """Until the process ends; one that was done before it could stop for others is done.

        Returns:
            Its last report.

        Raises:
            Halted: paused, cancelled, claimed by another worker, or stopped for others.
            FailedForGood: the run gave a reason that is final.
            Hung: it says nothing any more.
            Exhausted: the machine lacks what it needs.
            RuntimeError: it died without one.
        """
        watch = asyncio.create_task(self._watch())
        errors = asyncio.create_task(self._errors())
        try:
            async for report in self._progress():
                await self._take(report)
        except asyncio.CancelledError:
            await asyncio.shield(self._stop_with_checkpoint())
            raise
        finally:
            watch.cancel()
        code = await self._process.wait()
        if self._halted == "queued" and code == 0 and self._finished is not None:
            return self._finished
        if self._halted:
            raise Halted(self._halted)
        if self._failure is not None:
            raise self._failure
        if code == EXIT_STOPPED:
            raise Halted("stopped")
        raise_for_exit(code)
        if code != 0 or self._finished is None:
            raise RuntimeError(f"the training process ended with {code}: {await errors}")
        return self._finished

    async def _progress(self) -> AsyncIterator[Report]:
        line = b"\n"
        while line:
            try:
                async with asyncio.timeout(self._stall_seconds):
                    line = await self._process.stdout.readline()
            except TimeoutError as error:
                raise Hung(f"The training hung: it reported nothing for {self._stall_seconds:.0f} s.") from error
            if line.startswith(b"{"):
                yield read_report(line)

    async def _errors(self) -> str:
        return (await self._process.stderr.read())[-2000:].decode(errors="replace")

    async def _take(self, report: Report) -> None:
        """Keep a report; one that cannot be kept now must not end a healthy run, as a later one says more.

        Raises:
            Conflict: the job is over, or another worker holds it.
            Exhausted: the run waits for a mark that cannot be made.
        """
        try:
            await self._keep(report)
        except Exhausted:
            raise
        except (SartorError, PyMongoError, OSError) as error:
            if isinstance(error, Conflict) and error.code != "stale_write":
                raise
            log.warning("report_not_kept", report=report.type, error=f"{type(error).__name__}: {error}")

    async def _keep(self, report: Report) -> None:
        if isinstance(report, Started):
            await self._tell_start(report)
        elif isinstance(report, Step):
            await self._step(report)
        elif isinstance(report, Validation):
            self._metrics |= report.numbers
            message = f"Step {report.step}: validation loss={report.metrics['valid_loss']:.4f}"
            await self._jobs.tell(self._job, f"validation-{report.step}", message, data=report.numbers)
        elif isinstance(report, CheckpointSaved):
            await self._keep_checkpoint(self._folder / report.path, report.step, report.total_steps)
        elif isinstance(report, RunFailed):
            if report.permanent:
                self._failure = FailedForGood(report.code, report.message)
        else:
            self._finished = report
            if report.stopped_early:
                message = "Training stopped early: the validation loss kept rising; the best epoch is kept."
                await self._jobs.tell(self._job, "stopped-early", message)

    async def _tell_start(self, report: Started) -> None:
        job, of = self._job, f"{report.rows.used} {report.unit}"
        message = f"Training started on {of}."
        if job.checkpoint is not None:
            message = f"Training resumed from step {job.checkpoint.step} (attempt {job.lease.fence})."
        elif job.lease.fence > 1:
            message = f"Training started again on {of} (attempt {job.lease.fence})."
        await self._jobs.tell(job, f"started-{job.lease.fence}", message)
        if report.note:
            await self._jobs.tell(job, "note", report.note)
        why: dict[Reason, str] = {
            "too_long": f"they are longer than {report.max_length} tokens",
            "unweighted": "every answer in them has the weight 0 and there is nothing to learn",
            "repeated": "their text stands in the file already",
        }
        for kind, whose, rows in (
            ("rows", "Rows", report.rows),
            ("validation_rows", "Validation rows", report.validation_rows),
        ):
            for reason, left_out in rows.left_out.items():
                if left_out:
                    message = f"{whose} left out because {why[reason]}: {left_out} of {rows.all}."
                    await self._jobs.tell(job, f"{kind}-{reason}", message, level="warn")

    async def _keep_checkpoint(self, path: Path, step: int, total_steps: int) -> None:
        """Upload it, point the job at it, remove older ones; the run waits for the first two and goes on in any case.

        A run that has at most one save interval left is done sooner than it would be gone on with: it keeps its place.

        Raises:
            Conflict: the job is over, or another worker holds it; nothing points at what was uploaded.
        """
        try:
            checkpoint = await self._objects.store_checkpoint(self._job, path, step)
            crash_point("trainer.checkpoint_stored")
            job = await self._jobs.write(self._job, lambda it: it.record_checkpoint(checkpoint))
            await self._held.progress(step)
        finally:
            with exhaustion_named():
                stored_mark(path).touch()
        crash_point("trainer.checkpoint_saved")
        await self._jobs.list_checkpoint(self._job, step, self._metrics)
        await self._objects.delete_older_checkpoints(job)
        if total_steps - step > self._save_every_steps and job.state == "running" and await self._held.others_wait():
            job = await self._jobs.write(job, lambda it: it.give_place(now()))
            if job.state == "queued":
                message = (
                    "Others wait for a training worker: the job gives its place, and goes on from here in its turn."
                )
                await self._jobs.tell(job, f"gave-place-{step}", message)

    async def _step(self, report: Step) -> None:
        step, total = report.step, report.total_steps
        self._metrics |= report.numbers
        if self._first_step is None:
            self._first_step, self._began = step, time.monotonic()
        elif step % 10 == 0:
            a_step = (time.monotonic() - self._began) / (step - self._first_step)
            end = now() + round((total - step) * a_step)
            with contextlib.suppress(NotFound):
                await self._jobs.write(self._job, lambda it: it.expect_end(end))
        message = f"Step {step}/{total}: training loss={report.train_loss:.4f}"
        await self._jobs.tell(self._job, f"step-{step}", message, data=report.numbers)

    async def _watch(self) -> None:
        """Stop the process when the job's owner, or another worker, says so."""
        terminated_at: float | None = None
        while self._halted is None or self._halted in GO_ON_LATER:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                self._halted = await self._reason_to_halt() or self._halted
            except PyMongoError as error:  # asked again; should it last, the heartbeat ends the run with the lease
                log.warning("job_not_watched", error=f"{type(error).__name__}: {error}")
                continue
            if self._halted in GO_ON_LATER and terminated_at is None:
                terminated_at = time.monotonic()
                self._process.terminate()
            elif terminated_at is not None and time.monotonic() - terminated_at > STOP_SECONDS:
                self._process.kill()
        self._process.kill()

    async def _reason_to_halt(self) -> str | None:
        try:
            job = await self._jobs.get(self._job.tenant_id, self._job.id)
        except NotFound:
            return "the job is gone"
        if job.lease.fence != self._job.lease.fence:
            return "another worker holds the job"
        return job.state if job.state != "running" else None

    async def _stop_with_checkpoint(self) -> None:
        """The service stops: let the run save itself, and keep that."""
        try:
            self._process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                async for report in self._progress():
                    await self._take(report)
        except Exception as error:  # nothing may take the place of the cancellation that led here
            log.warning("stopped_without_checkpoint", error=f"{type(error).__name__}: {error}")
