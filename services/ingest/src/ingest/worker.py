"""Parses uploads one after the other, each in a process of its own with limits, under a lease."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog

from chassis.errors import Conflict, NotFound
from chassis.ids import derived_id, now
from ingest.domain import Dataset, File, Rejection
from ingest.settings import Settings
from ingest.store import Files
from schemas import DatasetPrepared, ObjectRef, RowCounts

log = structlog.get_logger()

IDLE_SECONDS = 1.0
MOST_ATTEMPTS = 3
SPLIT_SEED = "sartor-1"
PARTS = ("train", "validation", "heldout")
UNREADABLE = "it could not be read within the limits of time and memory. Upload it in smaller parts."


class Worker:
    """Claims uploads and turns them into dataset versions and documents.

    Args:
        files: where they are kept.
        settings: limits and lease.
        owner: this replica's name in the lease.
    """

    def __init__(self, files: Files, settings: Settings, owner: str) -> None:
        self._files = files
        self._settings = settings
        self._owner = owner
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Look for work now."""
        self._awake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            file = await self._files.claim(self._owner, self._settings.ingest_lease_seconds)
            if file is not None:
                await self._work(file)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._awake.wait()
            self._awake.clear()

    async def _work(self, file: File) -> None:
        fence = file.lease.fence
        structlog.contextvars.bind_contextvars(tenant_id=file.tenant_id, file_id=file.id)
        try:
            async with self._held(file), self._folder() as folder:
                result = await self._parse(file, folder)
                await self._publish(file, folder, result, fence)
            await self._files.files.leases.release(file.id, fence)
            log.info("file_parsed", kind=result["kind"])
        except NotFound:
            await self._reject(file, fence, "gone", "its bytes are gone; upload the file again.")
        except Conflict as error:
            log.warning("file_claimed_elsewhere", error=error.message)
        except asyncio.CancelledError:  # this replica stops: another may begin at once
            await asyncio.shield(self._files.files.leases.release(file.id, fence))
            raise
        finally:
            structlog.contextvars.unbind_contextvars("tenant_id", "file_id")

    async def _parse(self, file: File, folder: Path) -> dict[str, Any]:
        """Run the parser; a parser that dies again and again means the file is at fault."""
        if fence_over(file):
            return _rejected(file, "unreadable", UNREADABLE)
        await self._files.objects.download(file.object, folder / "upload")
        limits = self._settings
        job = {
            "filename": file.filename,
            "purpose": file.purpose,
            "columns": file.columns,
            "sha256": file.object.sha256,
            "seed": SPLIT_SEED,
            "validation_share": limits.ingest_validation_share,
            "heldout_share": limits.ingest_heldout_share,
            "memory_bytes": limits.ingest_parse_memory_bytes,
            "seconds": limits.ingest_parse_seconds,
            "max_file_bytes": limits.ingest_max_file_bytes,
        }
        (folder / "job.json").write_text(json.dumps(job))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ingest.parse", str(folder), stderr=asyncio.subprocess.PIPE
        )
        try:
            _, errors = await asyncio.wait_for(process.communicate(), limits.ingest_parse_seconds)
        except TimeoutError:
            return _rejected(file, "unreadable", UNREADABLE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            log.warning("parser_died", code=process.returncode, error=errors.decode(errors="replace")[-500:])
            return _rejected(file, "unreadable", UNREADABLE)
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return result

    async def _publish(self, file: File, folder: Path, result: dict[str, Any], fence: int) -> None:
        kind = result["kind"]
        update = self._files.files.update
        if kind == "rejected":
            rejection = Rejection.model_validate(result)
            await update(file.tenant_id, file.id, lambda it: it.reject(rejection), fence=fence)
        elif kind == "kept":
            await update(file.tenant_id, file.id, File.keep_as_is, fence=fence)
        elif kind == "document":
            key = f"tenants/{file.tenant_id}/documents/{file.id}/text.md"
            text = await self._files.objects.put_file(key, folder / "text.md", "text/markdown")
            await update(file.tenant_id, file.id, lambda it: it.became_document(text, result["title"]), fence=fence)
        elif kind == "unlabelled":
            key = f"tenants/{file.tenant_id}/files/{file.id}/unlabelled.jsonl"
            records = await self._files.objects.put_file(key, folder / "records.jsonl")
            await update(file.tenant_id, file.id, lambda it: it.needs_labels(records, result["rows"]), fence=fence)
        else:
            dataset = await self._files.datasets.add_once(await self._dataset(file, folder, result))
            duplicates = result["duplicates"]
            note = f"{duplicates} exact duplicates were removed." if duplicates else None
            await update(file.tenant_id, file.id, lambda it: it.became_dataset(dataset.id, note), fence=fence)

    async def _dataset(self, file: File, folder: Path, result: dict[str, Any]) -> Dataset:
        """Write the parts, the manifest last."""
        dataset_id = derived_id("ds-", file.id, file.object.sha256)
        prefix = f"tenants/{file.tenant_id}/datasets/{dataset_id}"
        objects = self._files.objects
        parts: dict[str, ObjectRef] = {}
        for name in PARTS:
            parts[name] = await objects.put_file(f"{prefix}/{name}.jsonl", folder / f"{name}.jsonl")
        card = await objects.put_file(f"{prefix}/card.md", folder / "card.md", "text/markdown")
        manifest = {
            "dataset_id": dataset_id,
            "source": {"file_id": file.id, "project_id": file.project_id, "sha256": file.object.sha256},
            "created_at": file.created_at,
            "seed": SPLIT_SEED,
            "shares": {
                "validation": self._settings.ingest_validation_share,
                "heldout": self._settings.ingest_heldout_share,
            },
            "result": result,
            "parts": {name: ref.model_dump() for name, ref in {**parts, "card": card}.items()},
        }
        body = json.dumps(manifest, sort_keys=True, ensure_ascii=False).encode()
        reference = await objects.put_bytes(f"{prefix}/manifest.json", body, "application/json")
        dataset = Dataset(
            id=dataset_id,
            tenant_id=file.tenant_id,
            created_at=now(),
            card=(folder / "card.md").read_text(),
            manifest=manifest,
            prepared=DatasetPrepared(
                tenant_id=file.tenant_id,
                dataset_id=dataset_id,
                file_id=file.id,
                project_id=file.project_id,
                purpose=file.purpose,
                task=result["task"],
                rows=RowCounts(**result["rows"]),
                labels=result["labels"],
                manifest=reference,
                **parts,
            ),
        )
        dataset.announce()
        return dataset

    async def _reject(self, file: File, fence: int, code: str, message: str) -> None:
        rejection = Rejection(code=code, message=f"{file.filename}: {message}")
        await self._files.files.update(file.tenant_id, file.id, lambda it: it.reject(rejection), fence=fence)

    @contextlib.asynccontextmanager
    async def _held(self, file: File) -> AsyncIterator[None]:
        """Renew the lease while the work goes on; parsing happens in another process, so this loop is free to."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._settings.ingest_lease_seconds / 3)
                await self._files.files.leases.renew(file.id, file.lease.fence, self._settings.ingest_lease_seconds)

        task = asyncio.create_task(renew())
        try:
            yield
        finally:
            task.cancel()

    @contextlib.asynccontextmanager
    async def _folder(self) -> AsyncIterator[Path]:
        """A private folder that is gone afterwards, with the upload in it."""
        folder = Path(tempfile.mkdtemp(prefix="ingest-", dir=self._settings.ingest_work_dir))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fence_over(file: File) -> bool:
    """Whether the file has been claimed so often that it must be what kills the worker."""
    return file.lease.fence > MOST_ATTEMPTS


def _rejected(file: File, code: str, message: str) -> dict[str, Any]:
    return {"kind": "rejected", "code": code, "message": f"{file.filename}: {message}", "line": None}
