"""What is done for jobs beside training: those begun half-way are brought on, and what others left is deleted."""

from __future__ import annotations

import asyncio

import structlog

from chassis.errors import SartorError
from stores.mongo import PyMongoError
from trainer.arms.giving_up import give_up_arm
from trainer.domain import Job
from trainer.job_data import JobData
from trainer.job_objects import JobObjects
from trainer.store import Jobs

log = structlog.get_logger()

SWEEP_SECONDS = 15.0
SHARED_SECONDS = 60.0
"""Until it is looked again whether another job makes the same adapter."""


class Sweep:
    """Looks now and then for what a crash or an outage left undone.

    Args:
        jobs: where jobs are kept.
        data: brings them their data.
        objects: where checkpoints and adapters lie.
        owner: this replica's name in leases.
        lease_seconds: longest that deleting one job's files may take.
    """

    def __init__(self, jobs: Jobs, data: JobData, objects: JobObjects, owner: str, lease_seconds: float) -> None:
        self._jobs = jobs
        self._data = data
        self._objects = objects
        self._owner = owner
        self._lease_seconds = lease_seconds

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            async for tenant_id, job_id in self._jobs.without_data():
                await self._begin(tenant_id, job_id)
            await self._delete_checkpoints()
            await self._delete_adapters()
            await self._delete_arms()
            await self._give_up_arms()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _begin(self, tenant_id: str, job_id: str) -> None:
        """Bring one job on; whatever is wrong with it, the sweep goes on with the others."""
        try:
            await self._data.begin(await self._jobs.get(tenant_id, job_id))
        except PyMongoError:
            raise  # the others cannot be begun either
        except Exception as error:  # the boundary of one job: an odd document raises anything
            log.warning("job_begins_later", job_id=job_id, error=f"{type(error).__name__}: {error}")

    async def _delete_checkpoints(self) -> None:
        """Of jobs not trained any more; a claim keeps every attempt out, and one that ends half-way is made again."""
        while job := await self._jobs.claim_trained(self._owner, self._lease_seconds):
            try:
                await self._objects.delete_checkpoints(job)
                await self._jobs.write(job, Job.forget_checkpoints)
            except SartorError as error:
                log.warning("checkpoints_not_deleted", job_id=job.id, error=error.message)
                return
            await self._jobs.release(job)

    async def _delete_adapters(self) -> None:
        """Of models that nobody will serve; another job that made the same one keeps its files."""
        while job := await self._jobs.claim_discarded(self._owner, self._lease_seconds):
            shared = await self._jobs.shares_adapter(job)
            if shared == "perhaps":
                await self._jobs.put_off(job, SHARED_SECONDS)
                continue
            try:
                if shared == "no":
                    await self._objects.delete_adapter(job)
                await self._jobs.write(job, Job.lose_adapter)
            except SartorError as error:
                log.warning("adapter_not_deleted", job_id=job.id, error=error.message)
                return
            await self._jobs.release(job)

    async def _delete_arms(self) -> None:
        """Of arms that nobody will ask. No job is claimed: it may be trained, and removing twice does no harm."""
        for job in await self._jobs.with_unwanted_arms():
            try:
                await self._objects.delete_arm(job)
                await self._jobs.update(job.tenant_id, job.id, lambda it: it.arm.lose_files())
            except SartorError as error:
                log.warning("arm_not_deleted", job_id=job.id, error=error.message)
                return

    async def _give_up_arms(self) -> None:
        """Of jobs that would wait for a fit in vain."""
        for job in await self._jobs.without_fit():
            try:
                await give_up_arm(self._jobs, job.tenant_id, job.id, "its fit was lost.")
            except SartorError as error:
                log.warning("arm_not_given_up", job_id=job.id, error=error.message)
