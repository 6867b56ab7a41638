"""Attempts that end badly: what is away or full, runs that hang, workers that die, and what counts against a job."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from worker_shop import LEASE_SECONDS, Shop, runs

from chassis.errors import Transient
from schemas import ObjectRef
from stores.mongo import PyMongoError
from testkit import eventually
from testkit.small_disk import small_disk
from trainer import training_process
from trainer.domain import Checkpoint
from trainer.run.fork_server import ForkServer
from trainer.worker import MOST_DEATHS
from work import ends
from work import worker as work_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")


HUNG = """
import signal, sys, types
from trainer.run import fork_server
from trainer.run.reports import Step

sys.modules["trainer.run.recipe"] = types.ModuleType("trainer.run.recipe")
fork_server._load_architecture = lambda _: None

def train(folder):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    at, measured = {"step": 1, "total_steps": 9, "epoch": 0.1}, {"train_loss": 1.0, "train_mean_token_accuracy": 0.5}
    print(Step(**at, **measured, learning_rate=1e-3, tokens=9, elapsed_s=0.1).model_dump_json(), flush=True)
    while True:
        signal.pause()

fork_server.train = train
fork_server.main()
"""


@pytest_asyncio.fixture(loop_scope="module")
async def own(shop: Shop) -> AsyncIterator[None]:
    """A fork_server of the test's own."""
    shop.fork_server = ForkServer()
    shop.employ()
    yield
    await shop.fork_server.close()


