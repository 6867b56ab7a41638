"""What goes with a file, what stays for those that rest on it, and whose bytes it counts as until it is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest
from prometheus_client import REGISTRY

from chassis.ids import derived_id
from ingest.app import build
from ingest.domain import File
from ingest.settings import Settings
from ingest.store import Files, StoredElsewhere, Uses
from schemas import (
    DatasetDeleted,
    DatasetPrepared,
    EvaluationCompleted,
    Event,
    EvidenceDeleted,
    FileDeleted,
    FinetuneAdapterDeleted,
    FinetuneArmFitted,
    FinetuneCancelled,
    FinetuneFailed,
    FinetuneRequested,
    FinetuneSucceeded,
    FinetuneTrained,
    Interval,
    LabelingRequested,
    LabelsDeleted,
    LabelsPublished,
    ModelDeleted,
    ModelRegistered,
    ModelRejected,
    ObjectRef,
)
from schemas.artifacts import EmbedderFacts
from stores.mongo import connect
from stores.orphans import OrphanSweep
from testkit import Space, eventually, running

TENANT = "tenant_a"
CANARY = "the heron on platform nine"
ROWS = b"\n".join(
    json.dumps({"prompt": f"{CANARY} {n}", "completion": f"{CANARY} says {n % 3}"}).encode() for n in range(60)
)
BARE = b"\n".join(json.dumps({"text": f"{CANARY} {n}"}).encode() for n in range(3))
PAGE = f"# {CANARY}\n\nstands there".encode()
REF = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=7)
JOB, MODEL = "ftjob-1", "ft:base:acme::1"


@dataclass
class Harness:
    """A running ingest whose trainer, registry, evaluator and labeling are played by the test."""

    space: Space
    http: httpx2.AsyncClient
    sdk: openai.AsyncOpenAI
    publish: Any
    seen: Any
    files: Files

    async def upload(self, body: bytes = ROWS, name: str = "rows.jsonl") -> str:
        file = await self.sdk.files.create(file=(name, body), purpose="user_data")

        async def read() -> bool:
            return (await self.sdk.files.retrieve(file.id)).status == "processed"

        await eventually(read)
        return file.id

    async def prepared(self, file_id: str) -> DatasetPrepared:
        found = await eventually(lambda: [one for one in self.seen.of(DatasetPrepared) if one.file_id == file_id])
        return found[0]

    async def delete(self, file_id: str) -> list[dict[str, str]]:
        deleted = await self.sdk.files.delete(file_id)
        assert (deleted.id, deleted.object, deleted.deleted) == (file_id, "file", True)
        return list((deleted.model_extra or {})["kept"])

    async def datasets(self) -> list[str]:
        return [one["id"] for one in (await self.http.get("/v1/datasets")).json()["data"]]

    async def keys(self) -> list[str]:
        return await self.space.objects().keys("tenants/")

    async def said(self) -> str:
        """All that the service's documents say."""
        database = connect(self.space.settings(Settings, "ingest"), "ingest")
        names = ("files", "datasets", "uses", "stored_elsewhere", "arriving")
        found = [await database[name].find().to_list() for name in names]
        return json.dumps(found, default=str, ensure_ascii=False)

    async def purged(self, file_id: str) -> None:
        """Wait until a deleted file is done with, and so is what its dataset version comes to."""
        files = connect(self.space.settings(Settings, "ingest"), "ingest")["files"]
        await eventually(lambda: files.find_one({"_id": file_id, "purged": True}))

    async def nothing_is_left(self) -> None:
        async def gone() -> bool:
            return await self.keys() == [] and CANARY not in await self.said()

        await eventually(gone)

    async def stored(self) -> int:
        return int(await self.files.stored_bytes(TENANT))

    async def counts(self, size: int) -> None:
        async def counted() -> bool:
            return await self.stored() == size

        await eventually(counted)

    async def trained(
        self, prepared: DatasetPrepared, job_id: str = JOB, model_id: str = MODEL, validation: str | None = None
    ) -> None:
        """A model was made from a dataset, as the trainer and the registry tell of it."""
        facts: dict[str, Any] = {"tenant_id": TENANT, "job_id": job_id, "base_model": "base", "adapter_id": "ad-1"}
        await self.publish(requested(prepared.file_id, validation, job_id))
        await self.publish(
            FinetuneTrained(
                **facts,
                dataset=prepared.dataset,
                base_digest="d",
                adapter_manifest=REF,
                adapter_bytes=1000,
                training_file=str(prepared.file_id),
                trained_tokens=1,
                train_seconds=1,
                metrics={},
                hyperparameters={},
                seed=1,
            )
        )
        await self.publish(ModelRegistered(**facts, dataset=prepared.dataset, model_id=model_id, adapter_manifest=REF))
        await self.heard(model_id)

    async def digest(self, event: Event) -> None:
        """Publish an event and wait until ingest is done with it."""
        before = consumed(event)
        await self.publish(event)

        async def done() -> bool:
            return consumed(event) > before

        await eventually(done)

    async def heard(self, word: str) -> None:
        """Wait until ingest knows of something that others said."""

        async def known() -> bool:
            return word in await self.said()

        await eventually(known)


