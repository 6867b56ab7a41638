"""What runs leave behind goes: checkpoints, adapters that nobody serves, rows of killed runs; waiting jobs begin."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worker_shop import TENANT, Shop, sweeping

from chassis.errors import Conflict, Transient
from chassis.private_folders import HELD
from schemas import ObjectRef, RowCounts
from stores.orphans import FOUND, OrphanSweep
from testkit import eventually
from trainer import sweep, worker
from trainer.domain import Adapter, Checkpoint, Job

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_last_two_checkpoints_are_kept_and_none_once_the_adapter_is_stored(shop: Shop) -> None:
    shop.employ(trainer_save_every_steps=1)
    job_id = await shop.queue_job(6)
    kept: list[set[str]] = []

    async def stored() -> set[str]:
        prefix = f"tenants/{TENANT}/jobs/{job_id}/"
        return {key.removeprefix(prefix).rsplit("/", 1)[0] for key in await shop.objects.keys(prefix)}

    async def look(step: int) -> None:
        kept.append(await stored())

    shop.store.before_checkpoint = look
    async with shop.working():
        await shop.becomes(job_id, "evaluating")
    assert len(kept) >= 17, "a checkpoint a step, but for the last"
    assert max(len(folders) for folders in kept) == 2
    assert {folder.split("/")[1] for folder in kept[-1]} == {"checkpoint-15", "checkpoint-16"}
    sweeping_on = asyncio.create_task(shop.sweep.run())
    try:

        async def gone() -> bool:
            return await stored() == set() and (await shop.get(job_id)).checkpoints == []

        await eventually(gone)
    finally:
        sweeping_on.cancel()


@pytest.mark.parametrize("end", ["cancel", "fail", "succeed"])
async def test_checkpoints_are_deleted_when_the_job_is_over_even_if_that_fails_at_first(shop: Shop, end: str) -> None:
    ends: dict[str, Callable[[Job], None]] = {
        "cancel": lambda job: job.cancel(2),
        "fail": lambda job: job.fail(worker.Failure(code="c", message="m"), 2),
        "succeed": lambda job: job.succeed("ft:x", 2),
    }
    over, going_on = await shop.queue_job(1), await shop.queue_job(1)
    for job_id in (over, going_on):
        for name in ("attempt-1/checkpoint-5/a", "attempt-1/checkpoint-5/manifest.json", "attempt-2/checkpoint-9/a"):
            await shop.objects.put_bytes(f"tenants/{TENANT}/jobs/{job_id}/{name}", b"x")
    await shop.change(over, ends[end])
    await shop.kept.collection.update_one({"_id": over}, {"$unset": {"swept": ""}})
    tries = 0

    async def away_at_first() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Transient("The object store cannot be reached.")

    shop.store.before_delete = away_at_first
    task = asyncio.create_task(shop.sweep.run())
    try:
        await eventually(lambda: tries == 2)
        job = await shop.let_go(over)
    finally:
        task.cancel()
    assert job.swept
    assert await shop.objects.keys(f"tenants/{TENANT}/jobs/{over}/") == []
    assert len(await shop.objects.keys(f"tenants/{TENANT}/jobs/{going_on}/")) == 3
    assert tries == 2, "once for the job that is over"


async def adapter_of(shop: Shop, job_id: str, name: str) -> str:
    """A job whose adapter of that name is stored and served; the folder of its files."""
    folder = f"tenants/{TENANT}/adapters/{name}"
    await shop.objects.put_bytes(f"{folder}/adapter_model.safetensors", b"x" * 10)
    manifest = await shop.objects.put_bytes(f"{folder}/manifest.json", b"{}")
    made = worker.Adapter(
        adapter_id=name, manifest=manifest, bytes=12, base_digest="d", trained_tokens=9, train_seconds=1, metrics={}
    )
    await shop.kept.claim({"_id": job_id}, "nobody", 60)
    await shop.change(
        job_id, lambda it: it.start(2), lambda it: it.finish_training(made, 2), lambda it: it.succeed("ft:x", 2)
    )
    await shop.kept.leases.release(job_id, (await shop.get(job_id)).lease.fence)
    return folder


async def test_the_files_of_a_discarded_adapter_go_but_not_those_that_another_job_keeps(shop: Shop) -> None:
    gone, kept, twin = await shop.queue_job(1), await shop.queue_job(1), await shop.queue_job(1)
    folders = [await adapter_of(shop, one, name) for one, name in ((gone, "ad-1"), (kept, "ad-2"), (twin, "ad-2"))]
    await shop.change(gone, Job.discard_adapter)
    await shop.change(twin, Job.discard_adapter)

    async def files() -> list[str]:
        return [(await shop.get(one)).adapter_files for one in (gone, kept, twin)]

    async def done() -> bool:
        return await files() == ["deleted", "kept", "deleted"]

    async with sweeping(shop):
        await eventually(done)
        assert await shop.objects.keys(f"{folders[0]}/") == []
        assert len(await shop.objects.keys(f"{folders[1]}/")) == 2
        await shop.change(kept, Job.discard_adapter)

        async def both() -> bool:
            return await shop.objects.keys(f"{folders[1]}/") == []

        await eventually(both)


async def test_an_adapter_waits_for_a_job_that_may_be_about_to_make_the_same(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SHARED_SECONDS", 0.2)
    gone = await shop.queue_job(1)
    folder = await adapter_of(shop, gone, "ad-1")
    coming = await shop.queue_job(1)
    created = {"$set": {"created_at": (await shop.get(gone)).created_at}}
    await shop.kept.collection.update_one({"_id": coming}, created)
    await shop.change(gone, Job.discard_adapter)
    assert await shop.jobs.shares_adapter(await shop.get(gone)) == "perhaps"

    async def looked_at() -> bool:
        return (await shop.get(gone)).lease.fence > 2

    async def lost() -> bool:
        return (await shop.get(gone)).adapter_files == "deleted"

    async with sweeping(shop):
        await eventually(looked_at)
        assert len(await shop.objects.keys(f"{folder}/")) == 2
        await shop.change(coming, lambda it: it.cancel(2))
        await eventually(lost)
    assert await shop.objects.keys(f"{folder}/") == []


async def test_an_adapter_that_another_job_makes_while_it_is_asked_for_is_not_taken_for_nobodys(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, coming = await shop.queue_job(1), await shop.queue_job(1)
    await adapter_of(shop, gone, "ad-1")
    collection = shop.kept.collection
    created = {"$set": {"created_at": (await shop.get(gone)).created_at}}
    await collection.update_one({"_id": coming}, created)
    await shop.change(gone, Job.discard_adapter)
    discarded = await shop.get(gone)
    find, to_make = collection.find_one, [coming]

    async def find_and_then_made(*query: Any, **options: Any) -> Any:
        found = await find(*query, **options)
        while to_make:
            await adapter_of(shop, to_make.pop(), "ad-1")
        return found

    monkeypatch.setattr(collection, "find_one", find_and_then_made)
    assert await shop.jobs.shares_adapter(discarded) == "yes"


async def test_an_adapter_stored_while_its_job_was_cancelled_does_not_stay(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await shop.queue_job(12)
    store = shop.store.store_adapter

    async def store_and_cancel(job: Job, *facts: Any) -> Any:
        stored = await store(job, *facts)
        await shop.change(job_id, lambda it: it.cancel(2))
        return stored

    monkeypatch.setattr(shop.store, "store_adapter", store_and_cancel)

    async def lost() -> bool:
        return (await shop.get(job_id)).adapter_files == "deleted"

    async with shop.working(), sweeping(shop):
        await eventually(lost, within=150)
    assert await shop.objects.keys(f"tenants/{TENANT}/adapters/") == []


@pytest.mark.parametrize("odd", ["an earlier version's document", "no tenant", "changed meanwhile"])
async def test_a_job_that_cannot_be_begun_holds_up_no_other_and_no_deletion(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    over = await shop.queue_job(1)
    dataset = (await shop.get(over)).dataset
    assert dataset is not None
    rows = RowCounts(train=80, validation=10, heldout=10)
    await shop.jobs.learn(dataset.model_copy(update={"file_id": "file-2", "rows": rows}))
    await shop.change(over, lambda job: job.cancel(1))
    bad, good = await shop.ask(1), await shop.ask(2)
    change = {"an earlier version's document": {"requested": "auto"}, "no tenant": {"tenant_id": None}}.get(odd, {})
    if change:
        await shop.kept.collection.update_one({"_id": bad}, {"$set": change})
    known = shop.jobs.dataset

    async def changed_meanwhile(tenant_id: str, file_id: str) -> Any:
        if file_id == "file-1":
            raise Conflict("Job ftjob-1 was changed by someone else.")
        return await known(tenant_id, file_id)

    monkeypatch.setattr(shop.jobs, "dataset", changed_meanwhile)

    async def swept() -> bool:
        return bool((await shop.get(over)).swept)

    async with sweeping(shop):
        await shop.becomes(good, "queued", within=10)
        await eventually(swept)


@pytest.mark.parametrize("told_before", [[], ["created"], ["created", "validating"]])
async def test_a_waiting_job_is_said_to_be_accepted_once_however_often_it_is_looked_at(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, told_before: list[str]
) -> None:
    job_id = await shop.ask(1)
    messages = {"created": f"Created fine-tuning job: {job_id}", "validating": "Validating training file: file-1"}
    for key in told_before:
        await shop.jobs.tell(await shop.get(job_id), key, messages[key])
    looks, written = 0, 0
    known, tell = shop.jobs.dataset, shop.jobs.tell

    async def look(tenant_id: str, file_id: str) -> Any:
        nonlocal looks
        looks += 1
        return await known(tenant_id, file_id)

    async def write(*line: Any, **facts: Any) -> None:
        nonlocal written
        written += 1
        await tell(*line, **facts)

    monkeypatch.setattr(shop.jobs, "dataset", look)
    monkeypatch.setattr(shop.jobs, "tell", write)
    async with sweeping(shop):
        await eventually(lambda: looks >= 3)
    assert await shop.told(job_id) == list(messages.values())
    assert written == (0 if "validating" in told_before else 2)


async def test_what_a_later_attempt_stores_is_left_alone(shop: Shop) -> None:
    job_id = await shop.queue_job(1)
    prefix = f"tenants/{TENANT}/jobs/{job_id}"
    names = ("attempt-1/checkpoint-5/a", "attempt-2/checkpoint-9/a", "attempt-2/checkpoint-10/a", "attempt-3/x/a")
    refs = [await shop.objects.put_bytes(f"{prefix}/{name}", b"x") for name in names]
    job = await shop.get(job_id)
    job.lease.fence = 2
    manifest = refs[2].model_copy(update={"key": f"{prefix}/attempt-2/checkpoint-10/manifest.json"})
    job.checkpoint = Checkpoint(step=10, manifest=manifest)
    await shop.store.delete_older_checkpoints(job)
    left = {key.removeprefix(f"{prefix}/") for key in await shop.objects.keys(prefix)}
    assert left == {"attempt-2/checkpoint-10/a", "attempt-3/x/a"}


async def test_what_a_late_attempt_stored_of_a_job_that_was_swept_is_removed(shop: Shop) -> None:
    swept, over, going_on = [await shop.queue_job(1) for _ in range(3)]
    for job_id in (swept, over, going_on, "ftjob-unknown"):
        await shop.objects.put_bytes(f"tenants/{TENANT}/jobs/{job_id}/attempt-1/checkpoint-5/a", b"x")
    for adapter_id in ("ad-1", "ad-2"):
        await shop.objects.put_bytes(f"tenants/{TENANT}/adapters/{adapter_id}/manifest.json", b"x")
    manifest = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1)
    adapter = Adapter(
        adapter_id="ad-1", manifest=manifest, base_digest="d", trained_tokens=1, train_seconds=1, metrics={}
    )
    assert await shop.kept.claim({"_id": going_on}, "worker-1", 60)
    await shop.change(going_on, lambda job: job.start(2), lambda job: job.finish_training(adapter, 2))
    await shop.change(swept, lambda job: job.cancel(2), Job.forget_checkpoints)
    await shop.change(over, lambda job: job.cancel(2))
    before = await shop.objects.keys("tenants/")

    folders = {"jobs": shop.jobs.orphaned_checkpoints, "adapters": shop.jobs.orphaned_adapters}
    await OrphanSweep(shop.objects, "trainer", folders, every=1, age=-60).sweep()
    gone = set(before) - set(await shop.objects.keys("tenants/"))
    assert gone == {f"tenants/{TENANT}/jobs/{swept}/attempt-1/checkpoint-5/a"}
    found = {folder: FOUND.labels("trainer", folder)._value.get() for folder in folders}
    assert found == {"jobs": 2, "adapters": 1}, "one of a job that nobody knows, and one adapter without a job"


async def test_rows_of_killed_runs_are_swept_also_where_no_folder_was_named(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shop.employ(trainer_work_dir=None)
    with shop.training._folders.folder("ftjob-0") as held:
        killed = held.with_name("ftjob-1-killed")
        killed.mkdir()
        for name in (HELD, "train.jsonl"):
            (killed / name).touch()
        assert held.parent != tmp_path
        assert (held.parent.stat().st_uid, held.parent.stat().st_mode & 0o777) == (os.getuid(), 0o700)
        async with shop.working():
            await eventually(lambda: not killed.exists())
        assert held.exists(), "another run of this machine goes on"
