"""What ingest does with uploads: takes them in, lists and deletes them, and takes in published labels."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO, Literal

import structlog

from chassis.crash import crash_point
from chassis.errors import Conflict, NotFound, TooLarge, Transient, Unprocessable
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from ingest.domain import Dataset, File
from ingest.readers import BadRows
from ingest.store import Files, StoredElsewhere, Uses, Version
from schemas import (
    EvaluationCompleted,
    EvidenceDeleted,
    FinetuneAdapterDeleted,
    FinetuneArmFitted,
    FinetuneCancelled,
    FinetuneFailed,
    FinetuneRequested,
    FinetuneSucceeded,
    FinetuneTrained,
    LabelsDeleted,
    LabelsPublished,
    ModelDeleted,
    ModelRegistered,
    ModelRejected,
    Purpose,
)
from stores.mongo import PyMongoError

log = structlog.get_logger()

CHUNK = 1024 * 1024
SWEEP_SECONDS = 15.0
LONGEST_ARRIVAL_SECONDS = 3600
MOST_NAMED = 5
"""Jobs and models that are named of those that keep a dataset."""


@dataclass(frozen=True)
class Upload:
    """A file as received: its bytes lie in `source`, rewound or not."""

    filename: str
    purpose: Purpose
    source: BinaryIO
    columns: dict[str, str]
    on_bad_rows: BadRows = "refuse"
    expires_at: int | None = None


@dataclass(frozen=True)
class Kept:
    """Something that stays when a file is deleted, and why, for who deleted it."""

    object: Literal["dataset"]
    id: str
    because: str


class Uploads:
    """Takes files in and lets go of them.

    Args:
        files: where they are kept.
        tenant_bytes: the most a tenant may have stored.
        owner: this replica's name in leases.
        lease_seconds: longest that removing one file's bytes may take.
    """

    def __init__(self, files: Files, tenant_bytes: int, owner: str, lease_seconds: float) -> None:
        self._files = files
        self._tenant_bytes = tenant_bytes
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._deleted = asyncio.Event()

    async def accept(self, tenant_id: str, upload: Upload, owner: str = "") -> File:
        """Store the bytes, then the file that names them; a worker reads them later.

        A request that was broken off and is made again under its idempotency key finds the file of its first attempt.

        Raises:
            TooLarge: the tenant's storage is full.
            Unprocessable: the idempotency key was used with other bytes.
            Conflict: it was used for a file that was deleted since.
        """
        if await self._files.stored_bytes(tenant_id) > self._tenant_bytes:
            raise TooLarge(
                f"Your storage is full ({self._tenant_bytes} bytes). Delete files you no longer need.",
                code="storage_full",
            )
        file_id = request_id_for("file-", new_id("file-"))
        if existing := await self._files.find(tenant_id, file_id):
            return _same(existing, await asyncio.to_thread(_sha256, upload.source))
        stored = await self._files.put_upload(tenant_id, file_id, upload.source)
        crash_point("ingest.bytes_stored")
        file = File(
            id=file_id,
            tenant_id=tenant_id,
            created_at=now(),
            owner=owner,
            filename=upload.filename,
            purpose=upload.purpose,
            object=stored,
            columns=upload.columns,
            on_bad_rows=upload.on_bad_rows,
            expires_at=upload.expires_at,
        )
        file.announce()
        file = await self._files.add_once(file)
        crash_point("ingest.accepted")
        try:
            await self._files.close_upload(tenant_id, file_id, stored.key)
        except (Transient, PyMongoError) as error:  # the file is there: what is left to tidy, `sweep` will
            log.warning("upload_not_closed", file_id=file_id, error=type(error).__name__)
        return _same(file, stored.sha256)

    async def delete(self, tenant_id: str, file_id: str, where: Mapping[str, str] | None = None) -> list[Kept]:
        """Forget a file and all that is made from it, but for what jobs that are not over and models rest on.

        From here on nobody finds it and nothing is made from it. Its bytes go at once, in `sweep`, or when the worker
        that reads it has let go of it.

        Returns:
            The dataset versions that stay until nothing rests on them.

        Raises:
            NotFound: no such file.
        """
        file = await self._files.visible(tenant_id, file_id, where)
        kept = await self._kept(file)
        await self._files.update(tenant_id, file.id, File.delete)
        crash_point("ingest.marked_deleted")
        self._deleted.set()
        return kept

    async def _kept(self, file: File) -> list[Kept]:
        found = []
        for one in await self._files.made_from(file):
            uses = await self._files.uses_of(one.tenant_id, one.id)
            if one.dataset_id is not None and uses:
                because = "; ".join(use.sentence for use in uses[:MOST_NAMED])
                found.append(Kept("dataset", one.dataset_id, because))
        return found

    async def sweep(self) -> None:
        """Delete what has expired, remove the bytes of what is deleted, and close uploads that a crash broke off."""
        while True:
            await self.delete_expired()
            await self.purge()
            await self.purge_datasets()
            await self._files.close_abandoned_uploads(LONGEST_ARRIVAL_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._deleted.wait()
            self._deleted.clear()

    async def delete_expired(self) -> None:
        """Delete every file whose time is over."""
        for file in await self._files.expired():
            with suppress(NotFound):
                await self.delete(file.tenant_id, file.id)

    async def purge(self) -> None:
        """Remove the bytes of every deleted file that no worker reads, and let go of its dataset version."""
        while file := await self._files.claim_deleted(self._owner, self._lease_seconds):
            await self._files.remove_bytes(file)
            if file.dataset_id is not None:
                with suppress(NotFound):
                    await self._files.update_dataset(file.tenant_id, file.dataset_id, Dataset.outlive_file)
                await self.release(file.tenant_id, file.id)
            await self._files.note_purged(file)

    async def release(self, tenant_id: str, file_id: str) -> None:
        """Delete the dataset versions of a deleted file, if nothing rests on them any more."""
        outliving = await self._files.outliving(tenant_id, file_id)
        if not outliving or await self._files.uses_of(tenant_id, file_id):
            return
        for dataset in outliving:
            await self._files.update_dataset(tenant_id, dataset.id, Dataset.delete)
        self._deleted.set()

    async def purge_datasets(self) -> None:
        """Remove the rows of every deleted dataset version."""
        while dataset := await self._files.claim_deleted_dataset(self._owner, self._lease_seconds):
            await self._files.remove_rows(dataset)
            await self._files.note_dataset_purged(dataset)

    async def take_back_labels(self, event: LabelsDeleted) -> None:
        """Delete the files that a labeling project published, as it is deleted and its tasks count no more."""
        if event.file_id is not None:
            with suppress(NotFound):
                await self._files.update(event.tenant_id, event.file_id, File.lose_tasks)
        for file in await self._files.published_by(event.tenant_id, event.project_id):
            await self._files.update(file.tenant_id, file.id, File.delete)
        self._deleted.set()

    async def take_labels(self, event: LabelsPublished) -> None:
        """Published labels are a new file of rows, once per publication; labels of a deleted file are none."""
        original = await self._files.find(event.tenant_id, event.file_id) if event.file_id else None
        if original is not None and original.state == "deleted":
            return
        name = PurePath(original.filename).stem if original else event.name.replace("/", "-") or "labels"
        file = File(
            id=derived_id("file-", event.project_id, str(event.publication)),
            tenant_id=event.tenant_id,
            created_at=now(),
            owner=original.owner if original else "",
            filename=f"{name}-answered-{event.publication}.jsonl",
            purpose="user_data",
            object=event.records,
            project_id=event.project_id,
            source_file_id=event.file_id,
        )
        file.announce()
        try:
            await self._files.add(file)
        except Conflict:
            return


class Retention:
    """Follows what rests on files and what others store of them, and lets go of rows on which nothing rests.

    A job or a model that was not heard of yet when its file is deleted keeps nothing: where in doubt, deletion wins.

    Args:
        uses: where the former is kept.
        elsewhere: where the latter is.
        uploads: lets go of rows.
    """

    def __init__(self, uses: Uses, elsewhere: StoredElsewhere, uploads: Uploads) -> None:
        self._uses = uses
        self._elsewhere = elsewhere
        self._uploads = uploads

    async def requested(self, event: FinetuneRequested) -> None:
        """A job needs its files."""
        files = {"training_file": event.training_file, "validation_file": event.validation_file}
        await self._uses.note(event.tenant_id, event.job_id, **files)

    async def trained(self, event: FinetuneTrained) -> None:
        """A job needs its validation file no more; its adapter is stored."""
        await self._uses.note(event.tenant_id, event.job_id, training_file=event.training_file, trained=True)
        await self._uses.note_version(event.tenant_id, event.job_id, "adapter", there=True)
        await self._elsewhere.count(event.tenant_id, event.adapter_id, event.job_id, event.adapter_bytes)
        await self._release(event.tenant_id, event.job_id)

    async def arm_fitted(self, event: FinetuneArmFitted) -> None:
        """A version of a job's model is there beside its adapter."""
        await self._uses.note(event.tenant_id, event.job_id, training_file=event.training_file)
        await self._uses.note_version(event.tenant_id, event.job_id, "arm", there=True)

    async def registered(self, event: ModelRegistered) -> None:
        """A version of a job's model exists."""
        await self._uses.note(event.tenant_id, event.job_id, model_id=event.name or event.model_id)

    async def succeeded(self, event: FinetuneSucceeded) -> None:
        """A job is over with a model, be it that its training was given up: its validation file is needed no more."""
        await self._uses.note(event.tenant_id, event.job_id, succeeded=True)
        await self._uses.settle(event.tenant_id, event.job_id)
        await self._release(event.tenant_id, event.job_id)

    async def lost(self, event: ModelRejected | ModelDeleted) -> None:
        """A version is at its end: its job rests on nothing any more where no other version is there or to come."""
        which: Version = "arm" if event.arm else "adapter"
        await self._uses.note_version(event.tenant_id, event.job_id, which, there=False)
        await self._uses.settle(event.tenant_id, event.job_id)
        await self._release(event.tenant_id, event.job_id)

    async def ended(self, event: FinetuneFailed | FinetuneCancelled) -> None:
        """A job is over without a model: it rests on nothing any more."""
        await self._uses.note(event.tenant_id, event.job_id, over=True)
        await self._release(event.tenant_id, event.job_id)

    async def evaluated(self, event: EvaluationCompleted) -> None:
        """Evidence is stored."""
        evaluation_id = event.evaluation_id
        await self._elsewhere.count(event.tenant_id, evaluation_id, evaluation_id, event.evidence.size)

    async def lost_evidence(self, event: EvidenceDeleted) -> None:
        """Evidence is gone."""
        await self._elsewhere.remove(event.tenant_id, event.evaluation_id, event.evaluation_id)

    async def lost_adapter(self, event: FinetuneAdapterDeleted) -> None:
        """A job's adapter is gone, but for other jobs that made the same one."""
        await self._elsewhere.remove(event.tenant_id, event.adapter_id, event.job_id)

    async def _release(self, tenant_id: str, job_id: str) -> None:
        for file_id in await self._uses.files_of(tenant_id, job_id):
            await self._uploads.release(tenant_id, file_id)


def _sha256(source: BinaryIO) -> str:
    digest = hashlib.sha256()
    source.seek(0)
    while chunk := source.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _same(file: File, sha256: str) -> File:
    if file.state == "deleted":
        raise Conflict(
            "The file uploaded under this Idempotency-Key was deleted. Use a new key to upload it again.",
            code="file_deleted",
        )
    if file.object.sha256 != sha256:
        raise Unprocessable(
            "This Idempotency-Key was used with another file. Use a new key for a new file.",
            code="idempotency_key_reused",
        )
    return file
