"""Arms in memory: loaded and proved once for all who wait, believed for a while, up to a number of bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import structlog
from prometheus_client import Counter, Gauge

from arms import FittedArm, WrongArm, prove, unpack
from chassis.believed import Believed
from chassis.clock import wall
from chassis.errors import Conflict, SartorError, Transient
from rag_indexer.arms.reading import ArmFiles, manifest_of, wrong
from rag_indexer.embedding import Embedding
from rag_indexer.fair_executor import FairExecutor, Lane
from schemas import ObjectRef
from schemas.http.rag_indexer import STALE_ARM

log = structlog.get_logger()

HELD = Gauge("arms_held", "Arms in memory.")
HELD_BYTES = Gauge("arms_held_bytes", "Bytes of the files of the arms in memory.")
LOADS = Counter("arm_loads_total", "Arms read from the object store and proved, by outcome.", ["outcome"])

LOOK_SECONDS = 60.0
"""How long an arm is asked without a look at whether its manifest is still there."""

AWAY_SECONDS = 600.0
"""How long it is asked while the object store cannot be."""

PROVED_SECONDS = 3600.0
"""How long a proof is believed; the arm is then read and proved again."""

LOADS_AT_ONCE = 2
"""In each lane; each may have the bytes of a whole arm that is not held yet."""


@dataclass(frozen=True)
class Proved:
    """An arm that said what its fingerprint says, and when it did."""

    arm: FittedArm
    at: float

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.arm.manifest.files.values())


class HeldArms:
    """Holds the arms that were asked last.

    Args:
        files: where they are read from.
        embedding: what proves them.
        executor: the thread in which they are unpacked and proved.
        most_bytes: of all that are held; the one that was loaded last stays, however large.
    """

    def __init__(self, files: ArmFiles, embedding: Embedding, executor: FairExecutor, most_bytes: int) -> None:
        self._files = files
        self._embedding = embedding
        self._executor = executor
        self._most_bytes = most_bytes
        self._believed: Believed[tuple[ObjectRef, Lane], Proved] = Believed(LOOK_SECONDS, AWAY_SECONDS, wall)
        self._held: dict[ObjectRef, Proved] = {}  # the one asked longest ago first
        self._loads: dict[Lane, asyncio.Semaphore] = {
            "people": asyncio.Semaphore(LOADS_AT_ONCE),
            "background": asyncio.Semaphore(LOADS_AT_ONCE),
        }

    async def get(self, ref: ObjectRef, who: str, lane: Lane) -> FittedArm:
        """The arm whose manifest this is.

        Args:
            ref: its manifest, which the asking tenant may read.
            who: takes turns with the others who wait, should it be loaded.
            lane: in which they wait.

        Raises:
            NotFound: a file of it is gone.
            Conflict: it is for another embedder, its files are not its own, or it does not answer as it did.
            Transient: the object store is away.
        """
        proved = await self._believed.get((ref, lane), lambda deadline: self._look(ref, deadline, who, lane))
        if ref in self._held:
            self._held[ref] = self._held.pop(ref)
        return proved.arm

    async def _look(self, ref: ObjectRef, deadline: float | None, who: str, lane: Lane) -> Proved:
        """Look whether an arm is still there, or load it where it was not proved for long.

        Each lane does, so that nobody waits for what another lane began; of two that loaded it one is kept.
        """
        known = proved = self._held.get(ref)
        try:
            async with asyncio.timeout(deadline):
                if proved is not None and wall() < proved.at + PROVED_SECONDS:
                    await self._files.manifest(ref)
                else:
                    loaded, held = await self._load(ref, who, lane), self._held.get(ref)
                    proved = loaded if held is None or held is known else held
        except TimeoutError as error:
            raise Transient(f"{ref.key}: it took too long to look after this arm.") from error
        except Transient:
            raise
        except SartorError as error:
            log.warning("arm_refused", key=ref.key, code=error.code, why=error.message)
            self._drop(ref)
            raise
        self._keep(ref, proved)
        return proved

    async def _load(self, ref: ObjectRef, who: str, lane: Lane) -> Proved:
        outcome = "failed"
        try:
            async with self._loads[lane]:
                arm = await self._proved(ref, who, lane)
            outcome = "loaded"
        except SartorError as error:
            outcome = error.code or outcome
            raise
        finally:
            LOADS.labels(outcome).inc()
        log.info("arm_loaded", arm_id=arm.arm_id, kind=arm.manifest.kind, key=ref.key)
        return Proved(arm, wall())

    async def _proved(self, ref: ObjectRef, who: str, lane: Lane) -> FittedArm:
        """Read an arm, and have it answer the questions of its fingerprint by this embedder."""
        manifest = await self._files.manifest(ref)
        said, here = manifest_of(ref, manifest), await self._embedding.facts()
        if said.embedder != here:
            stale = f"{ref.key}: fitted on vectors of {said.embedder.id}, digest {said.embedder.digest[:12]}"
            raise Conflict(f"{stale}; here is {here.id}, {here.digest[:12]}. Have it fitted again.", code=STALE_ARM)
        files = await self._files.beside(ref, said)
        try:
            arm = await self._executor.run(who, partial(unpack, manifest, files), lane)
            vectors = await self._embedding.queries([probe.question for probe in arm.probes], who, lane)
            await self._executor.run(who, partial(prove, arm, vectors), lane)
        except WrongArm as error:
            raise wrong(ref, str(error)) from error
        return arm

    def _keep(self, ref: ObjectRef, proved: Proved) -> None:
        self._held.pop(ref, None)
        self._held[ref] = proved
        while len(self._held) > 1 and self._bytes() > self._most_bytes:
            self._drop(next(iter(self._held)))
        self._count()

    def _drop(self, ref: ObjectRef) -> None:
        self._held.pop(ref, None)
        for lane in self._loads:
            self._believed.forget((ref, lane))
        self._count()

    def _bytes(self) -> int:
        return sum(proved.size for proved in self._held.values())

    def _count(self) -> None:
        HELD.set(len(self._held))
        HELD_BYTES.set(self._bytes())
