"""What ingest does with uploads: takes them in, lists and deletes them, and takes in published labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from chassis.errors import Conflict, TooLarge, Unprocessable
from chassis.ids import derived_id, new_id, now
from ingest.domain import File
from ingest.store import Files
from schemas import LabelsPublished, Purpose


@dataclass(frozen=True)
class Upload:
    """A file as received: its bytes lie in `source`, rewound or not."""

    filename: str
    purpose: Purpose
    source: BinaryIO
    columns: dict[str, str]
    expires_at: int | None = None
    idempotency_key: str | None = None


class Uploads:
    """Takes files in and lets go of them.

    Args:
        files: where they are kept.
        tenant_bytes: the most a tenant may have stored.
    """

    def __init__(self, files: Files, tenant_bytes: int) -> None:
        self._files = files
        self._tenant_bytes = tenant_bytes

    async def accept(self, tenant_id: str, upload: Upload) -> File:
        """Store the bytes, then the file that names them; a worker reads them later.

        Raises:
            TooLarge: the tenant's storage is full.
            Unprocessable: the idempotency key was used with other bytes.
        """
        if await self._files.stored_bytes(tenant_id) > self._tenant_bytes:
            raise TooLarge(
                f"Your storage is full ({self._tenant_bytes} bytes). Delete files you no longer need.",
                code="storage_full",
            )
        file_id = derived_id("file-", tenant_id, upload.idempotency_key) if upload.idempotency_key else new_id("file-")
        existing = await self._files.files.find_one(tenant_id, {"_id": file_id})
        key = f"tenants/{tenant_id}/files/{file_id}/{new_id('') if existing else 'original'}"
        stored = await self._files.objects.put_stream(key, upload.source)
        if existing:
            await self._files.objects.delete(key)
            return _same(existing, stored.sha256)
        file = File(
            id=file_id,
            tenant_id=tenant_id,
            created_at=now(),
            filename=upload.filename,
            purpose=upload.purpose,
            object=stored,
            columns=upload.columns,
            expires_at=upload.expires_at,
        )
        file.announce()
        return _same(await self._files.files.add_once(file), stored.sha256)

    async def delete(self, tenant_id: str, file_id: str) -> None:
        """Forget a file and remove its bytes; the dataset versions made from it stay with the models made from them.

        Raises:
            NotFound: no such file.
        """
        file = await self._files.visible(tenant_id, file_id)
        await self._files.files.update(tenant_id, file.id, File.delete)
        await self._files.objects.delete_prefix(f"tenants/{tenant_id}/files/{file_id}/")
        await self._files.objects.delete_prefix(f"tenants/{tenant_id}/documents/{file_id}/")

    async def delete_expired(self) -> int:
        """Delete every file whose time is over; how many."""
        expired = await self._files.expired()
        for file in expired:
            await self.delete(file.tenant_id, file.id)
        return len(expired)

    async def take_labels(self, event: LabelsPublished) -> None:
        """Published labels are a new file of rows, once per publication."""
        original = await self._files.files.find_one(event.tenant_id, {"_id": event.file_id}) if event.file_id else None
        name = PurePath(original.filename).stem if original else event.name.replace("/", "-") or "labels"
        file = File(
            id=derived_id("file-", event.project_id, str(event.publication)),
            tenant_id=event.tenant_id,
            created_at=now(),
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


def _same(file: File, sha256: str) -> File:
    if file.object.sha256 != sha256:
        raise Unprocessable(
            "This Idempotency-Key was used with another file. Use a new key for a new file.",
            code="idempotency_key_reused",
        )
    return file