def consumed(event: Event) -> float:
    """How many events of this kind ingest is done with."""
    [family] = [one for one in REGISTRY.collect() if one.name == "events_consumed"]
    return sum(one.value for one in family.samples if one.name.endswith("_total") and one.labels["type"] == event.type)


def requested(file_id: str | None, validation: str | None = None, job_id: str = JOB) -> FinetuneRequested:
    return FinetuneRequested(
        tenant_id=TENANT,
        job_id=job_id,
        base_model="base",
        training_file=str(file_id),
        validation_file=validation,
        trigger="request",
    )


@pytest.fixture
async def harness(space: Space) -> AsyncIterator[Harness]:
    async with served(space) as made:
        yield made


@asynccontextmanager
async def served(space: Space, **overrides: Any) -> AsyncIterator[Harness]:
    app = build(space.settings(Settings, "ingest", ingest_lease_seconds=3, **overrides))
    key = space.bearer("ingest", TENANT)
    async with (
        running(app) as url,
        httpx2.AsyncClient(base_url=url, headers=space.headers("ingest", TENANT)) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, _strict_response_validation=True, max_retries=0) as sdk,
        space.publisher("trainer") as publish,
        space.probe("datasets", "files", "labeling") as seen,
    ):
        service = app.state.service
        arriving, uses, elsewhere = (service.collection(name) for name in ("arriving", "uses", "stored_elsewhere"))
        files = Files(*service._stores, arriving, Uses(uses), StoredElsewhere(elsewhere), service.objects)
        yield Harness(space, http, sdk, publish, seen, files)


async def test_a_deleted_file_leaves_nothing_that_was_made_from_it(harness: Harness) -> None:
    files = [await harness.upload(), await harness.upload(BARE, "bare.jsonl"), await harness.upload(PAGE, "page.md")]
    prepared = await harness.prepared(files[0])
    assert {key.split("/")[2] for key in await harness.keys()} == {"files", "documents", "datasets"}
    assert [await harness.delete(file) for file in files] == [[], [], []]
    await harness.nothing_is_left()
    [deleted] = await eventually(lambda: harness.seen.of(DatasetDeleted))
    assert (deleted.dataset_id, deleted.file_id) == (prepared.dataset.dataset_id, files[0])
    assert deleted.heldout == prepared.dataset.heldout
    assert await harness.datasets() == []
    assert (await harness.http.get(f"/v1/datasets/{prepared.dataset.dataset_id}")).status_code == 404


def end_of(what: str) -> Event:
    of_model = {"tenant_id": TENANT, "job_id": JOB, "model_id": MODEL, "adapter_id": "ad-1"}
    ends: dict[str, Event] = {
        "the model is deleted": ModelDeleted(**of_model),
        "the model is refused": ModelRejected(**of_model, reason="no better"),
        "the job is cancelled": FinetuneCancelled(tenant_id=TENANT, job_id=JOB),
    }
    return ends[what]


@pytest.mark.parametrize("end", ["the model is deleted", "the model is refused", "the job is cancelled"])
async def test_the_rows_of_a_living_model_stay_until_its_end_and_are_named(harness: Harness, end: str) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.trained(prepared)
    [kept] = await harness.delete(file_id)
    because = f"model {MODEL} was made from it"
    assert kept == {"object": "dataset", "id": prepared.dataset.dataset_id, "because": because}

    async def only_rows_are_left() -> bool:
        return {key.split("/")[2] for key in await harness.keys()} == {"datasets"}

    async def dataset_says_so() -> bool:
        shown = (await harness.http.get(f"/v1/datasets/{prepared.dataset.dataset_id}")).json()
        return (shown["id"], shown["file_deleted"]) == (prepared.dataset.dataset_id, True)

    await harness.purged(file_id)
    assert await only_rows_are_left()
    assert await dataset_says_so()
    assert await harness.stored() > 1000, "what stays counts"
    for _ in range(2):
        await harness.digest(end_of(end))
    await harness.nothing_is_left()
    deleted = await eventually(lambda: harness.seen.of(DatasetDeleted))
    assert [one.dataset_id for one in deleted] == [prepared.dataset.dataset_id]


