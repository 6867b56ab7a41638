"""The child processes of a simulated trainer, and what a simulated model server holds."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chassis.children import die_with_parent
from schemas.artifacts import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    ARM_ANSWERS,
    ARM_FINGERPRINT,
    ARM_NUMBERS,
    FINGERPRINT,
    MANIFEST,
    ArmKind,
)
from serving import Proof, verify
from stores.heartbeat import Orders, beat
from testkit.base_models import base_spec
from tests.simulation.history import Worked
from tests.simulation.machine import Subprocess
from trainer.arms.fitter import FitBroke
from trainer.arms.orders import MadeArm, NoArm, Order
from trainer.run.checkpoints import CorruptArtifact
from trainer.run.checkpoints import verify as verify_checkpoint
from trainer.run.config import EXIT_FAILED_FOR_GOOD, EXIT_STOPPED, RunConfig, stored_mark
from trainer.run.reports import CheckpointSaved, Finished, Report, RowsRead, RunFailed, Started, Step

if TYPE_CHECKING:
    from tests.simulation.world import World

STEPS = 8
SAVE_EVERY = 2
FIT_BREAKS = 0.05
NO_ARM = 25
"""Of 256 data sets so many have no arm that is worth a test."""


def after_step(state: str, step: int) -> str:
    """The weights after one more step: a chain, so that a wrong or missing step shows in the end."""
    return hashlib.sha256(f"{state}/{step}".encode()).hexdigest()


def fresh(seed: int) -> str:
    """The weights before the first step."""
    return f"seed-{seed}"


def trained(seed: int) -> str:
    """The weights of an undisturbed run."""
    state = fresh(seed)
    for step in range(1, STEPS + 1):
        state = after_step(state, step)
    return state


async def training(world: World, child: Subprocess, folder: Path, parent: int) -> int:
    """What a run forked by `trainer.run.fork_server` does, with a chain of hashes for weights."""
    await asyncio.sleep(world.loop.random.uniform(0.05, 0.5))  # it is forked, or torch is loaded first
    die_with_parent(parent)

    def say(report: Report) -> None:
        line = report.model_dump_json().encode()
        world.loop.call_soon(child.stdout.write, line, context=world.loop.world_context)

    config = RunConfig.read(folder / "run.json")
    owner = child.process.name.partition("/")[0]
    job_id = folder.name.rpartition("-")[0]
    state, done = fresh(config.seed), 0
    if config.resume_from:
        resume = Path(config.resume_from)
        try:
            verify_checkpoint(resume)
        except CorruptArtifact as error:
            say(RunFailed(permanent=True, code="checkpoint_corrupt", message=str(error)))
            return EXIT_FAILED_FOR_GOOD
        saved = json.loads((resume / "state.json").read_text())
        state, done = saved["state"], saved["step"]
    say(
        Started(
            step=done,
            total_steps=STEPS,
            epochs=1,
            rows=RowsRead(used=80, left_out={}),
            validation_rows=RowsRead(used=10, left_out={}),
            unit="rows",
            note="",
            max_length=config.max_length,
            trainable_parameters=1,
        )
    )
    for step in range(done + 1, STEPS + 1):
        await asyncio.sleep(world.loop.random.uniform(0.2, 0.8))
        world.history.worked.append(Worked(world.loop.time(), job_id, owner, step))
        state = after_step(state, step)
        say(
            Step(
                step=step,
                total_steps=STEPS,
                epoch=step / STEPS,
                train_loss=1.0 / step,
                train_mean_token_accuracy=0.5,
                learning_rate=1.0,
                tokens=step,
                elapsed_s=world.loop.time(),
            )
        )
        if step % SAVE_EVERY == 0 or child.terminated:
            _write(folder / f"checkpoint-{step}", {"state.json": json.dumps({"state": state, "step": step})})
            path = f"checkpoint-{step}"
            say(CheckpointSaved(step=step, total_steps=STEPS, path=path, manifest_sha256="", metrics={}))
            while config.followed and not stored_mark(folder / f"checkpoint-{step}").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        if child.terminated:
            return EXIT_STOPPED
    _write(
        folder / "adapter",
        {
            ADAPTER_WEIGHTS: state,
            ADAPTER_CONFIG: json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}),
            FINGERPRINT: json.dumps({"probes": []}),
        },
        base_id=config.base_id,
        base_digest=config.base_digest,
        job=job_id,
    )
    digest = hashlib.sha256((folder / "adapter" / MANIFEST).read_bytes()).hexdigest()
    world.history.learnt[f"ad-{digest[:24]}"] = state
    say(
        Finished(
            step=STEPS,
            total_steps=STEPS,
            stopped_early=False,
            tokens=STEPS,
            path="adapter",
            manifest_sha256=digest,
            metrics={},
        )
    )
    return 0


def _write(folder: Path, files: dict[str, str], **facts: Any) -> None:
    folder.mkdir(exist_ok=True)
    listed = {}
    for name, text in files.items():
        (folder / name).write_text(text)
        listed[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)}
    (folder / MANIFEST).write_text(json.dumps({"files": listed, **facts}, sort_keys=True))


async def heartbeat(child: Subprocess) -> int:
    """What `python -m stores.heartbeat` does: the product's own loop, on orders read from standard input."""
    orders = Orders(**json.loads(await child.stdin.read()))
    die_with_parent(orders.parent)
    try:
        await beat(orders)
    except ProcessLookupError:
        pass
    return 0