@pytest.fixture
def hung(own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the training, a process that takes one step, then hangs and ignores SIGTERM."""
    (tmp_path / "hung.py").write_text(HUNG)
    stub = tmp_path / "python"
    stub.write_text(
        f'#!/bin/sh\n[ "$2" = trainer.run.fork_server ] || exec {sys.executable} "$@"\n'
        f'exec {sys.executable} {tmp_path / "hung.py"} "$3" "$4"\n'
    )
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    monkeypatch.setattr(training_process, "STOP_SECONDS", 0.5)


@pytest.mark.parametrize("trouble", ["missing", "altered"])
async def test_a_checkpoint_that_cannot_be_used_is_dropped_and_costs_no_attempt(shop: Shop, trouble: str) -> None:
    stored = await shop.objects.put_bytes("checkpoint/manifest.json", b'{"files": {}}')
    ref = ObjectRef(bucket=stored.bucket, key="checkpoint/none/manifest.json", sha256=stored.sha256, size=stored.size)
    if trouble == "altered":
        ref = stored.model_copy(update={"sha256": "0" * 64})
    job_id = await shop.queue_job(12, checkpoint=Checkpoint(step=5, manifest=ref))
    async with shop.working():
        job = await shop.becomes(job_id, "evaluating")
    assert (job.lease.fence, job.lease.failures) == (2, 0)
    assert (await shop.told(job_id))[0].endswith("Starting over.")
    assert (await shop.told(job_id))[1] == "Training started again on 11 rows (attempt 2)."


@pytest.mark.parametrize("database", ["there", "away"])
async def test_a_worker_stopped_while_the_object_store_is_away_stops(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    async def away(*_: Any) -> Any:
        raise Transient("The object store cannot be reached.")

    async def cut(*_: Any, **__: Any) -> Any:
        raise PyMongoError("connection closed")

    job_id, next_id = await shop.queue_job(5000), await shop.queue_job(12)
    task = asyncio.create_task(shop.worker.run())
    await shop.reaches(job_id)
    shop.store.before_checkpoint = away
    get = shop.kept.get
    if database == "away":
        monkeypatch.setattr(shop.kept, "get", cut)
        monkeypatch.setattr(shop.kept.leases, "release", cut)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=training_process.STOP_SECONDS + 5)
    assert done
    assert task.cancelled()
    assert not runs()
    monkeypatch.setattr(shop.kept, "get", get)
    job, other = await shop.get(job_id), await shop.get(next_id)
    assert (job.state, job.lease.fence, job.lease.failures) == ("running", 1, 0)
    assert job.lease.owner == ("" if database == "there" else "worker-1")
    assert other.lease.fence == 0, "no other job is begun"


@pytest.mark.usefixtures("hung")
async def test_a_paused_run_that_does_not_end_is_killed(shop: Shop) -> None:
    job_id = await shop.queue_job(1)
    async with shop.working():
        await eventually(runs)
        await shop.change(job_id, lambda job: job.pause(2))
        job = await shop.let_go(job_id)
    assert not runs()
    assert (job.state, job.lease.failures) == ("paused", 0)


@pytest.mark.usefixtures("hung")
async def test_a_run_that_hangs_is_ended_and_given_up_after_some_attempts(shop: Shop) -> None:
    shop.employ(trainer_stall_seconds=0.5, trainer_attempts=2)
    job_id = await shop.queue_job(1)
    async with shop.working():
        job = await shop.becomes(job_id, "failed")
    assert not runs()
    assert job.error is not None
    assert "reported nothing for" in job.error.message
    assert "After 2 attempts the job was given up" in job.error.message


@pytest.mark.usefixtures("hung")
async def test_a_job_is_held_as_long_as_its_preparation_takes(shop: Shop) -> None:
    prepared = asyncio.Event()
    shop.store.before_rows = prepared.wait  # type: ignore[assignment]
    job_id = await shop.queue_job(1)
    async with shop.working():
        await shop.becomes(job_id, "running")
        await asyncio.sleep(LEASE_SECONDS * 1.5)
        assert await shop.queue.claim("worker-2", LEASE_SECONDS) is None
        prepared.set()
        await eventually(runs)


async def test_an_outage_is_no_failure_of_the_jobs_it_meets(shop: Shop) -> None:
    tries = 0

    async def away() -> None:
        nonlocal tries
        tries += 1
        if tries <= shop.settings.trainer_attempts + 1:
            raise Transient("The object store cannot be reached.") if tries % 2 else PyMongoError("connection closed")

    shop.store.before_rows = away
    job_id = await shop.queue_job(12)
    async with shop.working():
        job = await shop.becomes(job_id, "evaluating")
    assert (job.lease.failures, job.lease.fence) == (0, shop.settings.trainer_attempts + 2)
    assert "A part of Sartor is away; trying again from the last checkpoint." in await shop.told(job_id)


async def test_a_full_disk_is_no_failure_of_a_job_and_loses_no_stored_checkpoint(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_worker, "EXHAUSTED_SECONDS", 0.1)
    monkeypatch.setattr(ends, "EXHAUSTED_SECONDS", 0.5)
    job_id = await shop.queue_job(12)
    with small_disk(tmp_path / "work", 2**24) as disk:

        async def fill(step: int) -> None:
            if step == 15:
                disk.fill()

        shop.store.before_checkpoint = fill

        async def often() -> bool:
            return (await shop.get(job_id)).lease.fence > shop.settings.trainer_attempts + 1

        async with shop.working():
            await eventually(often, within=150)
            assert (await shop.get(job_id)).state == "running"
            disk.free()
            job = await shop.becomes(job_id, "evaluating")
        assert sorted(path.name for path in disk.folder.iterdir()) == []
    assert job.lease.failures == 0
    told = await shop.told(job_id)
    assert "The machine is out of resources; trying again from the last checkpoint." in told
    resumed = [int(line.split()[4]) for line in told if "resumed from step" in line]
    assert len(resumed) == job.lease.fence - 1, "every attempt but the first"
    assert resumed == sorted(resumed)
    assert resumed[0] >= 15


async def test_a_run_that_no_empty_disk_can_hold_is_given_up_with_the_reason(shop: Shop, tmp_path: Path) -> None:
    job_id = await shop.queue_job(12)
    with small_disk(tmp_path / "work", 2**17):
        async with shop.working():
            job = await shop.becomes(job_id, "failed")
    assert job.error is not None
    assert f"After {shop.settings.trainer_attempts} attempts" in job.error.message
    assert "it filled a disk of 0 MiB that was half empty" in job.error.message


@pytest.mark.usefixtures("own")
async def test_a_job_is_held_as_long_as_its_process_takes_to_start(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow"
    slow.write_text(
        f'#!/bin/sh\n[ "$2" = trainer.run.fork_server ] && sleep {LEASE_SECONDS * 1.5}\nexec {sys.executable} "$@"\n'
    )
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    job_id = await shop.queue_job(12)
    async with shop.working():
        job = await shop.becomes(job_id, "evaluating")
    assert (job.lease.fence, job.lease.failures) == (1, 0)


async def test_a_job_whose_worker_died_goes_on_before_others_begin(shop: Shop) -> None:
    first, interrupted, failing, last = [await shop.queue_job(1) for _ in range(4)]
    lease = {"owner": "dead", "fence": 1, "until_ms": 1}
    jobs = shop.kept.collection
    for job_id, counted in ((interrupted, {"unfinished": 1}), (failing, {"failures": 1})):
        await jobs.update_one({"_id": job_id}, {"$set": {"state": "running", "lease": {**lease, **counted}}})
    claimed = [await shop.queue.claim("worker-1", LEASE_SECONDS) for _ in range(5)]
    assert [job.id if job else None for job in claimed] == [interrupted, first, failing, last, None]


@pytest.mark.usefixtures("hung")
async def test_nothing_is_trained_once_the_lease_was_lost_while_preparing(shop: Shop) -> None:
    async def lose() -> None:
        other = {"$set": {"lease.owner": "worker-2", "lease.until_ms": 2**52}, "$inc": {"lease.fence": 1}}
        await shop.kept.collection.update_one({"_id": job_id}, other)

    shop.store.before_rows = lose
    job_id = await shop.queue_job(1)
    job = await shop.queue.claim("worker-1", LEASE_SECONDS)
    assert job is not None
    assert (await shop.worker.work(job)).name == "lost"
    assert [path.name for path in shop.settings.trainer_work_dir.iterdir()] == []  # type: ignore[union-attr]
    job = await shop.get(job_id)
    assert (job.state, job.lease.owner, job.lease.failures) == ("running", "worker-2", 0)
    assert await shop.jobs.history(job, limit=0, after=None) == [], "no step was taken"


@pytest.mark.usefixtures("hung")
async def test_only_attempts_whose_worker_died_count_against_a_job(shop: Shop) -> None:
    often_paused, deadly = await shop.queue_job(1), await shop.queue_job(1)
    for job_id, lease in (
        (often_paused, {"lease.fence": 3 * MOST_DEATHS}),
        (deadly, {"lease.unfinished": MOST_DEATHS}),
    ):
        await shop.kept.collection.update_one({"_id": job_id}, {"$set": lease})
    async with shop.working():
        await eventually(runs)
        await shop.change(often_paused, lambda job: job.pause(2), lambda job: job.cancel(2))
        job = await shop.becomes(deadly, "failed")
    assert job.error is not None
    assert f"{MOST_DEATHS} workers in a row died" in job.error.message
