"""A worker with a queue of its own on the real stores, whose training processes are real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import pytest_asyncio

from chassis.peers import Peer
from chassis.tokens import Tokens
from eventbus import AggregateStore
from schemas import DatasetPrepared, DatasetRef, RowCounts
from stores.mongo import connect
from stores.objects import Objects
from testkit import Space, eventually
from trainer import sweep, worker
from trainer.domain import CLAIMABLE, ArmFit, Checkpoint, Job, State, Text
from trainer.job_data import JobData
from trainer.job_objects import JobObjects, Rows
from trainer.run.fork_server import RUN_NAME, ForkServer
from trainer.settings import Settings
from trainer.store import INTERRUPTED, Jobs
from trainer.sweep import Sweep
from trainer.worker import Training, policy
from work import LeasedWorker, WorkQueue

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


@asynccontextmanager
async def sweeping(shop: Shop) -> AsyncIterator[None]:
    task = asyncio.create_task(shop.sweep.run())
    try:
        yield
        assert not task.done(), "it goes on, whatever it met"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