def vectors(texts: Sequence[str]) -> dict[str, object]:
    """What rag_indexer says of questions: two numbers each."""
    numbers = b"".join(bytes((text.encode()[0], 0, 128, 63)) * 2 for text in texts)
    embedder = {"id": "made-up", "digest": "ab", "dimensions": 2}
    return {"embedder": embedder, "vectors": base64.b64encode(numbers).decode()}


class SimulatedFitter:
    """Makes an arm of hashes: always the same of the same rows and vectors, and of some none."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def fit(self, order: Order, vectors: Sequence[bytes]) -> MadeArm:
        """See `trainer.arms.fitter`."""
        random = self._world.loop.random
        await asyncio.sleep(random.uniform(0.05, random.choice((2.0, 2.0, 12.0))))
        if self._world.history.faults and random.random() < FIT_BREAKS:
            raise FitBroke("The fit did not come to an end.")
        learnt = hashlib.sha256(b"".join([*vectors, json.dumps(order.answers).encode()]))
        first, second, *_ = learnt.digest()
        if first < NO_ARM:
            raise NoArm("no more rows were answered rightly than by always saying the commonest answer.")
        texts = {ARM_NUMBERS: learnt.hexdigest(), ARM_ANSWERS: json.dumps(order.answers), ARM_FINGERPRINT: "{}"}
        files = {name: text.encode() for name, text in texts.items()}
        listed = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        manifest = json.dumps({"files": listed, "dataset": order.dataset, "created_at": order.created_at})
        kind: ArmKind = "nearest" if order.generates else order.kinds[second % len(order.kinds)]
        return MadeArm(kind, {f"{kind}_accuracy": 0.9}, files | {MANIFEST: manifest.encode()})


class SimulatedHost:
    """An engine as far as residency goes: it proves as the real one does, and takes its time."""

    engine = "tgi"
    capabilities: tuple[str, ...] = ("echo",)
    at_once = 1

    def __init__(self, world: World, replica: str) -> None:
        self._world, self._replica = world, replica
        self.base = base_spec("base")
        self.proofs: dict[str, Proof] = {}
        self.used: dict[str, float] = {}

    async def attest(self) -> None:
        """Its base never changes."""

    @property
    def held(self) -> set[str]:
        return set(self.proofs)

    async def begin(self) -> None:
        """Nothing needs starting here."""

    async def stop(self) -> None:
        """Nor stopping."""

    async def keep_running(self) -> None:
        """It runs on by itself."""

    async def ping(self) -> None:
        """It answers."""

    async def prepare(self, folders: Mapping[str, Path]) -> list[str]:
        return list(folders)

    async def load(self, folder: Path) -> Proof:
        adapter_id = verify(folder, base_id=self.base.id, base_digest=self.base.digest)
        await asyncio.sleep(self._world.loop.random.uniform(0.1, 2.0))
        self._world.history.proven.add((adapter_id, self._replica))
        self.proofs[adapter_id] = Proof(adapter_id, 0.01, 1.0)
        return self.proofs[adapter_id]

    async def unload(self, adapter_id: str) -> None:
        self.proofs.pop(adapter_id, None)