def of_arm(kind: type[Event], **facts: Any) -> Event:
    known = {"tenant_id": TENANT, "job_id": JOB, "model_id": f"{MODEL}@head", "adapter_id": "arm-1", "arm": "head"}
    return kind(**known, **facts)


async def fitted(harness: Harness, prepared: DatasetPrepared, validation: str | None = None) -> None:
    """A job whose arm is registered."""
    facts: dict[str, Any] = {"tenant_id": TENANT, "job_id": JOB, "base_model": "base", "dataset": prepared.dataset}
    await harness.publish(requested(prepared.file_id, validation))
    await harness.publish(
        FinetuneArmFitted(
            **facts,
            arm="head",
            arm_id="arm-1",
            arm_manifest=REF,
            embedder=EmbedderFacts(id="e", digest="ab", dimensions=8),
            training_file=str(prepared.file_id),
            rows=9,
            fit_seconds=1,
            seed=1,
        )
    )
    await harness.publish(
        ModelRegistered(
            **facts, model_id=f"{MODEL}@head", adapter_id="arm-1", adapter_manifest=REF, name=MODEL, arm="head"
        )
    )
    await harness.heard(MODEL)


SUCCEEDED = FinetuneSucceeded(tenant_id=TENANT, job_id=JOB, model_id=MODEL)
REFUSED = end_of("the model is refused")


@pytest.mark.parametrize(
    ("trained", "before", "last"),
    [
        (True, [of_arm(ModelRejected, reason="no better")], end_of("the model is deleted")),
        (True, [REFUSED, SUCCEEDED], of_arm(ModelDeleted)),
        (True, [of_arm(ModelDeleted), SUCCEEDED], end_of("the model is deleted")),
        (True, [SUCCEEDED, end_of("the model is deleted")], of_arm(ModelDeleted)),
        (False, [SUCCEEDED], of_arm(ModelDeleted)),
        (False, [of_arm(ModelRejected, reason="no better")], end_of("the job is cancelled")),
    ],
)
async def test_rows_stay_while_a_version_of_the_model_is_there_or_to_come_and_no_longer(
    harness: Harness, trained: bool, before: list[Event], last: Event
) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await fitted(harness, prepared)
    if trained:
        await harness.trained(prepared)
    for event in before:
        await harness.digest(event)
    [kept] = await harness.delete(file_id)
    assert kept["because"] == f"model {MODEL} was made from it"
    await harness.digest(last)
    await harness.nothing_is_left()


async def test_an_adapter_whose_training_is_heard_of_after_its_success_keeps_the_rows(harness: Harness) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.digest(SUCCEEDED)
    await harness.trained(prepared)
    assert len(await harness.delete(file_id)) == 1
    await harness.digest(end_of("the model is deleted"))
    await harness.nothing_is_left()


async def test_an_arm_that_is_fitted_after_its_adapter_was_refused_keeps_the_rows(harness: Harness) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.trained(prepared)
    await harness.digest(REFUSED)
    await fitted(harness, prepared)
    await harness.digest(SUCCEEDED)
    assert len(await harness.delete(file_id)) == 1
    await harness.digest(of_arm(ModelDeleted))
    await harness.nothing_is_left()


async def test_what_a_job_validates_with_is_let_go_where_its_training_was_given_up(harness: Harness) -> None:
    training, validation = await harness.upload(), await harness.upload(ROWS + b"\n" + ROWS.replace(b"heron", b"crow"))
    rows, others = await harness.prepared(training), await harness.prepared(validation)
    await fitted(harness, rows, validation)
    assert [one["id"] for one in await harness.delete(validation)] == [others.dataset_id]
    await harness.digest(SUCCEEDED)
    await eventually(lambda: [one.dataset_id for one in harness.seen.of(DatasetDeleted)] == [others.dataset_id])
    assert len(await harness.delete(training)) == 1


async def test_a_job_keeps_what_it_validates_with_until_it_is_trained(harness: Harness) -> None:
    training, validation = await harness.upload(), await harness.upload(ROWS + b"\n" + ROWS.replace(b"heron", b"crow"))
    rows, others = await harness.prepared(training), await harness.prepared(validation)
    await harness.publish(requested(training, validation))
    await harness.heard(JOB)
    assert [one["id"] for one in await harness.delete(validation)] == [others.dataset_id]
    assert (await harness.delete(training))[0]["because"] == f"job {JOB} needs it"
    await harness.trained(rows, validation=validation)
    await eventually(lambda: [one.dataset_id for one in harness.seen.of(DatasetDeleted)] == [others.dataset_id])
    await harness.publish(FinetuneFailed(tenant_id=TENANT, job_id=JOB, code="gate_rejected", message="no better"))
    await harness.nothing_is_left()


