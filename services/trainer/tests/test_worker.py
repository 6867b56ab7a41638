"""The worker with real training processes on the tiny model: what halts a run, what it outlives, what it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import pytest_asyncio

from chassis.errors import Conflict, Transient
from chassis.peers import Peer
from chassis.private_folders import HELD
from chassis.tokens import Tokens
from eventbus import AggregateStore
from schemas import DatasetPrepared, DatasetRef, ObjectRef, RowCounts
from stores.mongo import PyMongoError, connect
from stores.objects import Objects
from stores.orphans import FOUND, OrphanSweep
from testkit import Space, eventually
from testkit.small_disk import small_disk
from trainer import sweep, training_process, worker
from trainer.app import build
from trainer.domain import CLAIMABLE, Adapter, ArmFit, Checkpoint, Job, State, Text
from trainer.job_data import JobData
from trainer.job_objects import JobObjects, Rows
from trainer.run.config import FailedForGood
from trainer.run.fork_server import RUN_NAME, ForkServer
from trainer.run.reports import Finished, Report
from trainer.settings import Settings
from trainer.store import INTERRUPTED, Jobs
from trainer.sweep import Sweep
from trainer.training_process import TrainingProcess
from trainer.worker import MOST_DEATHS, Training, policy
from work import LeasedWorker, WorkQueue, ends
from work import worker as work_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANT = "tenant_a"
LEASE_SECONDS = 3.0
LONGEST = 40
LABELS = {"lost_card": "I have lost my card", "refund": "please refund my order", "close": "close my account"}


async def nothing(*_: Any) -> None:
    return None


class Store(JobObjects):
    """The object store, with something that happens before a call."""

    before_rows: Callable[[], Awaitable[None]] = staticmethod(nothing)
    before_checkpoint: Callable[[int], Awaitable[None]] = staticmethod(nothing)
    before_delete: Callable[[], Awaitable[None]] = staticmethod(nothing)

    async def fetch_rows(self, job: Job, folder: Path) -> Rows:
        await self.before_rows()
        return await super().fetch_rows(job, folder)

    async def store_checkpoint(self, job: Job, folder: Path, step: int) -> Checkpoint:
        await self.before_checkpoint(step)
        return await super().store_checkpoint(job, folder, step)

    async def delete_checkpoints(self, job: Job) -> None:
        await self.before_delete()
        await super().delete_checkpoints(job)


class Shop:
    """One worker with a queue of its own, on the real stores."""

    def __init__(self, settings: Settings, fork_server: ForkServer) -> None:
        self.settings = settings
        self.fork_server = fork_server
        database = connect(settings, "trainer")
        names = ("job_events", "checkpoints", "datasets")
        self.kept = AggregateStore(database["jobs"], Job, "trainer", lambda: None)
        fits = AggregateStore(database["arm_fits"], ArmFit, "trainer", lambda: None)
        self.jobs = Jobs(self.kept, *(database[name] for name in names), fits=fits)
        self.queue = WorkQueue(self.kept, CLAIMABLE, database["turns"], first=INTERRUPTED)
        self.objects = Objects(settings)
        self.store = Store(self.objects)
        tokens = Tokens.from_files("trainer", settings.token_private_key_file, settings.token_public_keys_file)
        self.ingest = Peer("ingest", settings.ingest_url, tokens, httpx2.AsyncClient())
        self.employ()

    def employ(self, **changes: Any) -> None:
        """The worker, under other settings."""
        settings = self.settings.model_copy(update=changes)
        self.training = Training(self.jobs, self.store, self.fork_server, settings)
        self.worker = LeasedWorker(self.queue, self.training, policy(settings), "worker-1")
        data = JobData(self.jobs, self.ingest, 1024, [], lambda: None)
        self.sweep = Sweep(self.jobs, data, self.store, "worker-1", settings.trainer_lease_seconds)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.worker.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def queue_job(self, epochs: int, *, unweighted: int = 0, tenant: str = TENANT, **facts: Any) -> str:
        """A job that may be trained: 12 rows of which one is too long, so 3 steps an epoch; some may teach nothing."""
        questions = [(label, f"{text}, {number}") for number in range(4) for label, text in LABELS.items()]
        questions[-1] = ("refund", "refund " * 200)
        messages = [
            [{"role": "user", "content": text}, {"role": "assistant", "content": label}] for label, text in questions
        ]
        for one in messages[:unweighted]:
            one[1]["weight"] = 0  # type: ignore[assignment]
        rows = "".join(json.dumps({"messages": one}) + "\n" for one in messages).encode()
        train = await self.objects.put_bytes("rows/train.jsonl", rows)
        validation = await self.objects.put_bytes("rows/validation.jsonl", b"")
        dataset = DatasetPrepared(
            tenant_id=tenant,
            dataset=DatasetRef(
                dataset_id="ds-1",
                task="classification",
                manifest=train,
                train=train,
                validation=validation,
                heldout=validation,
            ),
            file_id="file-1",
            purpose="fine-tune",
            rows=RowCounts(train=12, validation=0, heldout=0),
            labels=3,
        )
        number = await self.kept.collection.count_documents({})
        job = Job(
            id=f"ftjob-{number}",
            tenant_id=tenant,
            created_at=1767225600 + number,
            organization="acme",
            training_file="file-1",
            seed=7,
            **{"base_model": "tiny-test", **facts},
        )
        job.enqueue(dataset, None, {"n_epochs": epochs, "batch_size": 4, "learning_rate_multiplier": 10.0}, 1)
        await self.kept.add(job)
        return job.id

    async def queue_text(self, job_id: str, text: str) -> str:
        """A job that may be trained on a document; of the same text, every one makes the same adapter."""
        document = await self.objects.put_bytes("rows/text.md", text.encode())
        job = Job(
            id=job_id,
            tenant_id=TENANT,
            created_at=1767225600,
            organization="acme",
            base_model="tiny-test",
            training_file="file-9",
            seed=7,
            method="pretrain",
        )
        chosen: dict[str, int | float | str] = {"n_epochs": 8, "batch_size": 4, "learning_rate_multiplier": 10.0}
        job.enqueue_text(
            Text(file_id="file-9", kind="document", object=document), {**chosen, "context_length": LONGEST}, 1
        )
        await self.kept.add(job)
        return job.id

    async def ask(self, number: int) -> str:
        """A job that waits for the data of `file-NUMBER`."""
        job = Job(
            id=f"ftjob-{number}",
            tenant_id=TENANT,
            created_at=1767225600 + number,
            organization="acme",
            base_model="tiny-test",
            training_file=f"file-{number}",
            seed=7,
        )
        job.request()
        await self.kept.add(job)
        return job.id

    async def get(self, job_id: str, tenant: str = TENANT) -> Job:
        return await self.kept.get(tenant, job_id)

    async def change(self, job_id: str, *steps: Callable[[Job], None]) -> None:
        for step in steps:
            await self.kept.update(TENANT, job_id, step)

    async def becomes(self, job_id: str, state: State, *, within: float = 150, tenant: str = TENANT) -> Job:
        async def there() -> Job | None:
            job = await self.get(job_id, tenant)
            return job if job.state == state else None

        found: Job = await eventually(there, within=within)
        return found

    async def reaches(self, job_id: str, step: int = 1) -> Job:
        """The job once a checkpoint of that step, or a later one, is stored."""

        async def there() -> Job | None:
            job = await self.get(job_id)
            return job if job.checkpoint and job.checkpoint.step >= step else None

        found: Job = await eventually(there, within=150)
        return found

    async def let_go(self, job_id: str) -> Job:
        """The job once nobody holds it."""

        async def free() -> Job | None:
            job = await self.get(job_id)
            return job if job.lease.owner == "" else None

        found: Job = await eventually(free, within=20)
        return found

    async def told(self, job_id: str) -> list[str]:
        """What the owner was told, oldest first, metrics apart."""
        lines = await self.jobs.history(await self.get(job_id), limit=0, after=None)
        return [line.message for line in lines if line.type == "message"][::-1]

    def saved(self) -> int:
        """The newest step whose checkpoint the run has written to its folder."""
        folders = self.settings.trainer_work_dir.glob("ftjob-*/checkpoints/step-*")  # type: ignore[union-attr]
        return max((int(folder.name.removeprefix("step-")) for folder in folders), default=0)


def runs() -> list[psutil.Process]:
    """Training processes of this test that live."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and child.name() == RUN_NAME
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm() -> AsyncIterator[ForkServer]:
    """One for all tests that need no odd one: it loads torch once."""
    made = ForkServer()
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def shop(
    space: Space, warm: ForkServer, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shop:
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(sweep, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.1)
    settings = space.settings(
        Settings,
        "trainer",
        models_dir=tiny_models,
        trainer_work_dir=tmp_path / "work",
        trainer_lease_seconds=LEASE_SECONDS,
        trainer_save_every_steps=5,
        trainer_max_length=LONGEST,
        trainer_threads=1,
    )
    made = Shop(settings, warm)
    await made.objects.prepare()
    await made.kept.prepare()
    await made.jobs.prepare()
    await made.queue.prepare()
    return made


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


async def test_a_run_outlives_uploads_that_fail_and_waits_for_slow_ones(shop: Shop) -> None:
    began: list[int] = []

    async def trouble(step: int) -> None:
        began.append(step)
        if len(began) == 1:
            raise Transient("The object store cannot be reached.")
        if len(began) == 2:
            await asyncio.sleep(1.5)
            assert shop.saved() == step, "a run that goes on loses more than one save interval to a kill"

    shop.store.before_checkpoint = trouble
    job_id = await shop.queue_job(30)
    async with shop.working():
        job = await shop.becomes(job_id, "evaluating")
        listed = await shop.jobs.checkpoints(job, limit=0, after=None)
    assert (job.lease.fence, job.lease.failures) == (1, 0)
    assert [one.step for one in listed][::-1] == began[1:], "all but the failed one, the slow one too"
    assert all(after - before == 5 for before, after in pairwise(began)), "no save is passed over"
    assert await shop.told(job_id) == [
        "Training started on 11 rows.",
        f"Rows left out because they are longer than {LONGEST} tokens: 1 of 12.",
        "Training is over; testing the model on held-out rows.",
    ]


async def test_a_document_is_learned_and_a_killed_run_of_it_makes_the_same_adapter(shop: Shop) -> None:
    text = "".join(f"Bicycle {number} waits in hall {number % 7} until someone fetches it. " for number in range(120))
    whole, cut = await shop.queue_text("ftjob-whole", text), "ftjob-cut"
    async with shop.working():
        undisturbed = await shop.becomes(whole, "evaluating")
        await shop.queue_text(cut, text)
        await shop.reaches(cut, 5)
        [run] = runs()
        run.kill()
        job = await shop.becomes(cut, "evaluating")
    assert job.lease.fence == 2
    assert job.adapter is not None
    assert undisturbed.adapter is not None
    assert job.adapter.adapter_id == undisturbed.adapter.adapter_id
    metrics = job.adapter.metrics
    assert metrics["heldout_perplexity"] < metrics["base_heldout_perplexity"]
    assert metrics["heldout_gain"] > 1.96 * metrics["heldout_gain_error"]
    told = await shop.told(whole)
    assert told[0].startswith("Training started on ")
    assert told[0].endswith(" windows.")
    assert told[1].startswith("It is one document, so its last section is held out")


async def test_rows_of_text_are_learned_as_they_are(shop: Shop, tmp_path: Path) -> None:
    job = await shop.get(await shop.queue_text("ftjob-rows", "x"))
    records = b'{"text": "one"}\n{"text": "two"}\n'
    rows = await shop.objects.put_bytes("rows/records.jsonl", records)
    job.text = Text(file_id="file-9", kind="rows", object=rows)
    config = await shop.training._prepare(job, tmp_path)
    assert Path(config.train_path).read_bytes() == records
    assert (config.method, config.of_method, config.validation_path) == (
        "pretrain",
        {"context_length": float(LONGEST)},
        None,
    )
    assert config.dataset == {"file_id": "file-9", "kind": "rows", "sha256": rows.sha256}


async def test_a_job_paused_and_resumed_at_once_goes_on_where_it_was(shop: Shop) -> None:
    shop.employ(trainer_save_every_steps=20)
    job_id = await shop.queue_job(60)
    async with shop.working():
        before = await shop.reaches(job_id)
        await shop.change(job_id, lambda job: job.pause(2), lambda job: job.resume(2))
        job = await shop.becomes(job_id, "evaluating")
    assert (job.lease.fence, job.lease.failures) == (2, 0)
    resumed = next(line for line in await shop.told(job_id) if "resumed" in line)
    assert before.checkpoint is not None
    assert int(resumed.split()[4]) > before.checkpoint.step, "what was trained until the halt is kept"


@pytest.fixture
def finished(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs of the runs that came to their end."""
    found: list[str] = []
    keep = TrainingProcess._keep

    async def kept(self: TrainingProcess, report: Report) -> None:
        await keep(self, report)
        if isinstance(report, Finished):
            found.append(self._job.id)

    monkeypatch.setattr(TrainingProcess, "_keep", kept)
    return found


async def test_a_long_job_gives_its_place_to_a_tenant_who_waits_and_goes_on_where_it_was(
    shop: Shop, finished: list[str]
) -> None:
    shop.employ(trainer_slice_seconds=0.0)
    long, own = await shop.queue_job(40), await shop.queue_job(1)
    async with shop.working():
        await shop.reaches(long, 4)
        short = await shop.queue_job(3, tenant="tenant_b")
        await shop.becomes(short, "evaluating", tenant="tenant_b")
        halted = await shop.get(long)
        assert halted.state in ("queued", "running"), "it is not done yet"
        assert (await shop.get(own)).lease.fence == 0, "who waits of its own tenant is no reason"
        job = await shop.becomes(long, "evaluating")
    assert job.lease.failures == 0
    assert finished == [short, long], "no run that came to its end was thrown away"
    told = await shop.told(long)
    gave = [at for at, line in enumerate(told) if line.startswith("Others wait")]
    went_on = [int(told[at + 1].removeprefix("Training resumed from step ").split()[0]) for at in gave]
    assert gave
    assert went_on == sorted(went_on)
    assert went_on[0] >= 4


async def test_a_job_that_is_about_done_keeps_its_place(shop: Shop, finished: list[str]) -> None:
    shop.employ(trainer_slice_seconds=0.0)
    short, other = await shop.queue_job(2), await shop.queue_job(1, tenant="tenant_b")
    async with shop.working():
        job = await shop.becomes(short, "evaluating")
        assert (await shop.get(other, "tenant_b")).state in CLAIMABLE, "it waited all the time"
        listed = await shop.jobs.checkpoints(job, limit=0, after=None)
    assert job.lease.fence == 1
    assert 5 in [one.step for one in listed], "it might have given it, one step before its end"
    assert finished == [short]
    assert not [line for line in await shop.told(short) if line.startswith("Others wait")]


@pytest.mark.parametrize("watched", [True, False], ids=["halted", "unseen"])
async def test_a_run_that_was_done_before_it_could_stop_is_not_thrown_away(
    shop: Shop, finished: list[str], monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    monkeypatch.setattr(training_process, "WATCH_SECONDS", 0.1 if watched else 60)
    job_id = await shop.queue_job(2)
    store = TrainingProcess._keep

    async def done(self: TrainingProcess, report: Report) -> None:
        await store(self, report)
        if isinstance(report, Finished):
            await shop.change(job_id, lambda job: job.give_place(2))
            if watched:
                await eventually(lambda: self._halted)

    monkeypatch.setattr(TrainingProcess, "_keep", done)
    async with shop.working():
        job = await shop.becomes(job_id, "evaluating")
    assert (job.lease.fence, finished) == (1, [job_id])


async def test_an_end_is_told_before_it_is_written_so_that_it_is_come_to_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await shop.queue_job(1, base_model="none-such")
    tell, cut = shop.jobs.tell, []

    async def away(job: Job, key: str, message: str, **about: Any) -> None:
        if key == "failed" and not cut:
            cut.append(message)
            raise PyMongoError("connection closed")
        await tell(job, key, message, **about)

    monkeypatch.setattr(shop.jobs, "tell", away)
    async with shop.working():
        job = await shop.becomes(job_id, "failed")
    assert cut
    assert job.error is not None
    assert (await shop.told(job_id))[-1] == job.error.message


async def test_a_job_cancelled_after_the_database_failed_for_a_while_stops_training(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await shop.queue_job(5000)
    get, asked = shop.kept.get, 0

    async def away(*_: Any) -> Job:
        nonlocal asked
        asked += 1
        raise PyMongoError("connection closed")

    async with shop.working():
        await shop.reaches(job_id)
        [run] = runs()
        with monkeypatch.context() as cut:
            cut.setattr(shop.kept, "get", away)
            await asyncio.sleep(2 * training_process.WATCH_SECONDS)
        assert asked
        assert run.is_running(), "a healthy run outlives it"
        assert shop.kept.get == get
        await shop.change(job_id, lambda job: job.cancel(2))
        job = await shop.let_go(job_id)
    assert not runs()
    assert (job.state, job.lease.fence, job.lease.failures) == ("cancelled", 1, 0)


async def test_rows_that_teach_nothing_are_counted_and_said(shop: Shop) -> None:
    job_id = await shop.queue_job(8, unweighted=3)
    async with shop.working():
        await shop.becomes(job_id, "evaluating")
    told = await shop.told(job_id)
    assert "Training started on 8 rows." in told
    why = "every answer in them has the weight 0 and there is nothing to learn"
    assert f"Rows left out because {why}: 3 of 12." in told
    assert f"Rows left out because they are longer than {LONGEST} tokens: 1 of 12." in told


async def test_validation_rows_of_the_training_file_choose_no_epoch(shop: Shop, tmp_path: Path) -> None:
    job = await shop.get(await shop.queue_job(1))
    prepared = job.dataset
    assert prepared is not None
    own = (await shop.objects.get_bytes(prepared.dataset.train)).splitlines(keepends=True)
    new = b'{"messages": [{"role": "user", "content": "new"}, {"role": "assistant", "content": "refund"}]}\n'
    heldout = await shop.objects.put_bytes("rows/heldout.jsonl", new.replace(b"new", b"held out"))
    learned = prepared.dataset.model_copy(update={"heldout": heldout})
    job.dataset = prepared.model_copy(update={"dataset": learned})
    empty = await shop.objects.put_bytes("rows/none.jsonl", b"")

    async def validated_by(*rows: bytes) -> Rows:
        given = await shop.objects.put_bytes("rows/given.jsonl", b"".join(rows))
        validating = learned.model_copy(update={"train": given, "validation": empty})
        job.validation = prepared.model_copy(update={"dataset": validating})
        return await shop.store.fetch_rows(job, tmp_path)

    found = await validated_by(own[3], new, own[0])
    assert found.validation is not None
    assert (found.validation.read_bytes(), found.repeated) == (new, 3)
    with pytest.raises(FailedForGood, match="is in the training file too") as refused:
        await validated_by(*own[::-1])
    assert refused.value.code == "invalid_validation_file"


@pytest.mark.parametrize("base", ["../tiny-test/../tiny-test", "..", "", "gone", "{absolute}"])
async def test_a_base_model_is_a_name_and_never_a_path(shop: Shop, tmp_path: Path, base: str) -> None:
    job = await shop.get(await shop.queue_job(1))
    folder = shop.settings.models_dir / "tiny-test"
    job.base_model = base.format(absolute=folder)
    with pytest.raises(FailedForGood) as refused:
        await shop.training._prepare(job, tmp_path)
    assert refused.value.code == "base_model_missing"


async def test_a_run_is_made_with_the_patience_that_was_asked_for(shop: Shop, tmp_path: Path) -> None:
    job = await shop.get(await shop.queue_job(1))
    assert (await shop.training._prepare(job, tmp_path)).early_stop_patience == 0
    job.hyperparameters |= {"early_stop_patience": 3}
    assert (await shop.training._prepare(job, tmp_path)).early_stop_patience == 3


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


@asynccontextmanager
async def sweeping(shop: Shop) -> AsyncIterator[None]:
    task = asyncio.create_task(shop.sweep.run())
    try:
        yield
        assert not task.done(), "it goes on, whatever it met"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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


async def test_what_runs_are_forked_from_ends_with_the_service(
    space: Space, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[ForkServer] = []

    async def end(fork_server: ForkServer) -> None:
        ended.append(fork_server)

    monkeypatch.setattr(ForkServer, "close", end)
    folders = {"models_dir": tiny_models, "trainer_work_dir": tmp_path / "work"}
    app = build(space.settings(Settings, "trainer", base_model="tiny-test", **folders))
    async with app.router.lifespan_context(app):
        assert ended == []
    assert len(ended) == 1
