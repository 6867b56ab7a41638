"""A trainer as a process of its own that is killed at chosen moments, and what is left of its job."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from chassis.settings import ServiceSettings
from eventbus import AggregateStore
from schemas import DatasetPrepared, DatasetRef, FinetuneTrained, ObjectRef, RowCounts
from stores import mongo
from testkit import Space, eventually
from testkit.running import free_port
from tests.chaos.processes import environment
from trainer.domain import Job
from trainer.run.fork_server import RUN_NAME
from trainer.settings import Settings

TENANT = "tenant_a"
JOB_ID = "ftjob-killed"
SAVE_EVERY = 5
LEASE_SECONDS = 8
"""Long enough for a heartbeat to start on a busy machine, short enough to wait for after each kill."""

ROWS, BATCH = 12, 4
QUESTIONS = {
    "lost_card": ["I have lost my card", "my card is lost", "where is my card?", "card lost, please help"],
    "refund": ["please refund my order", "I want a refund", "refund the payment", "返金してください"],
    "close_account": ["close my account", "I want to close the account", "account closing", "口座を閉じたいです"],
}

Moment = Literal["any", "save", "upload", "adapter save", "adapter upload"]
Target = Literal["worker", "run", "both"]


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Attributes:
        moment: when in an attempt; `save` and `upload` are of its second checkpoint, so that it comes further.
        target: who is killed; a run also dies with its worker.
        seconds: for `any`, after its first checkpoint was begun.
    """

    moment: Moment
    target: Target = "worker"
    seconds: float = 0.0


@dataclass
class Death:
    """What one kill met, by the job's own history.

    Attributes:
        kill: as planned.
        step: the last step told of before it.
        kept: the step of the checkpoint the job could go on from.
        draft: whether it left an unfinished save.
        unstored: whether it left a save that was not stored yet.
    """

    kill: Kill
    step: int
    kept: int
    draft: bool
    unstored: bool


@dataclass
class Outcome:
    """What a job left."""

    adapter_sha256: str
    adapters: set[str]
    trained: list[tuple[str, FinetuneTrained]]
    deaths: list[Death] = field(default_factory=list)
    seconds: float = 0.0
    attempts: int = 0


class Trainer:
    """The service's process, started again after each kill; a context manager that leaves nothing running."""

    def __init__(self, space: Space, models: Path, **overrides: Any) -> None:
        self.work = space.folder / "work"
        self.settings = space.settings(
            Settings,
            "trainer",
            models_dir=models,
            base_model="tiny-test",
            trainer_work_dir=self.work,
            trainer_threads=1,
            **{"trainer_lease_seconds": LEASE_SECONDS, "trainer_save_every_steps": SAVE_EVERY, **overrides},
        )
        self._log = (space.folder / "trainer.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = environment(self.settings) | {"SARTOR_SERVICE_PORT": str(free_port())}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer"], env=settings, stdout=self._log, stderr=self._log
        )

    def terminate(self) -> None:
        """SIGTERM, and wait for the end."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def run(self) -> psutil.Process | None:
        """The training process, if there is one."""
        if self._process is None:
            return None
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if child.name() == RUN_NAME:
                        return child
        return None

    def kill(self, target: Target) -> None:
        """SIGKILL; a run dies with its worker, by the kernel's hand."""
        assert self._process is not None
        run = self.run()
        if target in ("run", "both") and run is not None:
            with contextlib.suppress(psutil.Error):
                run.kill()
        if target in ("worker", "both"):
            self._process.kill()
            self._process.wait()
        if run is not None:
            with contextlib.suppress(psutil.Error):
                run.wait(10)

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive():
            assert self._process is not None
            self._process.kill()
            self._process.wait()
        self._log.close()


async def queue_job(space: Space, jobs: AggregateStore[Job], epochs: int) -> None:
    """A job with its data, ready to be claimed; the same one in every space."""
    objects = space.objects()
    await objects.prepare()
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": label}]}
        for label, questions in QUESTIONS.items()
        for question in questions
    ]
    body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    prefix = f"tenants/{TENANT}/datasets/ds-1"
    train = await objects.put_bytes(f"{prefix}/train.jsonl", body)
    empty = await objects.put_bytes(f"{prefix}/validation.jsonl", b"")
    objects.close()
    dataset = DatasetPrepared(
        tenant_id=TENANT,
        dataset=DatasetRef(
            dataset_id="ds-1",
            task="classification",
            manifest=ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1),
            train=train,
            validation=empty,
            heldout=empty,
        ),
        file_id="file-1",
        purpose="fine-tune",
        rows=RowCounts(train=len(rows), validation=0, heldout=0),
        labels=len(QUESTIONS),
    )
    job = Job(
        id=JOB_ID,
        tenant_id=TENANT,
        created_at=1767225600,
        organization="acme",
        base_model="tiny-test",
        training_file="file-1",
        seed=7,
    )
    job.enqueue(dataset, None, {"n_epochs": epochs, "batch_size": BATCH, "learning_rate_multiplier": 10.0}, 1)
    await jobs.prepare()
    await jobs.add(job)