async def test_rows_stay_for_the_last_model_of_two(harness: Harness) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.trained(prepared)
    await harness.trained(prepared, "ftjob-2", "ft:base:acme::2")
    [kept] = await harness.delete(file_id)
    assert all(name in kept["because"] for name in (MODEL, "ft:base:acme::2"))

    async def only_rows_are_left() -> bool:
        return {key.split("/")[2] for key in await harness.keys()} == {"datasets"}

    await eventually(only_rows_are_left)
    await harness.digest(end_of("the model is deleted"))
    assert (await harness.files._datasets.get(TENANT, prepared.dataset.dataset_id)).state == "kept"
    last = {"tenant_id": TENANT, "job_id": "ftjob-2", "model_id": "ft:base:acme::2", "adapter_id": "ad-1"}
    await harness.publish(ModelDeleted(**last))
    await harness.nothing_is_left()


async def test_published_labels_go_with_their_project_and_are_named_with_the_file_they_answer(harness: Harness) -> None:
    bare = await harness.upload(BARE, "bare.jsonl")
    await eventually(lambda: harness.seen.of(LabelingRequested))
    records = await harness.space.objects().put_bytes(f"tenants/{TENANT}/labels/proj_1/1.jsonl", ROWS)
    published = LabelsPublished(
        tenant_id=TENANT, project_id="proj_1", publication=1, file_id=bare, rows=60, records=records
    )
    await harness.publish(published)
    [prepared] = await eventually(lambda: harness.seen.of(DatasetPrepared))
    await harness.trained(prepared)
    assert [one["id"] for one in await harness.delete(bare)] == [prepared.dataset.dataset_id]
    await harness.publish(LabelsDeleted(tenant_id=TENANT, project_id="proj_1", file_id=bare))

    async def only_rows_are_left() -> bool:
        return {key.split("/")[2] for key in await harness.keys()} == {"datasets"}

    await eventually(only_rows_are_left)
    assert (await harness.sdk.files.list()).data == []
    again = published.model_copy(update={"publication": 2})
    await harness.digest(again)
    assert (await harness.sdk.files.list()).data == [], "labels of a deleted file make no file"
    await harness.publish(end_of("the model is deleted"))
    await harness.nothing_is_left()


async def test_derived_bytes_count_until_they_are_gone(harness: Harness) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    sizes = [len(body) for body in [await _bytes(harness, key) for key in await harness.keys()]]
    assert await harness.stored() == sum(sizes)
    await harness.trained(prepared)
    await harness.counts(sum(sizes) + 1000)
    evidence = EvaluationCompleted(
        tenant_id=TENANT,
        evaluation_id="ev-1",
        model_id=MODEL,
        verdict="pass",
        reason="better",
        metric="accuracy",
        scores={"candidate": Interval(value=1, low=1, high=1, n=1)},
        evidence=REF,
    )
    await harness.publish(evidence)
    await harness.counts(sum(sizes) + 1000 + REF.size)
    await harness.delete(file_id)
    await harness.publish(end_of("the model is deleted"))
    await harness.nothing_is_left()
    await harness.counts(1000 + REF.size)
    await harness.publish(EvidenceDeleted(tenant_id=TENANT, evaluation_id="ev-1", model_id=MODEL))
    await harness.publish(FinetuneAdapterDeleted(tenant_id=TENANT, job_id=JOB, adapter_id="ad-1"))
    await harness.counts(0)
    await harness.digest(evidence)
    assert await harness.stored() == 0, "what is gone is not there again because that is said late"
    await asyncio.gather(*(harness.upload(PAGE, "page.md") for _ in range(2)))
    assert await harness.stored() == sum([len(await _bytes(harness, key)) for key in await harness.keys()]) + 2 * len(
        PAGE
    )


async def test_an_adapter_of_two_jobs_counts_once_and_until_both_have_lost_it(harness: Harness) -> None:
    prepared = await harness.prepared(await harness.upload())
    before = await harness.stored()
    await harness.trained(prepared)
    await harness.trained(prepared, "ftjob-2", "ft:base:acme::2")
    await harness.counts(before + 1000)
    lost = [FinetuneAdapterDeleted(tenant_id=TENANT, job_id=job_id, adapter_id="ad-1") for job_id in (JOB, "ftjob-2")]
    for _ in range(2):
        await harness.digest(lost[0])
    assert await harness.stored() == before + 1000
    await harness.publish(lost[1])
    await harness.counts(before)


