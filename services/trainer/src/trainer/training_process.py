"""One training process: started, followed, stopped when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog

from chassis.errors import Conflict, NotFound
from chassis.ids import now
from stores.mongo import PyMongoError
from trainer.domain import Job
from trainer.job_objects import JobObjects
from trainer.run_config import EXIT_STOPPED, FailedForGood
from trainer.store import Jobs

log = structlog.get_logger()

WATCH_SECONDS = 1.0
STOP_SECONDS = 10.0


class Halted(Exception):
    """The run stopped because its owner paused or cancelled the job, or another worker holds it."""


class TrainingProcess:
    """Follows one training process: reads its progress, stores its checkpoints, stops it when told to.

    Args:
        jobs: told of its progress.
        objects: where its checkpoints go.
        job: the job, as claimed.
        folder: the run's folder, with `run.json`.

    Attributes:
        last: its `finished` event.
    """

    def __init__(self, jobs: Jobs, objects: JobObjects, job: Job, folder: Path) -> None:
        self._jobs = jobs
        self._objects = objects
        self._job = job
        self._folder = folder
        self._metrics: dict[str, float] = {}
        self._first_step: int | None = None
        self._failure: FailedForGood | None = None
        self._halted: str | None = None
        self.last: dict[str, Any] = {}

    async def start(self) -> int:
        """Start it, in a process group of its own; returns the group."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trainer.lora",
            str(self._folder),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            limit=2**20,
            start_new_session=True,
        )
        self._began = time.monotonic()
        return self._process.pid

    async def end(self) -> None:
        """Kill whatever still runs of it."""
        self._kill()
        await self._process.wait()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

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
            raise self._failure
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
            await self._jobs.tell(self._job, f"validation-{event['step']}", message, data=_numbers(event))
        elif kind == "checkpoint":
            path = Path(event["path"])
            path = path if path.is_absolute() else self._folder / path
            await self._keep_checkpoint(path, event["step"])
        elif kind == "failed" and event["permanent"]:
            self._failure = FailedForGood(event["code"], event["message"])
        elif kind == "finished":
            self.last = event

    async def _keep_checkpoint(self, path: Path, step: int) -> None:
        """Upload it, then point the job at it.

        Raises:
            Conflict: another worker holds the job; nothing points at what was uploaded.
        """
        checkpoint = await self._objects.store_checkpoint(self._job, path, step)
        fence = self._job.lease.fence
        await self._jobs.jobs.update(self._job.tenant_id, self._job.id, lambda it: it.reach(checkpoint), fence=fence)
        await self._jobs.list_checkpoint(self._job, step, self._metrics)

    async def _step(self, event: dict[str, Any]) -> None:
        step, total = event["step"], event["total_steps"]
        self._metrics |= _numbers(event)
        if self._first_step is None:
            self._first_step, self._began = step, time.monotonic()
        elif step % 10 == 0:
            a_step = (time.monotonic() - self._began) / (step - self._first_step)
            end = now() + round((total - step) * a_step)
            with contextlib.suppress(NotFound):
                await self._jobs.jobs.update(
                    self._job.tenant_id, self._job.id, lambda it: it.expect_end(end), fence=self._job.lease.fence
                )
        message = f"Step {step}/{total}: training loss={event['train_loss']:.4f}"
        await self._jobs.tell(self._job, f"step-{step}", message, data=_numbers(event))

    async def _watch(self) -> None:
        """Stop the process when the job's owner, or another worker, says so."""
        while self._halted in (None, "paused"):
            await asyncio.sleep(WATCH_SECONDS)
            reason = await self._reason_to_halt()
            if reason == "paused" and not self._halted:
                self._process.terminate()
            elif reason not in (None, "paused"):
                self._kill()
            self._halted = reason or self._halted

    async def _reason_to_halt(self) -> str | None:
        try:
            job = await self._jobs.jobs.get(self._job.tenant_id, self._job.id)
        except NotFound:
            return "the job is gone"
        except PyMongoError as error:  # the next look may tell; the heartbeat ends the run if the lease is lost
            log.warning("job_not_watched", job_id=self._job.id, error=f"{type(error).__name__}: {error}")
            return None
        if job.lease.fence != self._job.lease.fence:
            return "another worker holds the job"
        return job.state if job.ended or job.state == "paused" else None

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


def _numbers(event: dict[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in event.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "elapsed_s"
    }
