"""Jobs, their events and checkpoints, and what is known of datasets, in MongoDB."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Literal

from chassis.ids import SERVER_MS, derived_id, now
from eventbus import AggregateStore
from schemas import DatasetDeleted, DatasetPrepared, DatasetRejected, FileDeleted
from stores.mongo import Collection, Document, DuplicateKeyError, Query, ensure_index
from stores.orphans import Orphans
from stores.paging import page
from trainer.domain import ENDED, OPEN, ArmFit, Job, Text
from trainer.history import JobCheckpoint, JobEvent
from trainer.stages import OF_GATE

INTERRUPTED: Query = {
    "state": "running",
    "lease.failures": {"$in": [0, None]},
    "lease.unfinished": {"$in": [0, 1, 2, None]},
}
"""Has had its turn, and part of its work is done; one that fails, or is the end of its workers, waits for the next."""

WAITING: dict[str, Query] = {
    "waiting_for_file": {"state": "waiting_for_dataset"},
    "queued": {"state": "queued"},
    **{
        stage: {
            "$or": [
                {"state": "evaluating", "gate.waiting_for": gate},
                {"state": "awaiting_arm", "arm.gate.waiting_for": gate},
            ]
        }
        for gate, stage in OF_GATE.items()
    },
}
"""The stages that somebody else than the job's owner must end, each with the query for its jobs."""

FILE_DELETED = "The file was deleted, and its rows with it. Upload it again and start a new job."

TO_SWEEP: Query = {"state": {"$in": ["evaluating", "awaiting_arm", *ENDED]}, "swept": {"$in": [False, None]}}
"""Will not be trained any more: its adapter is stored, or it is over."""


TO_DISCARD: Query = {"adapter_files": "unwanted"}
"""Made an adapter that nobody will serve, and whose files may still be stored."""


ARM_TO_FIT: Query = {"arm.state": "to_fit", "state": {"$in": list(OPEN)}}
"""Expects an arm; what fits it ends after the job says what came of it."""


ARM_TO_DISCARD: Query = {"arm.files": "unwanted"}
"""Made an arm that nobody will ask, and whose files may still be stored."""


LEFT_BEHIND: Query = {
    "state": {"$in": ["failed", "cancelled"]},
    "adapter": {"$ne": None},
    "adapter_files": {"$in": ["kept", None]},
}
"""Ended without a model under a release that kept the adapter all the same."""