async def test_the_tasks_of_a_project_that_is_deleted_count_no_more(harness: Harness) -> None:
    file_id = await harness.upload(BARE, "bare.jsonl")
    [asked] = await eventually(lambda: harness.seen.of(LabelingRequested))
    before = await harness.stored()
    for _ in range(2):
        await harness.digest(LabelsDeleted(tenant_id=TENANT, project_id=derived_id("proj_", file_id), file_id=file_id))
    assert await harness.stored() == before - asked.records.size
    assert "project of its rows was deleted" in str((await harness.sdk.files.retrieve(file_id)).status_details)


async def _bytes(harness: Harness, key: str) -> bytes:
    objects = harness.space.objects()
    ref = ObjectRef(bucket=objects.bucket, key=key, sha256="", size=0)
    return b"".join([chunk async for chunk in objects.stream(ref)])


async def test_a_tenant_whose_storage_is_full_may_upload_again_once_what_was_made_is_gone(space: Space) -> None:
    async with served(space, ingest_tenant_bytes=len(ROWS) + 1) as harness:
        file_id = await harness.upload()
        await harness.prepared(file_id)
        with pytest.raises(openai.APIStatusError, match="storage is full"):
            await harness.upload(PAGE, "page.md")
        await harness.delete(file_id)
        await harness.nothing_is_left()
        assert await harness.upload(PAGE, "page.md")


async def test_bytes_written_between_the_removal_and_the_word_of_it_are_removed_too(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = await harness.upload(BARE, "bare.jsonl")
    remove, late = Files.remove_bytes, [BARE]

    async def remove_before_a_worker_writes(files: Files, file: File) -> None:
        await remove(files, file)
        for body in late:
            late.remove(body)
            await files._objects.put_bytes(f"tenants/{TENANT}/files/{file.id}/unlabelled.jsonl", body)
            await files.update(TENANT, file.id, File.purge_again)

    monkeypatch.setattr(Files, "remove_bytes", remove_before_a_worker_writes)
    await harness.delete(file_id)

    async def purged() -> bool:
        return (await harness.files._files.get(TENANT, file_id)).purged

    await eventually(purged)
    assert late == []
    await harness.nothing_is_left()


async def test_rows_written_late_of_a_deleted_dataset_are_removed(harness: Harness) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.delete(file_id)
    await harness.nothing_is_left()
    objects = harness.space.objects()
    for name in (prepared.dataset.dataset_id, "ds-of-an-older-copy"):
        await objects.put_bytes(f"tenants/{TENANT}/datasets/{name}/late.jsonl", ROWS)
    folders = {"datasets": harness.files.orphaned_datasets}
    await OrphanSweep(objects, "ingest", folders, every=1, age=-60).sweep()
    assert await harness.keys() == [f"tenants/{TENANT}/datasets/ds-of-an-older-copy/late.jsonl"]


async def leftovers(harness: Harness, *, purge: bool) -> dict[str, int]:
    answer = await harness.http.post("/internal/leftovers", json={"purge": purge})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_an_earlier_release_left_of_deleted_files_is_found_and_goes(harness: Harness) -> None:
    """It removed a file's bytes, kept the rows made of them, and told nobody but the indexer."""
    database = connect(harness.space.settings(Settings, "ingest"), "ingest")
    left, kept = await harness.upload(), await harness.upload(name="kept.jsonl")
    prepared = await harness.prepared(left)
    await database["files"].update_one({"_id": left}, {"$set": {"state": "deleted", "purged": True}})
    for key in await harness.keys():
        if f"/files/{left}/" in key:
            await harness.space.objects().delete(key)
    assert await leftovers(harness, purge=False) == {"purged": 0, "found": 1}
    assert prepared.dataset.dataset_id in await harness.datasets(), "looking changes nothing"
    assert [one for one in harness.seen.of(FileDeleted) if one.file_id == left] == []

    assert await leftovers(harness, purge=True) == {"purged": 1, "found": 0}
    gone = await eventually(lambda: [one for one in harness.seen.of(DatasetDeleted) if one.file_id == left])
    assert [one.dataset_id for one in gone] == [prepared.dataset.dataset_id]
    assert [one.file_id for one in harness.seen.of(FileDeleted)].count(left) == 1

    async def removed() -> bool:
        return not [key for key in await harness.keys() if prepared.dataset.dataset_id in key or left in key]

    await eventually(removed)
    assert await leftovers(harness, purge=True) == {"purged": 0, "found": 0}
    assert len(await harness.datasets()) == 1
    await harness.delete(kept)
    assert await leftovers(harness, purge=False) == {"purged": 0, "found": 0}, "what is deleted today leaves nothing"
