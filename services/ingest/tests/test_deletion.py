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
class World:
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
async def world(space: Space) -> AsyncIterator[World]:
    async with served(space) as made:
        yield made


@asynccontextmanager
async def served(space: Space, **overrides: Any) -> AsyncIterator[World]:
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
        yield World(space, http, sdk, publish, seen, files)


async def test_a_deleted_file_leaves_nothing_that_was_made_from_it(world: World) -> None:
    files = [await world.upload(), await world.upload(BARE, "bare.jsonl"), await world.upload(PAGE, "page.md")]
    prepared = await world.prepared(files[0])
    assert {key.split("/")[2] for key in await world.keys()} == {"files", "documents", "datasets"}
    assert [await world.delete(file) for file in files] == [[], [], []]
    await world.nothing_is_left()
    [deleted] = await eventually(lambda: world.seen.of(DatasetDeleted))
    assert (deleted.dataset_id, deleted.file_id) == (prepared.dataset.dataset_id, files[0])
    assert deleted.heldout == prepared.dataset.heldout
    assert await world.datasets() == []
    assert (await world.http.get(f"/v1/datasets/{prepared.dataset.dataset_id}")).status_code == 404


def end_of(what: str) -> Event:
    of_model = {"tenant_id": TENANT, "job_id": JOB, "model_id": MODEL, "adapter_id": "ad-1"}
    ends: dict[str, Event] = {
        "the model is deleted": ModelDeleted(**of_model),
        "the model is refused": ModelRejected(**of_model, reason="no better"),
        "the job is cancelled": FinetuneCancelled(tenant_id=TENANT, job_id=JOB),
    }
    return ends[what]


@pytest.mark.parametrize("end", ["the model is deleted", "the model is refused", "the job is cancelled"])
async def test_the_rows_of_a_living_model_stay_until_its_end_and_are_named(world: World, end: str) -> None:
    file_id = await world.upload()
    prepared = await world.prepared(file_id)
    await world.trained(prepared)
    [kept] = await world.delete(file_id)
    because = f"model {MODEL} was made from it"
    assert kept == {"object": "dataset", "id": prepared.dataset.dataset_id, "because": because}

    async def only_rows_are_left() -> bool:
        return {key.split("/")[2] for key in await world.keys()} == {"datasets"}

    async def dataset_says_so() -> bool:
        shown = (await world.http.get(f"/v1/datasets/{prepared.dataset.dataset_id}")).json()
        return (shown["id"], shown["file_deleted"]) == (prepared.dataset.dataset_id, True)

    await eventually(only_rows_are_left)
    await eventually(dataset_says_so)
    assert await world.stored() > 1000, "what stays counts"
    for _ in range(2):
        await world.digest(end_of(end))
    await world.nothing_is_left()
    deleted = await eventually(lambda: world.seen.of(DatasetDeleted))
    assert [one.dataset_id for one in deleted] == [prepared.dataset.dataset_id]


def of_arm(kind: type[Event], **facts: Any) -> Event:
    known = {"tenant_id": TENANT, "job_id": JOB, "model_id": f"{MODEL}@head", "adapter_id": "arm-1", "arm": "head"}
    return kind(**known, **facts)


async def fitted(world: World, prepared: DatasetPrepared, validation: str | None = None) -> None:
    """A job whose arm is registered."""
    facts: dict[str, Any] = {"tenant_id": TENANT, "job_id": JOB, "base_model": "base", "dataset": prepared.dataset}
    await world.publish(requested(prepared.file_id, validation))
    await world.publish(
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
    await world.publish(
        ModelRegistered(
            **facts, model_id=f"{MODEL}@head", adapter_id="arm-1", adapter_manifest=REF, name=MODEL, arm="head"
        )
    )
    await world.heard(MODEL)


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
    world: World, trained: bool, before: list[Event], last: Event
) -> None:
    file_id = await world.upload()
    prepared = await world.prepared(file_id)
    await fitted(world, prepared)
    if trained:
        await world.trained(prepared)
    for event in before:
        await world.digest(event)
    [kept] = await world.delete(file_id)
    assert kept["because"] == f"model {MODEL} was made from it"
    await world.digest(last)
    await world.nothing_is_left()


async def test_an_adapter_whose_training_is_heard_of_after_its_success_keeps_the_rows(world: World) -> None:
    file_id = await world.upload()
    prepared = await world.prepared(file_id)
    await world.digest(SUCCEEDED)
    await world.trained(prepared)
    assert len(await world.delete(file_id)) == 1
    await world.digest(end_of("the model is deleted"))
    await world.nothing_is_left()


async def test_an_arm_that_is_fitted_after_its_adapter_was_refused_keeps_the_rows(world: World) -> None:
    file_id = await world.upload()
    prepared = await world.prepared(file_id)
    await world.trained(prepared)
    await world.digest(REFUSED)
    await fitted(world, prepared)
    await world.digest(SUCCEEDED)
    assert len(await world.delete(file_id)) == 1
    await world.digest(of_arm(ModelDeleted))
    await world.nothing_is_left()


