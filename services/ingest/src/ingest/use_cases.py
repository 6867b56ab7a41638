"""What ingest does with uploads: takes them in, lists and deletes them, and takes in published labels."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

import structlog

from chassis.crash import crash_point
from chassis.errors import Conflict, NotFound, TooLarge, Transient, Unprocessable
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from ingest.domain import File
from ingest.readers import BadRows
from ingest.store import Files
from schemas import LabelsPublished, Purpose
from stores.mongo import PyMongoError

log = structlog.get_logger()

CHUNK = 1024 * 1024
SWEEP_SECONDS = 15.0
LONGEST_ARRIVAL_SECONDS = 3600


@dataclass(frozen=True)
class Upload:
    """A file as received: its bytes lie in `source`, rewound or not."""

    filename: str
    purpose: Purpose
    source: BinaryIO
    columns: dict[str, str]
    on_bad_rows: BadRows = "refuse"
    expires_at: int | None = None


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
        if existing := await self._files.files.find_one(tenant_id, {"_id": file_id}):
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
        file = await self._files.files.add_once(file)
        crash_point("ingest.accepted")
        try:
            await self._files.settle_upload(tenant_id, file_id, stored.key)
        except (Transient, PyMongoError) as error:  # the file is there: what is left to tidy, `sweep` will
            log.warning("upload_not_settled", file_id=file_id, error=type(error).__name__)
        return _same(file, stored.sha256)

    async def delete(self, tenant_id: str, file_id: str, where: Mapping[str, str] | None = None) -> None:
        """Forget a file; the dataset versions made from it stay with the models made from them.

        From here on nobody finds it and nothing is made from it. Its bytes go at once, in `sweep`, or when the worker
        that reads it has let go of it.

        Raises:
            NotFound: no such file.
        """
        file = await self._files.visible(tenant_id, file_id, where)
        await self._files.files.update(tenant_id, file.id, File.delete)
        crash_point("ingest.marked_deleted")
        self._deleted.set()

    async def sweep(self) -> None:
        """Delete what has expired, remove the bytes of what is deleted, and settle uploads that a crash broke off."""
        while True:
            await self.delete_expired()
            await self.purge()
            await self._files.settle_strays(LONGEST_ARRIVAL_SECONDS)
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
        """Remove the bytes of every deleted file that no worker reads."""
        while file := await self._files.claim_deleted(self._owner, self._lease_seconds):
            await self._files.remove_bytes(file)
            with suppress(Conflict):
                await self._files.files.update(file.tenant_id, file.id, File.purge, fence=file.lease.fence)

    async def take_labels(self, event: LabelsPublished) -> None:
        """Published labels are a new file of rows, once per publication."""
        original = await self._files.files.find_one(event.tenant_id, {"_id": event.file_id}) if event.file_id else None
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
        )
        file.announce()
        try:
            await self._files.files.add(file)
        except Conflict:
            return


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
