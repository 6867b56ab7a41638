"""Fits the arm of a job beside its training: a short lane of leased work of its own."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import structlog
from prometheus_client import Counter, Histogram

from chassis.crash import crash_point
from chassis.errors import NotFound, RateLimited, Transient, WriteRefused
from chassis.ids import now
from chassis.peers import Peer
from chassis.private_folders import PrivateFolders
from schemas.artifacts import BASE_FILE, MANIFEST, ArmKind, BaseModelSpec, EmbedderFacts, arm_id_of, rows_file
from schemas.http.rag_indexer import MOST_QUESTIONS, QuestionVectors
from trainer.arms import rows as training_rows
from trainer.arms.fitter import Fitter
from trainer.arms.giving_up import give_up_arm
from trainer.arms.lines import fitted_line, tell_lines
from trainer.arms.orders import MadeArm, NoArm, Order
from trainer.domain import ArmFit, FittedArm, Job
from trainer.job_objects import JobObjects
from trainer.settings import Settings
from trainer.store import Jobs
from trainer.worker import code_version, data_of
from work import End, GiveUp, Held, Kind, Policy, PutOff

log = structlog.get_logger()

FITS = Counter("arm_fits_total", "Arms that were to be fitted, by what came of it.", ["outcome"])
SECONDS = Histogram(
    "arm_fit_seconds",
    "Time in which an arm was fitted, its embeddings included.",
    buckets=[2**n / 4 for n in range(12)],
)

RETRY_SECONDS = 10.0
UNREADY_SECONDS = 2.0
"""Until a job is looked at again whose arm was ordered and which is not queued yet."""

MOST_FAILURES = 3
MOST_DEATHS = 3
LONGEST_AWAY_SECONDS = 3600.0
"""For which vectors, or those of one embedder, are waited for before the job goes on without an arm."""

EMBEDDING_SECONDS = 120.0
"""Longest that a portion may take: people's questions go before it."""

PROBE_CHARACTERS = 2000
"""Longest question that may become a probe, where any is as short."""

FEWEST_PROBES = 8


def policy(settings: Settings) -> Policy:
    """How long a fit is held, and how often it is tried."""
    return Policy(
        lease_seconds=settings.trainer_lease_seconds,
        most_failures=MOST_FAILURES,
        most_deaths=MOST_DEATHS,
        retry_seconds=RETRY_SECONDS,
    )


class Exchanged(Exception):
    """Vectors of two embedders came in one attempt."""


@dataclass
class Embedded:
    """Rows with the vectors of their questions.

    Attributes:
        generates: the base model is shown the closest rows: answers are rows then.
        base_digest: that model's: it is tested so, and no other answers afterwards.
        vectors: a portion each, little-endian float32.
        answers: those that differ, with the place of each.
        places: of each row's answer.
        groups: of each row, what rows that ask the same have in common.
        probes: questions that may become probes, by row.
        embedder: who made the vectors; the same for all.
    """

    generates: bool = False
    base_digest: str = ""
    vectors: list[bytes] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    probes: dict[int, str] = field(default_factory=dict)
    embedder: EmbedderFacts | None = None

    def take(self, portion: Sequence[training_rows.Row], answer: QuestionVectors) -> None:
        """Add a portion.

        Raises:
            Exchanged: its vectors are another embedder's than those before.
            Transient: they are not as many numbers as were asked for.
        """
        if self.embedder not in (None, answer.embedder):
            raise Exchanged("the embedder was exchanged meanwhile")
        self.embedder = answer.embedder
        try:
            vectors = base64.b64decode(answer.vectors, validate=True)
        except binascii.Error as error:
            raise Transient("rag_indexer answered with vectors that cannot be read.") from error
        found = np.frombuffer(vectors, dtype="<f4") if len(vectors) % 4 == 0 else np.empty(0)
        if len(found) != len(portion) * answer.embedder.dimensions or not np.isfinite(found).all():
            raise Transient("rag_indexer answered with other vectors than were asked for.")
        for one in portion:
            row, text = len(self.places), one.shown if self.generates else one.answer
            if len(one.question) <= PROBE_CHARACTERS or row < FEWEST_PROBES:
                self.probes[row] = one.question
            self.places.append(self.answers.setdefault(text, len(self.answers)))
            self.groups.append(training_rows.group_of(one.question))
        self.vectors.append(vectors)