async def test_what_a_job_validates_with_is_let_go_where_its_training_was_given_up(world: World) -> None:
    training, validation = await world.upload(), await world.upload(ROWS + b"\n" + ROWS.replace(b"heron", b"crow"))
    rows, others = await world.prepared(training), await world.prepared(validation)
    await fitted(world, rows, validation)
    assert [one["id"] for one in await world.delete(validation)] == [others.dataset_id]
    await world.digest(SUCCEEDED)
    await eventually(lambda: [one.dataset_id for one in world.seen.of(DatasetDeleted)] == [others.dataset_id])
    assert len(await world.delete(training)) == 1


async def test_a_job_keeps_what_it_validates_with_until_it_is_trained(world: World) -> None:
    training, validation = await world.upload(), await world.upload(ROWS + b"\n" + ROWS.replace(b"heron", b"crow"))
    rows, others = await world.prepared(training), await world.prepared(validation)
    await world.publish(requested(training, validation))
    await world.heard(JOB)
    assert [one["id"] for one in await world.delete(validation)] == [others.dataset_id]
    assert (await world.delete(training))[0]["because"] == f"job {JOB} needs it"
    await world.trained(rows, validation=validation)
    await eventually(lambda: [one.dataset_id for one in world.seen.of(DatasetDeleted)] == [others.dataset_id])
    await world.publish(FinetuneFailed(tenant_id=TENANT, job_id=JOB, code="gate_rejected", message="no better"))
    await world.nothing_is_left()


async def test_rows_stay_for_the_last_model_of_two(world: World) -> None:
    file_id = await world.upload()
    prepared = await world.prepared(file_id)
    await world.trained(prepared)
    await world.trained(prepared, "ftjob-2", "ft:base:acme::2")
    [kept] = await world.delete(file_id)
    assert all(name in kept["because"] for name in (MODEL, "ft:base:acme::2"))

    async def only_rows_are_left() -> bool:
        return {key.split("/")[2] for key in await world.keys()} == {"datasets"}

    await eventually(only_rows_are_left)
    await world.digest(end_of("the model is deleted"))
    assert (await world.files._datasets.get(TENANT, prepared.dataset.dataset_id)).state == "kept"
    last = {"tenant_id": TENANT, "job_id": "ftjob-2", "model_id": "ft:base:acme::2", "adapter_id": "ad-1"}
    await world.publish(ModelDeleted(**last))
    await world.nothing_is_left()


async def test_published_labels_go_with_their_project_and_are_named_with_the_file_they_answer(world: World) -> None:
    bare = await world.upload(BARE, "bare.jsonl")
    await eventually(lambda: world.seen.of(LabelingRequested))
    records = await world.space.objects().put_bytes(f"tenants/{TENANT}/labels/proj_1/1.jsonl", ROWS)
    published = LabelsPublished(
        tenant_id=TENANT, project_id="proj_1", publication=1, file_id=bare, rows=60, records=records
    )
    await world.publish(published)
    [prepared] = await eventually(lambda: world.seen.of(DatasetPrepared))
    await world.trained(prepared)
    assert [one["id"] for one in await world.delete(bare)] == [prepared.dataset.dataset_id]
    await world.publish(LabelsDeleted(tenant_id=TENANT, project_id="proj_1", file_id=bare))

    async def only_rows_are_left() -> bool:
        return {key.split("/")[2] for key in await world.keys()} == {"datasets"}

    await eventually(only_rows_are_left)
    assert (await world.sdk.files.list()).data == []
    again = published.model_copy(update={"publication": 2})
    await world.digest(again)
    assert (await world.sdk.files.list()).data == [], "labels of a deleted file make no file"
    await world.publish(end_of("the model is deleted"))
    await world.nothing_is_left()


async def test_derived_bytes_count_until_they_are_gone(world: World) -> None:
    file_id = await world.upload()
    prepared = await world.prepared(file_id)
    sizes = [len(body) for body in [await _bytes(world, key) for key in await world.keys()]]
    assert await world.stored() == sum(sizes)
    await world.trained(prepared)
    await world.counts(sum(sizes) + 1000)
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
    await world.publish(evidence)
    await world.counts(sum(sizes) + 1000 + REF.size)
    await world.delete(file_id)
    await world.publish(end_of("the model is deleted"))
    await world.nothing_is_left()
    await world.counts(1000 + REF.size)
    await world.publish(EvidenceDeleted(tenant_id=TENANT, evaluation_id="ev-1", model_id=MODEL))
    await world.publish(FinetuneAdapterDeleted(tenant_id=TENANT, job_id=JOB, adapter_id="ad-1"))
    await world.counts(0)
    await world.digest(evidence)
    assert await world.stored() == 0, "what is gone is not there again because that is said late"
    await asyncio.gather(*(world.upload(PAGE, "page.md") for _ in range(2)))
    assert await world.stored() == sum([len(await _bytes(world, key)) for key in await world.keys()]) + 2 * len(PAGE)


