"""Reading and deleting, step by step and with the steps interleaved, on the real database and object store."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import sys
import tracemalloc
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from chassis.errors import Conflict, NotFound, Transient, Unprocessable
from chassis.exhaustion import Exhausted
from chassis.idempotency import seed
from chassis.private_folders import HELD
from ingest import worker as worker_module
from ingest.domain import Dataset, File
from ingest.parse import out_of_bounds
from ingest.parse_job import ParseJob, read_result, write_job
from ingest.publishing import Publish
from ingest.settings import Settings
from ingest.store import TO_PARSE, Files, StoredElsewhere, Uses, dataset_id_of
from ingest.use_cases import Upload, Uploads
from ingest.worker import Reading, policy
from runtime import Service
from schemas import LabelsPublished, Purpose
from schemas.artifacts import DatasetFacts
from stores.mongo import PyMongoError
from stores.orphans import FOUND, OrphanSweep
from testkit import Space, eventually
from testkit.small_disk import small_disk
from work import LeasedWorker, WorkQueue

TENANT = "tenant_a"
ROWS = b"\n".join(json.dumps({"prompt": f"row {n}", "completion": f"label_{n % 3}"}).encode() for n in range(60))
JOB = ParseJob(
    filename="rows.xlsx",
    purpose="user_data",
    columns={},
    bad_rows="refuse",
    sha256="0" * 64,
    seed="s",
    fewest_rows=10,
    validation_share=0.05,
    heldout_share=0.15,
    memory_bytes=2**30,
    seconds=120,
    max_file_bytes=2**29,
)
BARE = b'{"text":"one"}\n{"text":"two"}'
KEPT_IN = ("files", "datasets", "arriving", "uses", "stored_elsewhere", "turns")
"""The collections that ingest writes to."""


@dataclass
class Parts:
    """Ingest taken apart: nothing runs unless a test says so."""

    service: Service
    settings: Settings

    def __post_init__(self) -> None:
        service = self.service
        self.kept, self.datasets = service.aggregates("files", File), service.aggregates("datasets", Dataset)
        self.objects = service.objects
        uses, elsewhere = Uses(service.collection("uses")), StoredElsewhere(service.collection("stored_elsewhere"))
        self.files = Files(self.kept, self.datasets, service.collection("arriving"), uses, elsewhere, self.objects)
        self.uploads = Uploads(self.files, 10**9, "sweeper", 60)
        self.queue = WorkQueue(self.kept, TO_PARSE, service.collection("turns"))
        self.employ()

    def employ(self, **changes: Any) -> None:
        """The worker, under other settings."""
        settings = self.settings.model_copy(update=changes)
        reading = Reading(self.files, Publish(self.files, self.objects, settings), settings)
        self.worker = LeasedWorker(self.queue, reading, policy(settings), "worker")

    async def upload(
        self, body: bytes = ROWS, *, tenant: str = TENANT, purpose: Purpose = "user_data", key: str | None = None
    ) -> File:
        seed.set(key)
        return await self.uploads.accept(tenant, Upload("rows.jsonl", purpose, io.BytesIO(body), {}))

    async def claim(self) -> File:
        file = await self.queue.claim("worker", 60)
        assert file is not None
        return file

    async def stored(self, file: File) -> File:
        return await self.kept.get(file.tenant_id, file.id)

    async def keys(self) -> list[str]:
        return await self.objects.keys("tenants/")

    async def said(self, file: File) -> list[str]:
        """The events of a file, in order: there is no relay here to take them out."""
        document = await self.kept.collection.find_one({"_id": file.id}) or {}
        return [record["envelope"]["type"] for record in document["outbox"]]

    async def end_leases(self) -> None:
        await self.kept.collection.update_many({}, {"$set": {"lease.until_ms": 0}})

    async def empty(self) -> None:
        """Leave nothing to the next test."""
        for name in KEPT_IN:
            await self.service.collection(name).delete_many({})
        for key in await self.objects.keys(""):
            await self.objects.delete(key)


@asynccontextmanager
async def parts(space: Space, **overrides: Any) -> AsyncIterator[Parts]:
    """Ingest taken apart, on stores that are prepared and empty, and are emptied after it."""
    settings = space.settings(Settings, "ingest", **overrides)
    service = Service("ingest", settings)
    made = Parts(service, settings)
    try:
        yield made
    finally:
        await made.empty()
        service.objects.close()
        await service.http.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prepared(shared_space: Space) -> Space:
    """The bucket and the indexes, made once."""
    async with parts(shared_space) as made:
        await made.service.objects.prepare()
        await made.files.prepare()
        await made.queue.prepare()
    return shared_space


@pytest.fixture
def space(prepared: Space) -> Space:
    """That of all tests of this file, which come to it one after the other and leave nothing."""
    return prepared


@pytest.mark.parametrize("body", [ROWS, BARE, b"# Words\n\nonly"], ids=["rows", "unlabelled", "document"])
async def test_a_file_deleted_while_it_is_read_becomes_nothing(
    space: Space, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(space) as ingest:
        await ingest.uploads.accept(
            TENANT, Upload("f.md" if body.startswith(b"#") else "f.jsonl", "user_data", io.BytesIO(body), {})
        )
        file = await ingest.claim()
        put_file = ingest.objects.put_file

        async def put_and_delete(*args: Any) -> Any:
            reference = await put_file(*args)
            if (await ingest.stored(file)).state == "uploaded":
                await ingest.uploads.delete(TENANT, file.id)
                await ingest.uploads.purge()
            return reference

        monkeypatch.setattr(ingest.objects, "put_file", put_and_delete)
        await ingest.worker.work(file)
        assert await ingest.said(file) == ["file.uploaded.v1", "dataset.rejected.v1", "file.deleted.v1"]
        await ingest.uploads.purge()
        assert await ingest.keys() == []
        assert await ingest.datasets.find(TENANT) == []
        assert (await ingest.stored(file)).purged


async def test_a_file_deleted_before_it_is_written_is_not_written(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(space) as ingest:
        await ingest.upload()
        file = await ingest.claim()
        start = asyncio.create_subprocess_exec

        async def delete_and_start(*program: str, **kwargs: Any) -> asyncio.subprocess.Process:
            await ingest.uploads.delete(TENANT, file.id)
            return await start(*program, **kwargs)

        monkeypatch.setattr(worker_module.asyncio, "create_subprocess_exec", delete_and_start)
        await ingest.worker.work(file)
        assert await ingest.keys() == [file.object.key]
        await ingest.uploads.purge()
        assert await ingest.keys() == []


async def test_a_delete_stops_the_parser(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(space, ingest_lease_seconds=0.3) as ingest:
        await ingest.upload()
        file = await ingest.claim()
        _parser(monkeypatch, "import time; time.sleep(600)")
        work = asyncio.create_task(ingest.worker.work(file))
        await ingest.uploads.delete(TENANT, file.id)
        await asyncio.wait_for(work, 60)
        await ingest.uploads.purge()
        assert await ingest.keys() == []


async def test_what_a_late_worker_writes_of_a_purged_file_goes_too(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(space) as ingest:
        await ingest.upload(BARE)
        file = await ingest.claim()
        put_file = ingest.objects.put_file

        async def purge_and_put(*args: Any) -> Any:
            await ingest.uploads.delete(TENANT, file.id)
            await ingest.end_leases()
            await ingest.uploads.purge()
            assert await ingest.keys() == []
            return await put_file(*args)

        monkeypatch.setattr(ingest.objects, "put_file", purge_and_put)
        await ingest.worker.work(file)
        assert len(await ingest.keys()) == 1
        await ingest.end_leases()
        await ingest.uploads.purge()
        assert await ingest.keys() == []


async def test_the_bytes_of_published_labels_go_with_their_file(space: Space) -> None:
    async with parts(space) as ingest:
        records = await ingest.objects.put_bytes(f"tenants/{TENANT}/labels/proj_1/1.jsonl", ROWS)
        event = LabelsPublished(tenant_id=TENANT, project_id="proj_1", publication=1, rows=60, records=records)
        await ingest.uploads.take_labels(event)
        [file] = await ingest.kept.find(TENANT)
        await ingest.uploads.delete(TENANT, file.id)
        await ingest.uploads.purge()
        assert await ingest.keys() == []


async def test_a_delete_that_the_object_store_broke_off_is_finished(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(space) as ingest:
        file = await ingest.upload()
        await ingest.uploads.delete(TENANT, file.id)

        async def away(_: str) -> None:
            raise Transient("The object store cannot be reached.")

        with monkeypatch.context() as broken:
            broken.setattr(ingest.objects, "delete", away)
            with pytest.raises(Transient):
                await ingest.uploads.purge()
        assert len(await ingest.keys()) == 1
        await ingest.end_leases()
        await ingest.uploads.purge()
        assert await ingest.keys() == []


@pytest.mark.parametrize("pages", [0, 2], ids=["for the upload", "for what is made of it"])
async def test_no_room_on_the_disk_is_no_fault_of_the_file(space: Space, tmp_path: Path, pages: int) -> None:
    with small_disk(tmp_path / "work", 2**18) as disk:
        async with parts(space, ingest_work_dir=disk.folder) as ingest:
            disk.fill(leave=pages * 4096)
            await ingest.upload()
            for _ in range(worker_module.MOST_ATTEMPTS + 1):
                file = await ingest.claim()
                await ingest.worker.work(file)
                assert (file.lease.failures, (await ingest.stored(file)).state) == (0, "uploaded")
                await ingest.kept.collection.update_many({}, {"$inc": {"lease.until_ms": -5000}})
                assert await ingest.queue.claim("worker", 60) is None, "nobody makes room within a moment"
                await ingest.end_leases()
            disk.free()
            await ingest.worker.work(await ingest.claim())
            assert await ingest.said(file) == ["file.uploaded.v1", "dataset.prepared.v1"]
            assert list(disk.folder.iterdir()) == []


async def test_a_parser_that_finds_no_room_for_the_word_of_its_error_is_no_fault_of_the_file(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "work", 2**18) as disk:
        async with parts(space, ingest_work_dir=disk.folder) as ingest:
            disk.fill(leave=2**16)
            await ingest.upload()
            claimed = await ingest.claim()
            names = "from pathlib import Path\nfrom testkit.small_disk import SmallDisk\n"
            fill = f"    SmallDisk(Path({str(disk.folder)!r})).fill()\n"
            _parser(monkeypatch, names + FAILING.replace("    raise", f"{fill}    raise"))
            with capture_logs() as logged:
                end = await ingest.worker.work(claimed)
            assert (end.name, [entry for entry in logged if entry["event"] == "parser_died"]) == ("put_off", [])
            assert (await ingest.stored(claimed)).lease.failures == 0


async def test_a_file_that_no_empty_disk_can_hold_is_rejected(space: Space, tmp_path: Path) -> None:
    with small_disk(tmp_path / "work", 2**15) as disk:
        async with parts(space, ingest_work_dir=disk.folder) as ingest:
            await ingest.upload(BARE + b"\n" * 2**16)
            for attempt in range(worker_module.MOST_ATTEMPTS):
                file = await ingest.claim()
                last = attempt == worker_module.MOST_ATTEMPTS - 1
                assert (await ingest.worker.work(file)).name == ("given_up" if last else "failed"), (
                    "the machine is well"
                )
                await ingest.end_leases()
            assert await ingest.said(file) == ["file.uploaded.v1", "dataset.rejected.v1"]


async def test_a_parser_that_cannot_be_started_is_no_fault_of_the_file(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_more(*_: Any, **__: Any) -> Any:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    async with parts(space) as ingest:
        await ingest.upload()
        monkeypatch.setattr(worker_module.asyncio, "create_subprocess_exec", no_more)
        for _ in range(worker_module.MOST_ATTEMPTS + 1):
            file = await ingest.claim()
            assert isinstance((await ingest.worker.work(file)).cause, Exhausted)  # type: ignore[attr-defined]
            await ingest.end_leases()
        assert ((await ingest.stored(file)).lease.failures, (await ingest.stored(file)).state) == (0, "uploaded")


async def test_the_upload_that_a_killed_worker_read_does_not_stay_on_its_disk(space: Space, tmp_path: Path) -> None:
    async with parts(space, ingest_work_dir=tmp_path) as ingest:
        (killed := tmp_path / "file-1-x").mkdir()
        for name in (HELD, "upload"):
            (killed / name).touch()
        work = asyncio.create_task(ingest.worker.run())
        await eventually(lambda: not killed.exists())
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_bytes_of_an_upload_that_was_broken_off_are_removed(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(space) as ingest:

        async def killed(*_: Any) -> Any:
            raise asyncio.CancelledError

        for owner, method in ((ingest.files, "close_upload"), (ingest.kept, "add_once")):
            with monkeypatch.context() as broken:
                broken.setattr(owner, method, killed)
                with pytest.raises(asyncio.CancelledError):
                    await ingest.upload()
        [kept] = await ingest.kept.find(TENANT)
        assert len(await ingest.keys()) == 2
        await ingest.files.close_abandoned_uploads(60)
        assert len(await ingest.keys()) == 2, "it may be under way still"
        await ingest.files.close_abandoned_uploads(-1)
        assert await ingest.keys() == [kept.object.key]


async def test_bytes_that_no_file_names_and_none_will_are_removed(space: Space) -> None:
    async with parts(space) as ingest:
        words = Upload("f.md", "assistants", io.BytesIO(b"# Words\n\nonly"), {})
        rejected = await ingest.upload(b"no rows")
        read = [await ingest.upload(), await ingest.upload(BARE), await ingest.uploads.accept(TENANT, words), rejected]
        for _ in read:
            await ingest.worker.work(await ingest.claim())
        assert [(await ingest.stored(file)).kind for file in read] == [None, "unlabelled", "document", None]
        purged = await ingest.upload(b"# Gone")
        await ingest.uploads.delete(TENANT, purged.id)
        await ingest.uploads.purge()
        deleted = await ingest.upload(b"# Going")
        await ingest.uploads.delete(TENANT, deleted.id)
        waiting = await ingest.upload()
        root = f"tenants/{TENANT}"
        coming = f"{root}/datasets/{dataset_id_of(waiting)}/train.jsonl"
        nobodys = [f"{root}/files/file-x/original-1", f"{root}/datasets/ds-x/train.jsonl"]
        for key in (coming, *nobodys):
            await ingest.objects.put_bytes(key, b"x")
        kept = await ingest.keys()
        late = [f"{root}/documents/{purged.id}/text.md", f"{root}/files/{read[0].id}/original-late"]
        for key in late:
            await ingest.objects.put_bytes(key, b"x")

        bytes_, datasets = ingest.files.orphaned_bytes, ingest.files.orphaned_datasets
        folders = {"files": bytes_, "documents": bytes_, "datasets": datasets}
        await OrphanSweep(ingest.objects, "ingest", folders, every=1, age=-60).sweep()
        assert await ingest.keys() == kept
        found = {folder: FOUND.labels("ingest", folder)._value.get() for folder in folders}
        assert found == {"files": 2, "documents": 1, "datasets": 1}


@pytest.mark.parametrize("purpose", ["rows", "unlabelled"])
async def test_a_row_stays_one_line_whatever_separators_are_in_it(space: Space, purpose: str) -> None:
    """JSON escapes line feeds; U+2028, U+2029 and U+0085 stand in it as they are and must not end a line."""
    texts = [f"one\u2028two\u2029three\u0085four {number}" for number in range(12)]
    rows = [{"text": text} | ({"label": f"{text[0]}\u0085"} if purpose == "rows" else {}) for text in texts]
    body = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    async with parts(space) as ingest:
        await ingest.upload(body)
        await ingest.worker.work(await ingest.claim())
        keys = [key for key in await ingest.keys() if key.endswith(".jsonl")]
        stored = [await _read(ingest, key) for key in keys]
        read = [json.loads(line) for lines in stored for line in lines.removesuffix("\n").split("\n")]
        asked = [row["messages"][0]["content"] if "messages" in row else row["text"] for row in read]
        assert sorted(asked) == sorted(texts)


async def _read(ingest: Parts, key: str) -> str:
    return b"".join([chunk async for chunk in ingest.objects.read(key)]).decode()


@pytest.mark.parametrize(("body", "code"), [(BARE, "no_answers"), (b"# Words\n\nonly", "no_rows")])
async def test_a_job_on_rows_without_answers_or_a_document_is_told(space: Space, body: bytes, code: str) -> None:
    """The trainer fails a job whose file's `dataset.rejected` it reads; without it the job would wait for ever."""
    async with parts(space) as ingest:
        await ingest.uploads.accept(
            TENANT, Upload("f.md" if body.startswith(b"#") else "f.jsonl", "user_data", io.BytesIO(body), {})
        )
        file = await ingest.claim()
        await ingest.worker.work(file)
        assert (await ingest.stored(file)).state == "processed"
        document = await ingest.kept.collection.find_one({"_id": file.id}) or {}
        told = {record["envelope"]["type"]: record["data"] for record in document["outbox"]}
        assert told["dataset.rejected.v1"]["code"] == code