class Jobs:
    """The service's documents, in its own words.

    Args:
        aggregates: the jobs.
        events: job events, each with a natural key so that a repeated attempt does not repeat them.
        checkpoints: checkpoints as listed.
        datasets: by file id, the dataset or text made from it, or why there is none.
        fits: the work of fitting arms, by the id of the job.
    """

    def __init__(
        self,
        aggregates: AggregateStore[Job],
        events: Collection,
        checkpoints: Collection,
        datasets: Collection,
        *,
        fits: AggregateStore[ArmFit],
    ) -> None:
        self._jobs = aggregates
        self._events = events
        self._checkpoints = checkpoints
        self._datasets = datasets
        self._fits = fits
        self._lines = count()

    async def prepare(self) -> None:
        """Create the indexes."""
        await ensure_index(self._jobs.collection, [("state", 1), ("created_at", 1)])
        await ensure_index(self._jobs.collection, [("state", 1), ("gate.waiting_for", 1), ("since", 1)])
        await ensure_index(self._jobs.collection, [("swept", 1), ("state", 1), ("created_at", 1)])
        await ensure_index(self._jobs.collection, [("adapter_files", 1), ("created_at", 1)])
        await ensure_index(self._jobs.collection, [("tenant_id", 1), ("adapter.adapter_id", 1)])
        await ensure_index(self._jobs.collection, [("arm.files", 1), ("created_at", 1)])
        await ensure_index(self._jobs.collection, [("arm.state", 1), ("state", 1)])
        await ensure_index(self._events, [("job_id", 1), ("order", -1), ("_id", -1)])
        await ensure_index(self._checkpoints, [("job_id", 1), ("step", -1), ("_id", -1)])

    async def get(self, tenant_id: str, job_id: str, where: Query | None = None) -> Job:
        """The tenant's job, if it meets the further conditions of `where`.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        return await self._jobs.get(tenant_id, job_id, where)

    async def find(self, tenant_id: str, job_id: str) -> Job | None:
        """The tenant's job, if there is one of that id."""
        return await self._jobs.find_one(tenant_id, {"_id": job_id})

    async def page_of(
        self,
        tenant_id: str,
        where: Query,
        *,
        training_file: str | None,
        metadata: Mapping[str, str],
        without_metadata: bool,
        limit: int,
        after: str | None,
    ) -> list[Job]:
        """The tenant's jobs that meet the further conditions of `where`, newest first.

        Args:
            tenant_id: whose.
            where: further conditions.
            training_file: only those that learn from this file.
            metadata: only those with these entries.
            without_metadata: only those that have none.
            limit: at most this many.
            after: id of the last one of the previous page.
        """
        query: Query = {**where}
        if training_file is not None:
            query["training_file"] = training_file
        if without_metadata:
            query["metadata"] = None
        query |= {f"metadata.{key}": value for key, value in metadata.items()}
        return await self._jobs.find(tenant_id, query, limit=limit, after=after)

    async def add_once(self, job: Job) -> Job:
        """Add a job, or return the one of its id."""
        return await self._jobs.add_once(job)

    async def write(self, job: Job, change: Callable[[Job], None]) -> Job:
        """Apply a worker's change, refused once another worker has claimed the job."""
        return await self._jobs.update(job.tenant_id, job.id, change, fence=job.lease.fence)

    async def update(self, tenant_id: str, job_id: str, change: Callable[[Job], None]) -> Job:
        """Apply anybody else's change."""
        return await self._jobs.update(tenant_id, job_id, change)

    async def order_arm(self, job: Job) -> None:
        """Have an arm fitted for a job, once; before the job expects one, which would wait for it in vain."""
        await self._fits.add_once(ArmFit(id=job.id, tenant_id=job.tenant_id, created_at=now()))

    async def write_fit(self, fit: ArmFit, change: Callable[[ArmFit], None]) -> ArmFit:
        """Apply a worker's change to a fit, refused once another worker has claimed it."""
        return await self._fits.update(fit.tenant_id, fit.id, change, fence=fit.lease.fence)

    async def finish_fit(self, fit: ArmFit) -> None:
        """Nothing is left to fit, refused once another worker has claimed it."""
        await self.write_fit(fit, ArmFit.finish)

    async def renew_fit(self, fit: ArmFit, seconds: float) -> bool:
        """Extend the lease of a fit; False once another worker has claimed it."""
        return await self._fits.leases.renew(fit.id, fit.lease.fence, seconds, {"state": "to_fit"})

    async def without_fit(self) -> list[Job]:
        """Jobs that expect an arm which nobody has to fit any more, or ever had; of all tenants."""
        expecting = [job async for job in self._jobs.readable(ARM_TO_FIT)]
        query = {"_id": {"$in": [job.id for job in expecting]}, "state": "to_fit"}
        fitted = {fit["_id"] async for fit in self._fits.collection.find(query, {"_id": 1})}
        return [job for job in expecting if job.id not in fitted]

    async def with_unwanted_arms(self) -> list[Job]:
        """Jobs whose arm nobody will ask, and whose files may still be stored; of all tenants."""
        return [job async for job in self._jobs.readable(ARM_TO_DISCARD)]

    async def release(self, job: Job) -> None:
        """Give a claimed job back."""
        await self._jobs.leases.release(job.id, job.lease.fence)

    async def put_off(self, job: Job, seconds: float) -> None:
        """Give a claimed job back, for nobody to claim for some seconds."""
        await self._jobs.leases.delay(job.id, job.lease.fence, seconds)

    async def claim_trained(self, owner: str, seconds: float) -> Job | None:
        """A job that is not trained any more and whose checkpoints may still be stored; of any tenant."""
        return await self._jobs.claim(TO_SWEEP, owner, seconds)

    async def claim_discarded(self, owner: str, seconds: float) -> Job | None:
        """A job whose adapter nobody will serve, and whose files may still be stored; of any tenant."""
        return await self._jobs.claim(TO_DISCARD, owner, seconds)

    async def shares_adapter(self, job: Job) -> Literal["yes", "perhaps", "no"]:
        """Whether another job of the tenant made the same adapter and keeps it, or may be about to.

        An adapter's id follows from its content: the same request made twice within a second makes it twice. Who is
        about to is asked for first: one that has made it by the second question is found by that.
        """
        assert job.adapter is not None
        others: Query = {"tenant_id": job.tenant_id, "_id": {"$ne": job.id}}
        coming = {"created_at": job.created_at, "seed": job.seed, "state": {"$in": list(OPEN)}}
        may_come = await self._jobs.collection.find_one({**others, **coming}, {"_id": 1}) is not None
        same = {"adapter.adapter_id": job.adapter.adapter_id, "adapter_files": {"$in": ["kept", None]}}
        if await self._jobs.collection.find_one({**others, **same}, {"_id": 1}) is not None:
            return "yes"
        return "perhaps" if may_come else "no"

    async def orphaned_checkpoints(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """What late attempts stored of jobs whose checkpoints were deleted: such a job never points at one again."""
        query = {"_id": {"$in": list(folders)}, "tenant_id": tenant_id}
        swept = {job["_id"]: job.get("swept") async for job in self._jobs.collection.find(query, {"swept": 1})}
        return Orphans(
            removable=[key for job_id, keys in folders.items() if swept.get(job_id) for key in keys],
            unknown=[key for job_id, keys in folders.items() if job_id not in swept for key in keys],
        )

    async def orphaned_adapters(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """Adapters of no job. None is removed: another attempt may store the same one, and point at it, meanwhile."""
        query = {"tenant_id": tenant_id, "adapter.adapter_id": {"$in": list(folders)}}
        known = await self._jobs.collection.distinct("adapter.adapter_id", query)
        return Orphans([], [key for adapter_id, keys in folders.items() if adapter_id not in known for key in keys])

    async def orphaned_arms(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """What attempts stored of arms, by job, that the job does not name: once its arm is decided, it never will."""
        query = {"_id": {"$in": list(folders)}, "tenant_id": tenant_id}
        arms = {job["_id"]: job.get("arm") or {} async for job in self._jobs.collection.find(query, {"arm": 1})}
        removable = []
        for job_id, arm in arms.items():
            kept = arm["made"]["manifest"]["key"].rpartition("/")[0] if arm.get("made") else None
            if arm.get("state") != "to_fit":
                removable += [key for key in folders[job_id] if kept is None or not key.startswith(f"{kept}/")]
        return Orphans(removable, [key for job_id, keys in folders.items() if job_id not in arms for key in keys])

    async def open_jobs(self, tenant_id: str) -> int:
        """Jobs of the tenant that are not over."""
        return int(await self._jobs.collection.count_documents({"tenant_id": tenant_id, "state": {"$in": list(OPEN)}}))

    async def waiting_for(self, tenant_id: str, file_id: str) -> list[Job]:
        """Jobs that wait for the dataset of a file."""
        return await self._jobs.find(
            tenant_id,
            {"dataset": None, "text": None, "$or": [{"training_file": file_id}, {"validation_file": file_id}]},
        )

    async def without_data(self) -> AsyncIterator[tuple[str, str]]:
        """Tenant and id of the jobs that wait for their data, of all tenants."""
        async for found in self._jobs.collection.find({"state": "waiting_for_dataset"}, {"tenant_id": 1}):
            yield str(found.get("tenant_id")), found["_id"]

    async def learn(self, event: DatasetPrepared | DatasetRejected) -> None:
        """Keep what became of a file."""
        known = "prepared" if isinstance(event, DatasetPrepared) else "rejected"
        await self._datasets.update_one(
            {"_id": event.file_id},
            {"$set": {"tenant_id": event.tenant_id, known: event.model_dump(mode="json")}},
            upsert=True,
        )

    async def forget(self, event: DatasetDeleted) -> None:
        """A file's dataset is deleted: whoever asks for it hears so, also where that is heard before it was made."""
        deleted = DatasetRejected(
            tenant_id=event.tenant_id,
            file_id=str(event.file_id),
            purpose="fine-tune",
            code="file_deleted",
            message=FILE_DELETED,
        )
        gone = {"prepared": None, "rejected": None, "deleted": deleted.model_dump(mode="json")}
        key = {"_id": event.file_id, "tenant_id": event.tenant_id}
        await self._datasets.update_one(key, {"$set": gone}, upsert=True)

    async def learn_text(self, tenant_id: str, text: Text) -> None:
        """Keep that a file became text without answers."""
        known = {"tenant_id": tenant_id, "text": text.model_dump(mode="json")}
        await self._datasets.update_one({"_id": text.file_id}, {"$set": known}, upsert=True)

    async def forget_text(self, event: FileDeleted) -> None:
        """A file is deleted, and any text of it, also where that is heard before it was made."""
        key = {"_id": event.file_id, "tenant_id": event.tenant_id}
        await self._datasets.update_one(key, {"$set": {"text": None, "no_text": True}}, upsert=True)

    async def text(self, tenant_id: str, file_id: str) -> Text | None:
        """The text that a file became, if it is known and not deleted."""
        found = await self._datasets.find_one({"_id": file_id, "tenant_id": tenant_id})
        if found is None or found.get("no_text") or not found.get("text"):
            return None
        return Text.model_validate(found["text"])

    async def has_lost_text(self, tenant_id: str, file_id: str) -> bool:
        """Whether a file was deleted."""
        query = {"_id": file_id, "tenant_id": tenant_id, "no_text": True}
        return await self._datasets.find_one(query) is not None

    async def resting_on(self, tenant_id: str, data_id: str) -> list[Job]:
        """The tenant's jobs that have yet to be trained, or to end their training, on a dataset version or a text."""
        there = {"state": {"$in": ["queued", "paused", "running"]}}
        return [job for job in await self._jobs.find(tenant_id, there) if job.rests_on(data_id)]

    async def dataset(self, tenant_id: str, file_id: str) -> DatasetPrepared | DatasetRejected | None:
        """What became of a file, if that is known."""
        found = await self._datasets.find_one({"_id": file_id, "tenant_id": tenant_id})
        if found is None or not any(map(found.get, ("prepared", "rejected", "deleted"))):
            return None
        if found.get("prepared") and not found.get("deleted"):
            return DatasetPrepared.model_validate(found["prepared"])
        return DatasetRejected.model_validate(found.get("deleted") or found["rejected"])

    async def tell(
        self,
        job: Job,
        key: str,
        message: str,
        *,
        level: str = "info",
        data: dict[str, int | float] | None = None,
    ) -> None:
        """Add a line to a job's history, once per `key`; with `data` it is a metrics line.

        Its place is by the database's clock, as a job's lines come from several machines: who reads on from the newest
        line misses none that comes later, but of another machine in the same millisecond. Those said here within one
        are in their order.
        """
        facts: Document = {
            "id": _line_id(job, key),
            "job_id": job.id,
            "tenant_id": job.tenant_id,
            "created_at": now(),
            "level": level,
            "message": message,
            "type": "metrics" if data is not None else "message",
            "data": data or {},
        }
        line: Document = {name: {"$ifNull": [f"${name}", {"$literal": value}]} for name, value in facts.items()}
        place = {"$add": [{"$multiply": [SERVER_MS, 1_000_000]}, next(self._lines) % 1_000_000]}
        line["order"] = {"$ifNull": ["$order", place]}
        with suppress(DuplicateKeyError):  # another says it at the same time
            await self._events.update_one({"_id": facts["id"]}, [{"$set": line}], upsert=True)

    async def told(self, job: Job, key: str) -> bool:
        """Whether the job's history has the line of that key."""
        return await self._events.find_one({"_id": _line_id(job, key)}) is not None

    async def history(self, job: Job, *, limit: int, after: str | None) -> list[JobEvent]:
        """A job's events, newest first."""
        found = await _newest(self._events, job, "order", limit, after)
        return [JobEvent.model_validate(document) for document in found]

    async def list_checkpoint(self, job: Job, step: int, metrics: dict[str, float]) -> None:
        """Show a checkpoint in the job's list, once per step."""
        checkpoint = JobCheckpoint(
            id=derived_id("ftckpt_", job.id, str(step)),
            job_id=job.id,
            tenant_id=job.tenant_id,
            created_at=now(),
            step=step,
            metrics=metrics,
        )
        await self._checkpoints.replace_one({"_id": checkpoint.id}, checkpoint.model_dump(), upsert=True)

    async def checkpoints(self, job: Job, *, limit: int, after: str | None) -> list[JobCheckpoint]:
        """A job's checkpoints, newest first."""
        found = await _newest(self._checkpoints, job, "step", limit, after)
        return [JobCheckpoint.model_validate(document) for document in found]


def _line_id(job: Job, key: str) -> str:
    return derived_id("ftevent-", job.id, key)


async def _newest(collection: Collection, job: Job, by: str, most: int, after: str | None) -> list[Document]:
    of_job = {"job_id": job.id, "tenant_id": job.tenant_id}
    behind = None if after is None else {**of_job, "_id": after}
    missing = f"'{after}' is not of job '{job.id}'."
    return await page(collection, of_job, [(by, -1), ("_id", -1)], limit=most, after=behind, missing=missing)