async def test_an_adapter_of_two_jobs_counts_once_and_until_both_have_lost_it(world: World) -> None:
    prepared = await world.prepared(await world.upload())
    before = await world.stored()
    await world.trained(prepared)
    await world.trained(prepared, "ftjob-2", "ft:base:acme::2")
    await world.counts(before + 1000)
    lost = [FinetuneAdapterDeleted(tenant_id=TENANT, job_id=job_id, adapter_id="ad-1") for job_id in (JOB, "ftjob-2")]
    for _ in range(2):
        await world.digest(lost[0])
    assert await world.stored() == before + 1000
    await world.publish(lost[1])
    await world.counts(before)


async def test_the_tasks_of_a_project_that_is_deleted_count_no_more(world: World) -> None:
    file_id = await world.upload(BARE, "bare.jsonl")
    [asked] = await eventually(lambda: world.seen.of(LabelingRequested))
    before = await world.stored()
    for _ in range(2):
        await world.digest(LabelsDeleted(tenant_id=TENANT, project_id=derived_id("proj_", file_id), file_id=file_id))
    assert await world.stored() == before - asked.records.size
    assert "project of its rows was deleted" in str((await world.sdk.files.retrieve(file_id)).status_details)


async def _bytes(world: World, key: str) -> bytes:
    objects = world.space.objects()
    ref = ObjectRef(bucket=objects.bucket, key=key, sha256="", size=0)
    return b"".join([chunk async for chunk in objects.stream(ref)])


async def test_a_tenant_whose_storage_is_full_may_upload_again_once_what_was_made_is_gone(space: Space) -> None:
    async with served(space, ingest_tenant_bytes=len(ROWS) + 1) as world:
        file_id = await world.upload()
        await world.prepared(file_id)
        with pytest.raises(openai.APIStatusError, match="storage is full"):
            await world.upload(PAGE, "page.md")
        await world.delete(file_id)
        await world.nothing_is_left()
        assert await world.upload(PAGE, "page.md")


async def test_bytes_written_between_the_removal_and_the_word_of_it_are_removed_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = await world.upload(BARE, "bare.jsonl")
    remove, late = Files.remove_bytes, [BARE]

    async def remove_before_a_worker_writes(files: Files, file: File) -> None:
        await remove(files, file)
        for body in late:
            late.remove(body)
            await files._objects.put_bytes(f"tenants/{TENANT}/files/{file.id}/unlabelled.jsonl", body)
            await files.update(TENANT, file.id, File.purge_again)

    monkeypatch.setattr(Files, "remove_bytes", remove_before_a_worker_writes)
    await world.delete(file_id)

    async def purged() -> bool:
        return (await world.files._files.get(TENANT, file_id)).purged

    await eventually(purged)
    assert late == []
    await world.nothing_is_left()


async def test_rows_written_late_of_a_deleted_dataset_are_removed(world: World) -> None:
    file_id = await world.upload()
    prepared = await world.prepared(file_id)
    await world.delete(file_id)
    await world.nothing_is_left()
    objects = world.space.objects()
    for name in (prepared.dataset.dataset_id, "ds-of-an-older-copy"):
        await objects.put_bytes(f"tenants/{TENANT}/datasets/{name}/late.jsonl", ROWS)
    folders = {"datasets": world.files.orphaned_datasets}
    await OrphanSweep(objects, "ingest", folders, every=1, age=-60).sweep()
    assert await world.keys() == [f"tenants/{TENANT}/datasets/ds-of-an-older-copy/late.jsonl"]


async def leftovers(world: World, *, purge: bool) -> dict[str, int]:
    answer = await world.http.post("/internal/leftovers", json={"purge": purge})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_an_earlier_release_left_of_deleted_files_is_found_and_goes(world: World) -> None:
    """It removed a file's bytes, kept the rows made of them, and told nobody but the indexer."""
    database = connect(world.space.settings(Settings, "ingest"), "ingest")
    left, kept = await world.upload(), await world.upload(name="kept.jsonl")
    prepared = await world.prepared(left)
    await database["files"].update_one({"_id": left}, {"$set": {"state": "deleted", "purged": True}})
    for key in await world.keys():
        if f"/files/{left}/" in key:
            await world.space.objects().delete(key)
    assert await leftovers(world, purge=False) == {"purged": 0, "found": 1}
    assert prepared.dataset.dataset_id in await world.datasets(), "looking changes nothing"
    assert [one for one in world.seen.of(FileDeleted) if one.file_id == left] == []

    assert await leftovers(world, purge=True) == {"purged": 1, "found": 0}
    gone = await eventually(lambda: [one for one in world.seen.of(DatasetDeleted) if one.file_id == left])
    assert [one.dataset_id for one in gone] == [prepared.dataset.dataset_id]
    assert [one.file_id for one in world.seen.of(FileDeleted)].count(left) == 1

    async def removed() -> bool:
        return not [key for key in await world.keys() if prepared.dataset.dataset_id in key or left in key]

    await eventually(removed)
    assert await leftovers(world, purge=True) == {"purged": 0, "found": 0}
    assert len(await world.datasets()) == 1
    await world.delete(kept)
    assert await leftovers(world, purge=False) == {"purged": 0, "found": 0}, "what is deleted today leaves nothing"
