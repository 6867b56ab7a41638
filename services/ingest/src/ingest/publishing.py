"""Decides what a file becomes once it is read, and stores what was made of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

from chassis.crash import crash_point
from chassis.ids import now
from ingest.domain import Dataset, File, Rejection
from ingest.parse_job import (
    DocumentFile,
    KeptFile,
    ParseJob,
    ParseResult,
    RejectedFile,
    UnlabelledFile,
)
from ingest.settings import Settings
from ingest.store import Files, dataset_id_of
from ingest.texts import document_key, records_key
from schemas import FEWEST_TRAINING_ROWS, DatasetPrepared, DatasetRef, ObjectRef
from schemas.artifacts import (
    CARD,
    MANIFEST,
    SPLITS,
    DatasetFacts,
    DatasetManifest,
    DatasetParts,
    DatasetSource,
    Split,
    SplitShares,
    rows_file,
)
from stores.objects import Objects

SPLIT_SEED = "sartor-1"


class Publish:
    """Turns what the parser left of a file into a dataset version, a document, or rows for people to answer.

    Args:
        files: where they are kept.
        objects: where their bytes lie.
        settings: the shares by which rows were split.
    """

    def __init__(self, files: Files, objects: Objects, settings: Settings) -> None:
        self._files = files
        self._objects = objects
        self._settings = settings

    async def run(self, file: File, folder: Path, result: ParseResult) -> None:
        """Store what lies in the parser's folder and say what the file became.

        Raises:
            Conflict: another worker has the file.
        """
        write, put_file = self._files.write, self._objects.put_file
        match result:
            case RejectedFile(code=code, message=message, line=line):
                rejection = Rejection(code=code, message=message, line=line)
                await write(file, lambda it: it.reject(rejection))
            case KeptFile():
                await write(file, File.keep_as_is)
            case DocumentFile(title=title):
                text = await put_file(document_key(file), folder / "text.md", "text/markdown")
                await write(file, lambda it: it.became_document(text, title))
            case UnlabelledFile(rows=rows, note=note):
                records = await put_file(records_key(file), folder / "records.jsonl")
                await write(file, lambda it: it.needs_labels(records, rows, note))
            case DatasetFacts(note=note):
                dataset = await self._files.add_dataset(await self._dataset(file, folder, result))
                crash_point("ingest.dataset_saved")
                await write(file, lambda it: it.became_dataset(dataset, note))

    async def _dataset(self, file: File, folder: Path, result: DatasetFacts) -> Dataset:
        """Write the parts, the manifest last, into a folder that their bytes name: other bytes replace none of them."""
        dataset_id = dataset_id_of(file)
        version = await asyncio.to_thread(_version_of, folder, result)
        prefix = f"tenants/{file.tenant_id}/datasets/{dataset_id}/{version}"
        objects = self._objects
        rows: dict[Split, ObjectRef] = {}
        for split in SPLITS:
            rows[split] = await objects.put_file(f"{prefix}/{rows_file(split)}", folder / rows_file(split))
        card = await objects.put_file(f"{prefix}/{CARD}", folder / CARD, "text/markdown")
        crash_point("ingest.parts_stored")
        manifest = DatasetManifest(
            dataset_id=dataset_id,
            source=DatasetSource(file_id=file.id, project_id=file.project_id, sha256=file.object.sha256),
            created_at=file.created_at,
            seed=SPLIT_SEED,
            shares=SplitShares(
                validation=self._settings.ingest_validation_share, heldout=self._settings.ingest_heldout_share
            ),
            result=result,
            parts=DatasetParts(**rows, card=card),
        )
        body = json.dumps(manifest.model_dump(), sort_keys=True, ensure_ascii=False).encode()
        reference = await objects.put_bytes(f"{prefix}/{MANIFEST}", body, "application/json")
        crash_point("ingest.manifest_stored")
        return Dataset(
            id=dataset_id,
            tenant_id=file.tenant_id,
            created_at=now(),
            card=(folder / CARD).read_text(),
            manifest=manifest,
            owner=file.owner,
            prepared=DatasetPrepared(
                tenant_id=file.tenant_id,
                dataset=DatasetRef(dataset_id=dataset_id, task=result.task, manifest=reference, **rows),
                file_id=file.id,
                project_id=file.project_id,
                owner=file.owner,
                purpose=file.purpose,
                rows=result.rows,
                labels=result.labels,
            ),
        )


def job_of(file: File, settings: Settings) -> ParseJob:
    """What is asked of the parser of a file."""
    return ParseJob(
        filename=file.filename,
        purpose=file.purpose,
        columns=file.columns,
        bad_rows=file.on_bad_rows,
        sha256=file.object.sha256,
        seed=SPLIT_SEED,
        fewest_rows=FEWEST_TRAINING_ROWS,
        validation_share=settings.ingest_validation_share,
        heldout_share=settings.ingest_heldout_share,
        memory_bytes=settings.ingest_parse_memory_bytes,
        seconds=settings.ingest_parse_seconds,
        max_file_bytes=settings.ingest_max_file_bytes,
    )


def _version_of(folder: Path, result: DatasetFacts) -> str:
    digest = hashlib.sha256(json.dumps(result.model_dump(), sort_keys=True).encode())
    for name in (*map(rows_file, SPLITS), CARD):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
