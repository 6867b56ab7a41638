"""Follows what becomes of a job's arm and its adapter in the registry: what they wait for, and how the gate decided."""

from __future__ import annotations

from collections.abc import Callable

from chassis.errors import Conflict, NotFound
from chassis.ids import now
from schemas import (
    ModelDeleted,
    ModelPinned,
    ModelPromoted,
    ModelRejected,
    ModelRetired,
    ModelUnpinned,
    ModelWaiting,
)
from trainer.arms.lines import Line, lines_of_arm, lines_of_failure, lines_without_adapter, pin_line, tell_lines
from trainer.domain import Failure, Job
from trainer.stages import waiting_line
from trainer.store import Jobs

MODEL_DELETED = "model_deleted"
DELETED = Failure(code=MODEL_DELETED, message="The model was deleted by its owner.")


class Outcomes:
    """Brings a job on by what the registry says of its model's versions, in whatever order it is heard.

    Args:
        jobs: where they are kept.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def waits(self, event: ModelWaiting) -> None:
        """A version waits for something else than before, or for a new reason: the job and its events say so."""
        job = await self._change(event.tenant_id, event.job_id, lambda it: it.wait(event, now()))
        if job is None or job.ended:
            return
        gate = job.arm.gate if event.arm else job.gate
        waits = job.arm.state == "fitted" if event.arm else job.state == "evaluating"
        if waits and gate.revision == event.revision:
            level = "warn" if event.reason and event.waiting_for != "approval" else "info"
            key = f"{event.arm}-waits-{event.revision}" if event.arm else f"waits-{event.revision}"
            await self._jobs.tell(job, key, waiting_line(job, event.arm), level=level)

    async def promoted(self, event: ModelPromoted) -> None:
        """A version answers: the job has succeeded if it is the adapter, and goes on if it is the arm."""
        name = event.name or event.model_id
        if event.arm is not None:
            job = await self._change(event.tenant_id, event.job_id, lambda it: it.answer_by_arm(name, now()))
            if job and job.arm.state == "serving":
                await tell_lines(self._jobs, job, lines_of_arm(job))
            return
        job = await self._change(event.tenant_id, event.job_id, lambda it: it.succeed(name, now()))
        if job and job.state == "succeeded":
            await self._jobs.tell(job, "answers", f"New fine-tuned model created: {name}")
            await self._jobs.tell(job, "ended", "The job has successfully completed")

    async def pinned(self, event: ModelPinned | ModelUnpinned) -> None:
        """A person has the model answer by a version, or leaves that to tests again: the job says so.

        By which it answers follows from the pin of its arm alone: without one its adapter does.
        """

        def hear(job: Job) -> None:
            if event.arm is not None:
                job.arm.hear_of_pin(event)

        job = await self._change(event.tenant_id, event.job_id, hear)
        if job is not None:
            line = pin_line(event)
            await self._jobs.tell(job, line.key, line.message)

    async def rejected(self, event: ModelRejected) -> None:
        """The gate refused a version, or it was taken back before it was let through."""
        if event.arm is not None:
            await self._lose_arm(event, f"The model's {event.arm} was not let through: {event.reason}")
            return
        failure = Failure(code=event.code, message=event.reason)
        end = Job.fail if event.code == MODEL_DELETED else Job.come_to_nothing

        def refuse(job: Job) -> None:
            if event.withdrawn:
                job.lose_arm(now())
            end(job, failure, now())

        job = await self._change(event.tenant_id, event.job_id, refuse)
        if job and failure in (job.error, job.setback):
            what = f"The model was not let through: {event.reason}"
            await tell_lines(self._jobs, job, lines_without_adapter(job, what))

    async def retired(self, event: ModelRetired) -> None:
        """An arm is withdrawn; what becomes of an adapter that is retired, its deletion or the job's end says."""
        if event.arm is not None and event.job_id:
            await self._lose_arm(event, f"The model's {event.arm} answers no more: {event.reason}")

    async def deleted(self, event: ModelDeleted) -> None:
        """A version is taken back: its files go, and with the whole name the job that still works for it."""
        if event.name:
            job = await self._change(event.tenant_id, event.job_id, lambda it: it.fail(DELETED, now()))
            if job and job.error == DELETED:
                await self._jobs.tell(job, "failed", DELETED.message, level="error")
        if event.arm is None:
            await self._change(event.tenant_id, event.job_id, Job.discard_adapter)
        else:
            await self._lose_arm(event, f"The model's {event.arm} was deleted by its owner.")

    async def _lose_arm(self, event: ModelRejected | ModelRetired | ModelDeleted, what: str) -> None:
        job = await self._change(event.tenant_id, event.job_id, lambda it: it.lose_arm(now()))
        if job is None or (job.ended and job.setback is None and not job.arm.pinned):
            return
        await tell_lines(self._jobs, job, [Line("arm-over", what, "warn"), *lines_of_failure(job)])

    async def _change(self, tenant_id: str, job_id: str, change: Callable[[Job], None]) -> Job | None:
        try:
            return await self._jobs.update(tenant_id, job_id, change)
        except (NotFound, Conflict):
            job = await self._jobs.find(tenant_id, job_id)
            if job is not None and not job.ended:
                raise
            return job
