"""What a run reads from the object store and leaves there: rows, checkpoints, adapters."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chassis.crash import crash_point
from chassis.errors import NotFound
from schemas import ObjectRef
from schemas.artifacts import DATA_REPORT, MANIFEST, DataReport, adapter_id_of, rows_file
from stores.objects import DigestMismatch, Objects
from trainer.domain import Adapter, Checkpoint, Job, Text
from trainer.run.config import FailedForGood
from trainer.run.reports import Finished

ATTEMPT = re.compile(r"attempt-(\d+)/")


@dataclass(frozen=True)
class Rows:
    """Files of rows; a validation set may be missing.

    Attributes:
        repeated: rows of the validation file that were left out, as the training file has them too.
    """

    train: Path
    validation: Path | None
    repeated: int = 0


class JobObjects:
    """Downloads are verified against their digests; of an upload the manifest comes last.

    Args:
        objects: the object store.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def fetch_rows(self, job: Job, folder: Path) -> Rows:
        """What to learn from and, to validate on, the validation file or the share that ingest held out.

        Raises:
            FailedForGood: every row of the validation file is in the training file too.
        """
        if job.text is not None:
            return Rows(await self._fetch_text(job.text, folder / rows_file("train")), None)
        learned = job.learns_from
        train, validation = folder / rows_file("train"), folder / rows_file("validation")
        await self._objects.download(learned.train, train)
        if job.validation is None:
            content = await self._objects.get_bytes(learned.validation) if learned.validation else b""
            validation.write_bytes(content)
            return Rows(train, validation if content.strip() else None)
        splits = job.validation.dataset.splits
        given = [line for split in splits for line in _lines(await self._objects.get_bytes(split))]
        own = await asyncio.to_thread(lambda: {_digest(line) for line in _lines(train.read_bytes())})
        for split in learned.splits[1:]:
            own |= {_digest(line) for line in _lines(await self._objects.get_bytes(split))}
        new = [line for line in given if _digest(line) not in own]
        if given and not new:
            message = "Every row of the validation file is in the training file too. Give other rows, or leave it out."
            raise FailedForGood("invalid_validation_file", message)
        validation.write_bytes(b"".join(line + b"\n" for line in new))
        return Rows(train, validation if new else None, len(given) - len(new))

    async def _fetch_text(self, text: Text, path: Path) -> Path:
        """Write a text as text rows, a document as one."""
        if text.kind == "rows":
            await self._objects.download(text.object, path)
            return path
        document = (await self._objects.get_bytes(text.object)).decode()
        # Not `write_row`: a checkpoint is gone on from only where these bytes are those that every release wrote.
        path.write_text(json.dumps({"text": document}) + "\n", encoding="utf-8")
        return path

    async def fetch_checkpoint(self, job: Job, folder: Path) -> Path | None:
        """The job's newest checkpoint, every file verified; None, and a fresh start, when there is none.

        Raises:
            FailedForGood: `checkpoint_corrupt`; the store does not hold it any more, or other bytes, read twice.
        """
        if job.checkpoint is None:
            return None
        for last in (False, True):
            try:
                return await self._download_checkpoint(job.checkpoint, folder)
            except (NotFound, DigestMismatch) as error:
                if last:
                    what = f"The checkpoint of step {job.checkpoint.step} is not stored any more as it was"
                    raise FailedForGood("checkpoint_corrupt", f"{what}: {error.message}") from error
        return None

    async def _download_checkpoint(self, checkpoint: Checkpoint, folder: Path) -> Path:
        manifest = await self._objects.get_bytes(checkpoint.manifest)
        prefix = checkpoint.manifest.key.removesuffix(MANIFEST)
        for name, facts in json.loads(manifest)["files"].items():
            ref = ObjectRef(bucket=checkpoint.manifest.bucket, key=f"{prefix}{name}", **facts)
            await self._objects.download(ref, folder / name)
        (folder / MANIFEST).write_bytes(manifest)
        return folder

    async def store_checkpoint(self, job: Job, folder: Path, step: int) -> Checkpoint:
        """Upload a checkpoint; nothing points at it yet."""
        prefix = f"{_of(job)}attempt-{job.lease.fence}/checkpoint-{step}"
        return Checkpoint(step=step, manifest=await self._upload(folder, prefix))

    async def delete_older_checkpoints(self, job: Job) -> None:
        """Remove what this attempt and earlier ones stored, but for the two checkpoints the job can go on from.

        What a later attempt stores is not touched: it may not be pointed at yet.
        """
        kept = [checkpoint.manifest.key.removesuffix(MANIFEST) for checkpoint in job.checkpoints]
        for key in await self._objects.keys(_of(job)):
            attempt = ATTEMPT.match(key.removeprefix(_of(job)))
            ours = attempt is not None and int(attempt[1]) <= job.lease.fence
            if ours and not key.startswith(tuple(kept)):
                await self._objects.delete(key)

    async def delete_checkpoints(self, job: Job) -> None:
        """Remove whatever the attempts at a job stored, the adapter excepted."""
        await self._objects.delete_prefix(_of(job))

    async def delete_adapter(self, job: Job) -> None:
        """Remove the files of the adapter that a job made, the manifest first: what is half gone is no adapter."""
        assert job.adapter is not None
        folder = _adapter(job, job.adapter.adapter_id)
        await self._objects.delete(f"{folder}{MANIFEST}")
        await self._objects.delete_prefix(folder)

    async def store_adapter(
        self, job: Job, folder: Path, base_digest: str, finished: Finished, seconds: float
    ) -> Adapter:
        """Upload an adapter under a name made from its manifest.

        Args:
            job: its job.
            folder: its files and manifest.
            base_digest: digest of the base it belongs to.
            finished: the run's last report.
            seconds: how long the run took.
        """
        manifest = (folder / MANIFEST).read_bytes()
        adapter_id = adapter_id_of(manifest)
        stored = await self._upload(folder, _adapter(job, adapter_id).rstrip("/"))
        return Adapter(
            adapter_id=adapter_id,
            manifest=stored,
            bytes=sum(path.stat().st_size for path in folder.iterdir()),
            base_digest=base_digest,
            trained_tokens=finished.tokens,
            train_seconds=seconds,
            metrics=finished.metrics,
        )

    async def fetch_training_rows(self, job: Job, path: Path) -> None:
        """The rows that a job learns from."""
        await self._objects.download(job.learns_from.train, path)

    async def store_arm(self, job: Job, attempt: int, files: Mapping[str, bytes]) -> ObjectRef:
        """Upload the files of an arm, the manifest last; returns its reference. Nothing points at it yet."""
        prefix = f"{_arms(job)}{attempt}/"
        for name, content in files.items():
            if name != MANIFEST:
                await self._objects.put_bytes(f"{prefix}{name}", content)
        crash_point("trainer.arm_files_stored")
        return await self._objects.put_bytes(f"{prefix}{MANIFEST}", files[MANIFEST], "application/json")

    async def store_report(self, job: Job, attempt: int, report: DataReport) -> ObjectRef:
        """Put what the rows tell beside the arm, with which it goes; returns its reference."""
        key = f"{_arms(job)}{attempt}/{DATA_REPORT}"
        return await self._objects.put_bytes(key, report.model_dump_json().encode(), "application/json")

    async def report(self, job: Job) -> DataReport:
        """What a job's rows tell.

        Raises:
            NotFound: there is none, or not any more.
        """
        made = job.arm.made
        if made is None or job.arm.files != "kept":
            raise NotFound(
                f"{job.id} has no data report: it comes with an arm, which is fitted to rows whose answers come again, "
                "and goes with it."
            )
        if made.report is None:
            raise NotFound(
                f"{job.id} has an arm and no data report: its rows are shown and not fitted, it is of an earlier "
                "release, or none came."
            )
        try:
            content = await self._objects.get_bytes(made.report)
        except NotFound as error:
            raise NotFound(f"The data report of {job.id} went with its arm.") from error
        return DataReport.model_validate_json(content)

    async def delete_arm(self, job: Job) -> None:
        """Remove what the fits of a job's arm stored, the manifest first: what is half gone is no arm."""
        if job.arm.made is not None:
            await self._objects.delete(job.arm.made.manifest.key)
        await self._objects.delete_prefix(_arms(job))

    async def delete_arm_attempt(self, job: Job, attempt: int) -> None:
        """Remove what one attempt stored and nothing points at."""
        await self._objects.delete_prefix(f"{_arms(job)}{attempt}/")

    async def _upload(self, folder: Path, prefix: str) -> ObjectRef:
        """Upload a folder, its manifest last; returns the manifest's reference."""
        for path in sorted(folder.iterdir()):
            if path.name != MANIFEST:
                await self._objects.put_file(f"{prefix}/{path.name}", path)
        crash_point("trainer.files_stored")
        return await self._objects.put_file(f"{prefix}/{MANIFEST}", folder / MANIFEST, "application/json")


def _lines(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if line.strip()]


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()


def _of(job: Job) -> str:
    return f"tenants/{job.tenant_id}/jobs/{job.id}/"


def _adapter(job: Job, adapter_id: str) -> str:
    return f"tenants/{job.tenant_id}/adapters/{adapter_id}/"


def _arms(job: Job) -> str:
    return f"tenants/{job.tenant_id}/arms/{job.id}/"