class Watched:
    """One space's job: its trainer, its documents, its folder."""

    def __init__(self, space: Space, trainer: Trainer) -> None:
        database = mongo.connect(space.settings(ServiceSettings, "trainer"), "trainer")
        self.space = space
        self.trainer = trainer
        self.jobs = AggregateStore(database["jobs"], Job, "trainer", lambda: None)
        self.events = database["job_events"]

    async def job(self) -> Job:
        return await self.jobs.get(TENANT, JOB_ID)

    async def over(self) -> bool:
        return (await self.job()).state not in ("queued", "running")

    async def last_step(self) -> int:
        """The newest step that the history tells of."""
        newest = self.events.find({"job_id": JOB_ID}).sort("order", -1).limit(20)
        steps = [int(found[1]) async for line in newest if (found := re.match(r"Step (\d+)/", line["message"]))]
        return max(steps, default=0)

    def folders(self, pattern: str) -> set[str]:
        """Folders of the run that is under way, for example `checkpoints/step-*`."""
        return {str(path) for path in self.trainer.work.glob(f"ftjob-*/{pattern}")}

    async def strike(self, kill: Kill) -> Death | None:
        """Wait for the moment and kill; None when the job was over before it came."""
        await self._wait(lambda: self.trainer.run() is not None, every=0.05)
        if not await self._wait(self._moment(kill), every=0.001):
            return None
        self.trainer.kill(kill.target)
        draft = bool(self.folders("checkpoints/.*.draft") | self.folders(".adapter.draft"))
        job, step = await self.job(), await self.last_step()
        kept = job.checkpoint.step if job.checkpoint else 0
        saved = [int(path[-8:]) for path in self.folders("checkpoints/step-*")]
        unstored = max(saved, default=0) > kept or bool(self.folders("adapter"))
        return Death(kill, step, kept, draft, unstored)

    def _moment(self, kill: Kill) -> Callable[[], bool]:
        if kill.moment == "any":
            until = 0.0

            def any_time() -> bool:
                nonlocal until
                if not until and self.folders("checkpoints"):
                    until = time.monotonic() + kill.seconds
                return bool(until) and time.monotonic() >= until

            return any_time
        if kill.moment == "save":
            seen: set[str] = set()

            def second_draft() -> bool:
                seen.update(self.folders("checkpoints/.step-*.draft"))
                return len(seen) > 1

            return second_draft
        if kill.moment == "upload":
            known: set[str] = set()

            def second_step() -> bool:
                known.update(self.folders("checkpoints/step-*"))
                return len(known) > 1

            return second_step
        pattern = ".adapter.draft" if kill.moment == "adapter save" else "adapter"
        return lambda: bool(self.folders(pattern))

    async def _wait(self, happened: Callable[[], bool], *, every: float) -> bool:
        deadline, looked = time.monotonic() + 300, time.monotonic()
        while not happened():
            await asyncio.sleep(every)
            if time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                if await self.over():
                    return False
            assert time.monotonic() < deadline, "the moment to kill did not come"
        return True

    async def outcome(self) -> Outcome:
        """What is stored of the job, once it is trained."""
        job = await self.job()
        assert job.state == "evaluating", (job.state, job.error)
        assert job.adapter is not None
        objects = self.space.objects()
        prefix = f"tenants/{TENANT}/adapters/"
        adapters = {key.removeprefix(prefix).split("/")[0] for key in await objects.keys(prefix)}
        manifest = json.loads(await objects.get_bytes(job.adapter.manifest))
        file = manifest["files"]["adapter_model.safetensors"]
        key = job.adapter.manifest.key.replace("manifest.json", "adapter_model.safetensors")
        await objects.get_bytes(ObjectRef(bucket=job.adapter.manifest.bucket, key=key, **file))
        objects.close()
        async with self.space.probe("finetunes") as seen:
            await eventually(lambda: seen.of(FinetuneTrained), within=60)
            await asyncio.sleep(1)
            trained = [(envelope.id, event) for envelope, event in seen.events if isinstance(event, FinetuneTrained)]
        return Outcome(str(file["sha256"]), adapters, trained, attempts=job.lease.fence)


async def train(space: Space, models: Path, epochs: int, kills: list[Kill]) -> Outcome:
    """Train the job to its end, through `kills`."""
    began = time.monotonic()
    with Trainer(space, models, trainer_lease_seconds=LEASE_SECONDS if kills else 120) as trainer:
        watched = Watched(space, trainer)
        await queue_job(space, watched.jobs, epochs)
        deaths: list[Death] = []
        for kill in kills:
            if not trainer.alive():
                trainer.start()
            death = await watched.strike(kill)
            assert death is not None, f"the job was over after {len(deaths)} kills"
            deaths.append(death)
        if not trainer.alive():
            trainer.start()
        await eventually(watched.over, within=900, every=0.2)
        outcome = await watched.outcome()
    outcome.deaths, outcome.seconds = deaths, time.monotonic() - began
    return outcome


def twenty(seed: int) -> Iterator[Kill]:
    """Kills at random moments, during saves and uploads, and at last during those of the adapter."""
    dice = random.Random(seed)
    middle: list[Kill] = [
        Kill("any", dice.choice(("worker", "worker", "both")), dice.uniform(0, 0.5)) for _ in range(8)
    ]
    middle += [Kill("save", target) for target in ("worker", "both", "run", "worker", "both")]
    middle += [Kill("upload", target) for target in ("worker", "both", "worker", "run", "worker")]
    dice.shuffle(middle)
    yield from middle
    yield Kill("adapter save")
    yield Kill("adapter upload")