async def test_two_uploads_at_once_under_one_key_leave_the_winners_bytes(space: Space) -> None:
    async with parts(space) as ingest:
        bodies = [ROWS + b"\n" * n for n in range(4)]
        done = await asyncio.gather(*(ingest.upload(body, key="once") for body in bodies), return_exceptions=True)
        [won] = [file for file in done if isinstance(file, File)]
        assert all(isinstance(file, Unprocessable) for file in done if file is not won)
        assert await ingest.keys() == [won.object.key]
        assert await ingest.objects.get_bytes(won.object) == bodies[done.index(won)]
        assert (await ingest.upload(bodies[done.index(won)], key="once")).id == won.id
        assert await ingest.keys() == [won.object.key]


@pytest.mark.parametrize("fault", [Transient("The object store cannot be reached."), PyMongoError("away")])
async def test_nothing_fails_an_upload_once_its_file_is_stored(
    space: Space, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    async with parts(space) as ingest:

        async def away(*_: Any) -> Any:
            raise fault

        with monkeypatch.context() as broken:
            broken.setattr(ingest.files, "close_upload", away)
            file = await ingest.upload()
        assert (await ingest.stored(file)).object == file.object
        await ingest.files.close_abandoned_uploads(-1)
        assert await ingest.keys() == [file.object.key]


def _named(part: Any) -> set[str]:
    """The fields that a group's expression reads."""
    if isinstance(part, dict):
        return {name for value in part.values() for name in _named(value)}
    if isinstance(part, list):
        return {name for value in part for name in _named(value)}
    return {part[1:]} if isinstance(part, str) and part.startswith("$") else set()


async def test_what_a_tenant_has_stored_is_summed_along_indexes_that_hold_all_of_it(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each upload asks: with a million files, a sum over documents would end in its deadline."""
    async with parts(space) as ingest:
        await ingest.upload()
        collection, sent = ingest.kept.collection, []
        aggregate = type(collection).aggregate

        def noted(asked: Any, pipeline: list[dict[str, Any]]) -> Any:
            sent.append({"aggregate": asked.name, "pipeline": pipeline, "cursor": {}})
            return aggregate(asked, pipeline)

        monkeypatch.setattr(type(collection), "aggregate", noted)
        assert await ingest.files.stored_bytes(TENANT) == len(ROWS)
        assert len(sent) == 3
        for command in sent:
            told = await collection.database.command("explain", command, verbosity="queryPlanner")
            plan = told["queryPlanner"]["winningPlan"]["inputStage"]
            [match, group] = (next(iter(stage.values())) for stage in command["pipeline"])
            assert plan["stage"] == "IXSCAN"
            assert {*match, *_named(group)} <= {*plan["keyPattern"]}, command["aggregate"]


async def test_a_dataset_that_was_half_made_otherwise_keeps_the_bytes_it_names(space: Space) -> None:
    """Its worker died after the dataset was saved; the next one splits by other shares."""
    async with parts(space) as ingest:
        file = await ingest.upload()
        claimed = await ingest.claim()
        with pytest.MonkeyPatch.context() as dying:

            async def killed(*_: Any, **__: Any) -> Any:
                raise asyncio.CancelledError

            saved = ingest.datasets.add_once

            async def save_and_die(dataset: Dataset) -> Dataset:
                await saved(dataset)
                return await killed()

            dying.setattr(ingest.datasets, "add_once", save_and_die)
            with pytest.raises(asyncio.CancelledError):
                await ingest.worker.work(claimed)
        await ingest.end_leases()
        ingest.employ(ingest_heldout_share=0.4)
        await ingest.worker.work(await ingest.claim())
        dataset = await ingest.datasets.get(TENANT, dataset_id_of(file))
        assert (await ingest.stored(file)).dataset_id == dataset.id
        assert dataset.rows.heldout == 9
        for part in ("train", "validation", "heldout", "manifest"):
            assert await ingest.objects.get_bytes(getattr(dataset.prepared.dataset, part))


async def test_the_content_of_a_file_is_there_before_its_answer_begins(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = ROWS + b"\n" * 3 * 2**20
    async with parts(space) as ingest:
        file = await ingest.upload(large)
        assert b"".join([chunk async for chunk in await ingest.files.content(file)]) == large
        empty = file.model_copy(update={"object": await ingest.objects.put_bytes("empty", b"")})
        assert b"".join([chunk async for chunk in await ingest.files.content(empty)]) == b""
        await ingest.objects.delete(file.object.key)
        with pytest.raises(NotFound, match="is gone"):
            await ingest.files.content(file)


async def test_only_files_that_are_there_expire_and_count(space: Space) -> None:
    async with parts(space) as ingest:
        files = [await ingest.upload(ROWS + b"\n" * n) for n in range(3)]
        change = {"$set": {"expires_at": 5}}
        await ingest.kept.collection.update_many({"_id": {"$in": [file.id for file in files[:2]]}}, change)
        await ingest.uploads.delete(TENANT, files[0].id)
        assert [file.id for file in await ingest.files.expired()] == [files[1].id]
        assert await ingest.files.stored_bytes(TENANT) == sum(file.object.size for file in files), "they are there yet"
        await ingest.uploads.purge()
        assert await ingest.files.stored_bytes(TENANT) == files[1].object.size + files[2].object.size
        await ingest.uploads.delete_expired()
        await ingest.uploads.purge()
        assert await ingest.files.expired() == []
        assert await ingest.files.stored_bytes(TENANT) == files[2].object.size


async def test_the_key_of_a_deleted_file_does_not_bring_it_back(space: Space) -> None:
    async with parts(space) as ingest:
        file = await ingest.upload(key="once")
        await ingest.uploads.delete(TENANT, file.id)
        with pytest.raises(Conflict, match="was deleted"):
            await ingest.upload(key="once")
        await ingest.uploads.purge()
        assert await ingest.keys() == []


async def test_tenants_take_turns_at_being_read(space: Space) -> None:
    async with parts(space) as ingest:
        for _ in range(3):
            await ingest.upload(tenant="tenant_a")
        await ingest.upload(tenant="tenant_b")
        order = [(await ingest.claim()).tenant_id for _ in range(4)]
        assert order == ["tenant_a", "tenant_b", "tenant_a", "tenant_a"]
        await ingest.upload(tenant="tenant_a")
        await ingest.upload(tenant="tenant_b")
        assert (await ingest.claim()).tenant_id == "tenant_b"


async def test_an_outage_of_the_object_store_rejects_nothing(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(space) as ingest:
        file = await ingest.upload()

        async def away(*_: Any) -> Any:
            raise Transient("The object store cannot be reached.")

        for method in ("download", "put_file"):
            with monkeypatch.context() as broken:
                broken.setattr(ingest.objects, method, away)
                for _ in range(worker_module.MOST_ATTEMPTS + 1):
                    await ingest.worker.work(await ingest.claim())
                    assert await ingest.queue.claim("worker", 60) is None, "it is tried again only after a pause"
                    await ingest.end_leases()
        await ingest.worker.work(await ingest.claim())
        assert (await ingest.stored(file)).state == "processed"


async def test_a_stopping_worker_gives_its_file_back_uncounted(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(space) as ingest:
        file = await ingest.upload()
        for _ in range(5):
            with monkeypatch.context() as slow:
                started = _parser(slow, "import time; time.sleep(600)")
                claimed = await ingest.claim()
                work = asyncio.create_task(ingest.worker.work(claimed))
                await eventually(partial(len, started))
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
        await ingest.worker.work(await ingest.claim())
        assert (await ingest.stored(file)).state == "processed"


async def test_a_file_whose_parser_dies_three_times_is_at_fault(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(space) as ingest:
        file = await ingest.upload()
        _parser(monkeypatch, "import os; os.kill(os.getpid(), 9)")
        for attempts in (1, 2):
            await ingest.worker.work(await ingest.claim())
            stored = await ingest.stored(file)
            assert (stored.state, stored.lease.failures) == ("uploaded", attempts)
            await ingest.end_leases()
        await ingest.worker.work(await ingest.claim())
        stored = await ingest.stored(file)
        assert (stored.state, stored.details) == ("error", f"rows.jsonl: {_out_of_bounds(ingest)}")


def _out_of_bounds(ingest: Parts) -> str:
    return out_of_bounds(ingest.settings.ingest_parse_memory_bytes, ingest.settings.ingest_parse_seconds)


@pytest.mark.parametrize(("more", "state"), [(-1, "processed"), (0, "error")])
async def test_workers_that_are_killed_are_no_fault_of_the_file_they_read_until_many_were(
    space: Space, more: int, state: str
) -> None:
    async with parts(space) as ingest:
        file = await ingest.upload()
        for _ in range(worker_module.MOST_DEATHS + more):
            await ingest.claim()
            await ingest.end_leases()
        await ingest.worker.work(await ingest.claim())
        assert (await ingest.stored(file)).state == state


async def test_the_parser_learns_no_secret(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARTOR_OBJECTS_SECRET_KEY", "secret")
    given: list[dict[str, str]] = []
    start = asyncio.create_subprocess_exec

    async def noted(*program: str, **kwargs: Any) -> asyncio.subprocess.Process:
        given.append(kwargs.get("env", dict(os.environ)))
        return await start(*program, **kwargs)

    monkeypatch.setattr(worker_module.asyncio, "create_subprocess_exec", noted)
    async with parts(space) as ingest:
        file = await ingest.upload()
        await ingest.worker.work(await ingest.claim())
        assert (await ingest.stored(file)).state == "processed"
    assert [sorted(environment) for environment in given] == [["OPENPYXL_LXML", "PYTHONPATH", "PYTHONUTF8"]]


FLOOD = """
import os
for stream in (1, 2):
    for _ in range(1024):
        os.write(stream, b"a cell" * 8192)
os._exit(1)
"""
FAILING = """
import sys
from ingest import parse

def work(*_):
    raise ValueError("no number: 'a cell'") from LookupError("a cell\\n  File 'a cell', line 1, in a_cell\\na_cell: 1")

parse.work = work
sys.exit(parse.main())
"""


async def test_what_a_parser_prints_is_neither_kept_nor_logged(
    space: Space, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with parts(space) as ingest:
        file = await ingest.upload()
        claimed = await ingest.claim()
        _parser(monkeypatch, FLOOD)
        tracemalloc.start()
        try:
            with capture_logs() as logged:
                await ingest.worker.work(claimed)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * 2**20, "of about 100 MiB that were printed"
        assert (await ingest.stored(file)).state == "uploaded"
    [died] = [entry for entry in logged if entry["event"] == "parser_died"]
    assert (died["code"], died["errors"]) == (1, None)
    assert "a cell" not in str(logged)
    printed = capfd.readouterr()
    assert "a cell" not in printed.out[:1000] + printed.err[:1000]


async def test_of_a_parser_that_fails_the_log_names_the_place_and_nothing_of_the_file(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(space) as ingest:
        await ingest.upload()
        claimed = await ingest.claim()
        _parser(monkeypatch, FAILING)
        with capture_logs() as logged:
            await ingest.worker.work(claimed)
    [died] = [entry for entry in logged if entry["event"] == "parser_died"]
    assert died["code"] == 1
    outer, cause = died["errors"]
    assert outer.startswith("ValueError at parse.py:")
    assert outer.endswith(" > <string>:6 work")
    assert cause.startswith("LookupError at")
    assert "cell" not in str(logged)


async def test_a_workbook_of_dates_that_no_calendar_has_has_nothing_printed(tmp_path: Path) -> None:
    made, body = openpyxl.Workbook(), io.BytesIO()
    made.active.append(("message", "intent", "at"))
    for number in range(60):
        made.active.append((f"row {number}", f"label_{number % 3}", date(2026, 1, 1)))
    made.save(body)
    with zipfile.ZipFile(body) as old, zipfile.ZipFile(tmp_path / "upload", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"<v>46023</v>", b"<v>4602300000</v>"))
    write_job(tmp_path, JOB)
    parser = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ingest.parse", str(tmp_path), str(os.getpid())),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=worker_module.PARSER_ENVIRONMENT,
    )
    printed, _ = await parser.communicate()
    assert (parser.returncode, printed) == (0, b"")
    result = read_result(tmp_path)
    assert isinstance(result, DatasetFacts)
    assert result.note == "Not read, in so many rows: 'at' (60)."


def _parser(monkeypatch: pytest.MonkeyPatch, code: str) -> list[asyncio.subprocess.Process]:
    """Have the worker run other code instead of its parser; the processes, as they are started."""
    start, started = asyncio.create_subprocess_exec, list[asyncio.subprocess.Process]()

    async def other(program: str, _: str, __: str, *arguments: str, **kwargs: Any) -> asyncio.subprocess.Process:
        started.append(await start(program, "-c", code, *arguments, **kwargs))
        return started[-1]

    monkeypatch.setattr(worker_module.asyncio, "create_subprocess_exec", other)
    return started
