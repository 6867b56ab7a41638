"""What goes with a file, what stays for those that rest on it, and whose bytes it counts as until it is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from ingest_harness import Harness, served, tenant_of
from prometheus_client import REGISTRY

from chassis.ids import derived_id, new_id
from ingest.domain import File
from ingest.store import Files
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
from stores.orphans import OrphanSweep
from testkit import Space, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

REF = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=7)
HELD = ("files", "datasets", "uses", "stored_elsewhere", "arriving")
"""The collections that say something of files."""


def canary_of(tenant: str) -> str:
    """What the files of one test say, and nothing else does."""
    return f"the heron on platform nine of {tenant}"


def rows_of(canary: str) -> bytes:
    return b"\n".join(
        json.dumps({"prompt": f"{canary} {n}", "completion": f"{canary} says {n % 3}"}).encode() for n in range(60)
    )


@dataclass
class Canary(Harness):
    """A harness whose files say something that no other test's say, and one job of it."""

    job: str = field(default_factory=lambda: new_id("ftjob-"))
    model: str = field(default_factory=lambda: new_id("ft:base:acme::"))

    @property
    def canary(self) -> str:
        return canary_of(self.tenant)

    @property
    def rows(self) -> bytes:
        return rows_of(self.canary)

    @property
    def other_rows(self) -> bytes:
        return self.rows + b"\n" + self.rows.replace(b"heron", b"crow")

    @property
    def bare(self) -> bytes:
        return b"\n".join(json.dumps({"text": f"{self.canary} {n}"}).encode() for n in range(3))

    @property
    def page(self) -> bytes:
        return f"# {self.canary}\n\nstands there".encode()

    async def upload(self, body: bytes = b"", name: str = "rows.jsonl") -> str:
        file = await self.sdk.files.create(file=(name, body or self.rows), purpose="user_data")
        assert (await self.settled(file.id)).status == "processed"
        return file.id

    async def prepared(self, file_id: str) -> DatasetPrepared:
        found = await eventually(lambda: [one for one in self.of(DatasetPrepared) if one.file_id == file_id])
        return found[0]

    async def delete(self, file_id: str) -> list[dict[str, str]]:
        deleted = await self.sdk.files.delete(file_id)
        assert (deleted.id, deleted.object, deleted.deleted) == (file_id, "file", True)
        return list((deleted.model_extra or {})["kept"])

    async def datasets(self) -> list[str]:
        return [one["id"] for one in (await self.http.get("/v1/datasets")).json()["data"]]

    async def keys(self) -> list[str]:
        """Where bytes of its tenant lie."""
        return list(await self.objects.keys(f"tenants/{self.tenant}/"))

    async def folders(self) -> set[str]:
        return {key.split("/")[2] for key in await self.keys()}

    async def only_rows_are_left(self) -> bool:
        return await self.folders() == {"datasets"}

    async def said(self) -> str:
        """All that the service's documents say."""
        found = [await self.database[name].find().to_list() for name in HELD]
        return json.dumps(found, default=str, ensure_ascii=False)

    async def purged(self, file_id: str) -> None:
        """Wait until a deleted file is done with, and so is what its dataset version comes to."""
        await eventually(lambda: self.database["files"].find_one({"_id": file_id, "purged": True}))

    async def nothing_is_left(self) -> None:
        async def gone() -> bool:
            return await self.keys() == [] and self.canary not in await self.said()

        await eventually(gone)

    async def stored(self) -> int:
        return int(await self.files.stored_bytes(self.tenant))

    async def counts(self, size: int) -> None:
        async def counted() -> bool:
            return await self.stored() == size

        await eventually(counted)

    def event(self, what: str) -> Event:
        """What becomes of this test's job, in a word."""
        of_job = {"tenant_id": self.tenant, "job_id": self.job}
        adapter = {**of_job, "model_id": self.model, "adapter_id": "ad-1"}
        arm = {**of_job, "model_id": f"{self.model}@head", "adapter_id": "arm-1", "arm": "head"}
        events: dict[str, Event] = {
            "the job succeeds": FinetuneSucceeded(**of_job, model_id=self.model),
            "the job is cancelled": FinetuneCancelled(**of_job),
            "the model is deleted": ModelDeleted(**adapter),
            "the model is refused": ModelRejected(**adapter, reason="no better"),
            "the arm is deleted": ModelDeleted(**arm),
            "the arm is refused": ModelRejected(**arm, reason="no better"),
        }
        return events[what]

    async def hears(self, what: str) -> None:
        await self.digest(self.event(what))

    def requested(self, file_id: str | None, validation: str | None = None, job: str = "") -> FinetuneRequested:
        return FinetuneRequested(
            tenant_id=self.tenant,
            job_id=job or self.job,
            base_model="base",
            training_file=str(file_id),
            validation_file=validation,
            trigger="request",
        )

    async def trained(
        self, prepared: DatasetPrepared, job: str = "", model: str = "", validation: str | None = None
    ) -> None:
        """A model was made from a dataset, as the trainer and the registry tell of it."""
        job, model = job or self.job, model or self.model
        facts: dict[str, Any] = {"tenant_id": self.tenant, "job_id": job, "base_model": "base", "adapter_id": "ad-1"}
        await self.digest(self.requested(prepared.file_id, validation, job))
        await self.digest(
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
        await self.digest(ModelRegistered(**facts, dataset=prepared.dataset, model_id=model, adapter_manifest=REF))

    async def fitted(self, prepared: DatasetPrepared, validation: str | None = None) -> None:
        """A job whose arm is registered."""
        facts: dict[str, Any] = {
            "tenant_id": self.tenant,
            "job_id": self.job,
            "base_model": "base",
            "dataset": prepared.dataset,
        }
        await self.digest(self.requested(prepared.file_id, validation))
        await self.digest(
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
        await self.digest(
            ModelRegistered(
                **facts,
                model_id=f"{self.model}@head",
                adapter_id="arm-1",
                adapter_manifest=REF,
                name=self.model,
                arm="head",
            )
        )

    async def digest(self, event: Event) -> None:
        """Publish an event and wait until ingest is done with it."""
        before = consumed(event)
        await self.publish(event)

        async def done() -> bool:
            return consumed(event) > before

        await eventually(done)


def consumed(event: Event) -> float:
    """How many events of this kind ingest has handled."""
    return REGISTRY.get_sample_value("events_consumed_total", {"type": event.type, "outcome": "handled"}) or 0.0


@pytest.fixture
def harness(harness: Harness) -> Canary:
    return Canary(**vars(harness))


@asynccontextmanager
async def alone(space: Space, tenant: str, **overrides: Any) -> AsyncIterator[Canary]:
    """A canary in an ingest that no other test uses."""
    async with served(space, **overrides) as ingest, tenant_of(ingest, tenant) as harness:
        yield Canary(**vars(harness))


async def test_a_deleted_file_leaves_nothing_that_was_made_from_it(harness: Canary) -> None:
    files = [
        await harness.upload(),
        await harness.upload(harness.bare, "bare.jsonl"),
        await harness.upload(harness.page, "page.md"),
    ]
    prepared = await harness.prepared(files[0])
    assert await harness.folders() == {"files", "documents", "datasets"}
    assert [await harness.delete(file) for file in files] == [[], [], []]
    await harness.nothing_is_left()
    [deleted] = await eventually(lambda: harness.of(DatasetDeleted))
    assert (deleted.dataset_id, deleted.file_id) == (prepared.dataset.dataset_id, files[0])
    assert deleted.heldout == prepared.dataset.heldout
    assert await harness.datasets() == []
    assert (await harness.http.get(f"/v1/datasets/{prepared.dataset.dataset_id}")).status_code == 404


@pytest.mark.parametrize("end", ["the model is deleted", "the model is refused", "the job is cancelled"])
async def test_the_rows_of_a_living_model_stay_until_its_end_and_are_named(harness: Canary, end: str) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.trained(prepared)
    [kept] = await harness.delete(file_id)
    because = f"model {harness.model} was made from it"
    assert kept == {"object": "dataset", "id": prepared.dataset.dataset_id, "because": because}

    async def dataset_says_so() -> bool:
        shown = (await harness.http.get(f"/v1/datasets/{prepared.dataset.dataset_id}")).json()
        return (shown["id"], shown["file_deleted"]) == (prepared.dataset.dataset_id, True)

    await harness.purged(file_id)
    assert await harness.only_rows_are_left()
    assert await dataset_says_so()
    assert await harness.stored() > 1000, "what stays counts"
    for _ in range(2):
        await harness.hears(end)
    await harness.nothing_is_left()
    deleted = await eventually(lambda: harness.of(DatasetDeleted))
    assert [one.dataset_id for one in deleted] == [prepared.dataset.dataset_id]


@pytest.mark.parametrize(
    ("trained", "before", "last"),
    [
        (True, ["the arm is refused"], "the model is deleted"),
        (True, ["the model is refused", "the job succeeds"], "the arm is deleted"),
        (True, ["the arm is deleted", "the job succeeds"], "the model is deleted"),
        (True, ["the job succeeds", "the model is deleted"], "the arm is deleted"),
        (False, ["the job succeeds"], "the arm is deleted"),
        (False, ["the arm is refused"], "the job is cancelled"),
    ],
)
async def test_rows_stay_while_a_version_of_the_model_is_there_or_to_come_and_no_longer(
    harness: Canary, trained: bool, before: list[str], last: str
) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.fitted(prepared)
    if trained:
        await harness.trained(prepared)
    for what in before:
        await harness.hears(what)
    [kept] = await harness.delete(file_id)
    assert kept["because"] == f"model {harness.model} was made from it"
    await harness.hears(last)
    await harness.nothing_is_left()


async def test_an_adapter_whose_training_is_heard_of_after_its_success_keeps_the_rows(harness: Canary) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.hears("the job succeeds")
    await harness.trained(prepared)
    assert len(await harness.delete(file_id)) == 1
    await harness.hears("the model is deleted")
    await harness.nothing_is_left()


async def test_an_arm_that_is_fitted_after_its_adapter_was_refused_keeps_the_rows(harness: Canary) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.trained(prepared)
    await harness.hears("the model is refused")
    await harness.fitted(prepared)
    await harness.hears("the job succeeds")
    assert len(await harness.delete(file_id)) == 1
    await harness.hears("the arm is deleted")
    await harness.nothing_is_left()


async def test_what_a_job_validates_with_is_let_go_where_its_training_was_given_up(harness: Canary) -> None:
    training, validation = await harness.upload(), await harness.upload(harness.other_rows)
    rows, others = await harness.prepared(training), await harness.prepared(validation)
    await harness.fitted(rows, validation)
    assert [one["id"] for one in await harness.delete(validation)] == [others.dataset_id]
    await harness.hears("the job succeeds")
    await eventually(lambda: [one.dataset_id for one in harness.of(DatasetDeleted)] == [others.dataset_id])
    assert len(await harness.delete(training)) == 1


async def test_a_job_keeps_what_it_validates_with_until_it_is_trained(harness: Canary) -> None:
    training, validation = await harness.upload(), await harness.upload(harness.other_rows)
    rows, others = await harness.prepared(training), await harness.prepared(validation)
    await harness.digest(harness.requested(training, validation))
    assert [one["id"] for one in await harness.delete(validation)] == [others.dataset_id]
    assert (await harness.delete(training))[0]["because"] == f"job {harness.job} needs it"
    await harness.trained(rows, validation=validation)
    await eventually(lambda: [one.dataset_id for one in harness.of(DatasetDeleted)] == [others.dataset_id])
    await harness.publish(
        FinetuneFailed(tenant_id=harness.tenant, job_id=harness.job, code="gate_rejected", message="no better")
    )
    await harness.nothing_is_left()


async def test_rows_stay_for_the_last_model_of_two(harness: Canary) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.trained(prepared)
    job, model = new_id("ftjob-"), new_id("ft:base:acme::")
    await harness.trained(prepared, job, model)
    [kept] = await harness.delete(file_id)
    assert all(name in kept["because"] for name in (harness.model, model))
    await eventually(harness.only_rows_are_left)
    await harness.hears("the model is deleted")
    assert (await harness.files._datasets.get(harness.tenant, prepared.dataset.dataset_id)).state == "kept"
    last = ModelDeleted(tenant_id=harness.tenant, job_id=job, model_id=model, adapter_id="ad-1")
    await harness.publish(last)
    await harness.nothing_is_left()


async def test_published_labels_go_with_their_project_and_are_named_with_the_file_they_answer(harness: Canary) -> None:
    bare = await harness.upload(harness.bare, "bare.jsonl")
    await eventually(lambda: harness.of(LabelingRequested))
    project = new_id("proj_")
    records = await harness.objects.put_bytes(f"tenants/{harness.tenant}/labels/{project}/1.jsonl", harness.rows)
    published = LabelsPublished(
        tenant_id=harness.tenant, project_id=project, publication=1, file_id=bare, rows=60, records=records
    )
    await harness.publish(published)
    [prepared] = await eventually(lambda: harness.of(DatasetPrepared))
    await harness.trained(prepared)
    assert [one["id"] for one in await harness.delete(bare)] == [prepared.dataset.dataset_id]
    await harness.publish(LabelsDeleted(tenant_id=harness.tenant, project_id=project, file_id=bare))
    await eventually(harness.only_rows_are_left)
    assert (await harness.sdk.files.list()).data == []
    again = published.model_copy(update={"publication": 2})
    await harness.digest(again)
    assert (await harness.sdk.files.list()).data == [], "labels of a deleted file make no file"
    await harness.publish(harness.event("the model is deleted"))
    await harness.nothing_is_left()


async def test_derived_bytes_count_until_they_are_gone(harness: Canary) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    sizes = [len(body) for body in [await _bytes(harness, key) for key in await harness.keys()]]
    assert await harness.stored() == sum(sizes)
    await harness.trained(prepared)
    await harness.counts(sum(sizes) + 1000)
    evidence = EvaluationCompleted(
        tenant_id=harness.tenant,
        evaluation_id="ev-1",
        model_id=harness.model,
        verdict="pass",
        reason="better",
        metric="accuracy",
        scores={"candidate": Interval(value=1, low=1, high=1, n=1)},
        evidence=REF,
    )
    await harness.publish(evidence)
    await harness.counts(sum(sizes) + 1000 + REF.size)
    await harness.delete(file_id)
    await harness.publish(harness.event("the model is deleted"))
    await harness.nothing_is_left()
    await harness.counts(1000 + REF.size)
    await harness.publish(EvidenceDeleted(tenant_id=harness.tenant, evaluation_id="ev-1", model_id=harness.model))
    await harness.publish(FinetuneAdapterDeleted(tenant_id=harness.tenant, job_id=harness.job, adapter_id="ad-1"))
    await harness.counts(0)
    await harness.digest(evidence)
    assert await harness.stored() == 0, "what is gone is not there again because that is said late"
    await asyncio.gather(*(harness.upload(harness.page, "page.md") for _ in range(2)))
    assert await harness.stored() == sum([len(await _bytes(harness, key)) for key in await harness.keys()]) + 2 * len(
        harness.page
    )


async def test_an_adapter_of_two_jobs_counts_once_and_until_both_have_lost_it(harness: Canary) -> None:
    prepared = await harness.prepared(await harness.upload())
    before = await harness.stored()
    await harness.trained(prepared)
    other = new_id("ftjob-")
    await harness.trained(prepared, other, new_id("ft:base:acme::"))
    await harness.counts(before + 1000)
    lost = [
        FinetuneAdapterDeleted(tenant_id=harness.tenant, job_id=job_id, adapter_id="ad-1")
        for job_id in (harness.job, other)
    ]
    for _ in range(2):
        await harness.digest(lost[0])
    assert await harness.stored() == before + 1000
    await harness.publish(lost[1])
    await harness.counts(before)


async def test_the_tasks_of_a_project_that_is_deleted_count_no_more(harness: Canary) -> None:
    file_id = await harness.upload(harness.bare, "bare.jsonl")
    [asked] = await eventually(lambda: harness.of(LabelingRequested))
    before = await harness.stored()
    for _ in range(2):
        await harness.digest(
            LabelsDeleted(tenant_id=harness.tenant, project_id=derived_id("proj_", file_id), file_id=file_id)
        )
    assert await harness.stored() == before - asked.records.size
    assert "project of its rows was deleted" in str((await harness.sdk.files.retrieve(file_id)).status_details)


async def _bytes(harness: Canary, key: str) -> bytes:
    return b"".join([chunk async for chunk in harness.objects.read(key)])


async def test_a_tenant_whose_storage_is_full_may_upload_again_once_what_was_made_is_gone(space: Space) -> None:
    tenant = new_id("tenant_")
    full = len(rows_of(canary_of(tenant))) + 1
    async with alone(space, tenant, ingest_tenant_bytes=full) as harness:
        file_id = await harness.upload()
        await harness.prepared(file_id)
        with pytest.raises(openai.APIStatusError, match="storage is full"):
            await harness.upload(harness.page, "page.md")
        await harness.delete(file_id)
        await harness.nothing_is_left()
        assert await harness.upload(harness.page, "page.md")


async def test_bytes_written_between_the_removal_and_the_word_of_it_are_removed_too(
    harness: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = await harness.upload(harness.bare, "bare.jsonl")
    remove, late = Files.remove_bytes, [harness.bare]

    async def remove_before_a_worker_writes(files: Files, file: File) -> None:
        await remove(files, file)
        for body in late if file.id == file_id else []:
            late.remove(body)
            await files._objects.put_bytes(f"tenants/{harness.tenant}/files/{file.id}/unlabelled.jsonl", body)
            await files.update(harness.tenant, file.id, File.purge_again)

    monkeypatch.setattr(Files, "remove_bytes", remove_before_a_worker_writes)
    await harness.delete(file_id)

    async def purged() -> bool:
        return (await harness.files._files.get(harness.tenant, file_id)).purged

    await eventually(purged)
    assert late == []
    await harness.nothing_is_left()


async def test_rows_written_late_of_a_deleted_dataset_are_removed(harness: Canary) -> None:
    file_id = await harness.upload()
    prepared = await harness.prepared(file_id)
    await harness.delete(file_id)
    await harness.nothing_is_left()
    for name in (prepared.dataset.dataset_id, "ds-of-an-older-copy"):
        await harness.objects.put_bytes(f"tenants/{harness.tenant}/datasets/{name}/late.jsonl", harness.rows)
    folders = {"datasets": harness.files.orphaned_datasets}
    await OrphanSweep(harness.objects, "ingest", folders, every=1, age=-60).sweep()
    assert await harness.keys() == [f"tenants/{harness.tenant}/datasets/ds-of-an-older-copy/late.jsonl"]


async def leftovers(harness: Canary, *, purge: bool) -> dict[str, int]:
    answer = await harness.http.post("/internal/leftovers", json={"purge": purge})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_an_earlier_release_left_of_deleted_files_is_found_and_goes(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It removed a file's bytes, kept the rows made of them, and told nobody but the indexer."""
    monkeypatch.setattr("ingest.use_cases.SWEEP_SECONDS", 1.0)
    async with alone(space, new_id("tenant_")) as harness:
        left, kept = await harness.upload(), await harness.upload(name="kept.jsonl")
        prepared = await harness.prepared(left)
        await harness.database["files"].update_one({"_id": left}, {"$set": {"state": "deleted", "purged": True}})
        for key in await harness.keys():
            if f"/files/{left}/" in key:
                await harness.objects.delete(key)
        assert await leftovers(harness, purge=False) == {"purged": 0, "found": 1}
        assert prepared.dataset.dataset_id in await harness.datasets(), "looking changes nothing"
        assert [one for one in harness.of(FileDeleted) if one.file_id == left] == []

        assert await leftovers(harness, purge=True) == {"purged": 1, "found": 0}
        gone = await eventually(lambda: [one for one in harness.of(DatasetDeleted) if one.file_id == left])
        assert [one.dataset_id for one in gone] == [prepared.dataset.dataset_id]
        assert [one.file_id for one in harness.of(FileDeleted)].count(left) == 1

        async def removed() -> bool:
            return not [key for key in await harness.keys() if prepared.dataset.dataset_id in key or left in key]

        await eventually(removed)
        assert await leftovers(harness, purge=True) == {"purged": 0, "found": 0}
        assert len(await harness.datasets()) == 1
        await harness.delete(kept)
        assert await leftovers(harness, purge=False) == {"purged": 0, "found": 0}, (
            "what is deleted today leaves nothing"
        )