class ArmFitting(Kind[ArmFit]):
    """Sees the arm of a job through to files that the job names.

    Args:
        jobs: where jobs are kept.
        objects: where rows and arms lie.
        rag_indexer: asked for vectors.
        fitter: fits.
        settings: which arms are tried, and folders.
    """

    name = "arm_fit"

    def __init__(self, jobs: Jobs, objects: JobObjects, rag_indexer: Peer, fitter: Fitter, settings: Settings) -> None:
        self._jobs = jobs
        self._objects = objects
        self._rag_indexer = rag_indexer
        self._fitter = fitter
        self._kinds: list[ArmKind] = settings.arms
        self._models_dir = settings.models_dir
        self._generating = settings.trainer_generating_arms and "nearest" in settings.arms
        self._lease_seconds = settings.trainer_lease_seconds
        self._folders = PrivateFolders(settings.trainer_work_dir, "trainer")

    async def attempt(self, one: ArmFit, held: Held[ArmFit]) -> None:
        """Fit, store, and hand over; where the job does not want an arm any more, nothing is left to do.

        Raises:
            End: it is done later, or there will be none.
        """
        job = await self._jobs.get(one.tenant_id, one.id)
        if not job.ended and not job.has_data:
            raise PutOff(UNREADY_SECONDS, "its job is not queued yet")
        if not job.ended and job.arm.state == "to_fit":
            await self._fit(job, one, held)
        elif job.arm.made is not None and not job.ended:
            await tell_lines(self._jobs, job, [fitted_line(job.arm.made)])  # the word of that may not have been kept
        await self._jobs.finish_fit(one)

    async def _fit(self, job: Job, one: ArmFit, held: Held[ArmFit]) -> None:
        began = time.monotonic()
        try:
            with self._folders.folder(f"arm-{job.id}") as folder:
                embedded, made = await held.while_ours(self._make(job, one, folder))
        except NoArm as error:
            raise GiveUp(str(error), "no_arm") from error
        except NotFound as error:
            raise GiveUp("its rows are not there any more.", "not_found", error) from error
        except Exchanged as error:
            one = await self._jobs.write_fit(one, lambda it: it.meet_exchange(now()))
            why = "who makes vectors of its rows has been two different ones for long."
            raise _later(one.exchanged_since, why, error) from error
        except (Transient, RateLimited) as error:
            one = await self._jobs.write_fit(one, lambda it: it.miss_vectors(now()))
            why = "what makes vectors of its rows has been away for long."
            raise _later(one.away_since, why, error) from error
        assert embedded.embedder is not None
        manifest = await self._objects.store_arm(job, one.lease.fence, made.files)
        report = await self._objects.store_report(job, one.lease.fence, made.report) if made.report else None
        fitted = FittedArm(
            kind=made.kind,
            generates=embedded.generates,
            base_digest=embedded.base_digest,
            arm_id=arm_id_of(made.files[MANIFEST]),
            manifest=manifest,
            embedder=embedded.embedder,
            rows=len(embedded.places),
            fit_seconds=time.monotonic() - began,
            metrics=made.metrics,
            report=report,
            learning_curve=made.report.curve if made.report else None,
        )
        crash_point("trainer.arm_stored")
        await self._publish(job, one, fitted)

    async def _publish(self, job: Job, one: ArmFit, fitted: FittedArm) -> None:
        """Have the job name the arm, in the one write that tells of it; of two attempts, the first."""
        job = await self._jobs.update(job.tenant_id, job.id, lambda it: it.take_arm(fitted))
        crash_point("trainer.arm_published")
        if job.arm.made != fitted:
            FITS.labels("too_late").inc()
            await self._objects.delete_arm_attempt(job, one.lease.fence)
            return
        FITS.labels(fitted.kind).inc()
        SECONDS.observe(fitted.fit_seconds)
        await tell_lines(self._jobs, job, [fitted_line(fitted)])
        log.info("arm_fitted", arm_id=fitted.arm_id, kind=fitted.kind, **fitted.metrics)

    async def ended(self, one: ArmFit, end: End) -> None:
        """Have the job go on without an arm where none could be fitted, and say so."""
        if not isinstance(end, GiveUp):
            return
        if not await self._jobs.renew_fit(one, self._lease_seconds):
            raise WriteRefused("Another worker fits the arm by now, or nobody wants it any more.")
        if await give_up_arm(self._jobs, one.tenant_id, one.id, str(end)):
            FITS.labels("none").inc()
        await self._jobs.finish_fit(one)

    async def _make(self, job: Job, one: ArmFit, folder: Path) -> tuple[Embedded, MadeArm]:
        if not self._kinds:
            raise NoArm("this installation tries none any more.")
        embedded = await self._embed(job, one, folder)
        assert embedded.embedder is not None
        order = Order(
            kinds=self._kinds,
            generates=embedded.generates,
            embedder=embedded.embedder,
            answers=list(embedded.answers),
            places=embedded.places,
            groups=embedded.groups,
            probes=embedded.probes,
            seed=job.seed,
            dataset=data_of(job),
            code_version=code_version(),
            created_at=job.created_at,
        )
        return embedded, await self._fitter.fit(order, embedded.vectors)

    async def _embed(self, job: Job, one: ArmFit, folder: Path) -> Embedded:
        """Vectors of the chosen rows' questions, asked for in portions, so that others are served between."""
        path = folder / rows_file("train")
        await self._objects.fetch_training_rows(job, path)
        shown_below = training_rows.SHOWN_BELOW[job.learns_from.task] if self._generating else 0.0
        chosen = await asyncio.to_thread(training_rows.choose, path, job.seed, shown_below=shown_below)
        rows = training_rows.read(path, chosen)
        embedded = Embedded(chosen.generates, self._digest_of(job.base_model) if chosen.generates else "")
        while portion := await asyncio.to_thread(lambda: list(islice(rows, MOST_QUESTIONS))):
            embedded.take(portion, await self._vectors_of(job, [one.question for one in portion]))
            if one.away_since is not None:
                one = await self._jobs.write_fit(one, ArmFit.get_vectors)
        return embedded

    def _digest_of(self, base_model: str) -> str:
        try:
            return BaseModelSpec.model_validate_json((self._models_dir / base_model / BASE_FILE).read_bytes()).digest
        except (OSError, ValueError) as error:
            raise NoArm(f"the base model '{base_model}' cannot be read here.") from error

    async def _vectors_of(self, job: Job, texts: list[str]) -> QuestionVectors:
        try:
            return await self._rag_indexer.read(
                QuestionVectors,
                "/internal/embeddings",
                tenant_id=job.tenant_id,
                json={"texts": texts},
                timeout=EMBEDDING_SECONDS,
            )
        except NotFound as error:
            raise Transient("rag_indexer is of a release that makes no vectors of questions.") from error


def _later(since: int | None, why: str, error: Exception) -> End:
    """Another attempt after a pause; once there were such for long, none."""
    if since is not None and now() - since > LONGEST_AWAY_SECONDS:
        return GiveUp(why, "away", error)
    return PutOff(RETRY_SECONDS, str(error), error)
