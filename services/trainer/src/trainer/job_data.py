"""Brings jobs and what they learn from together: datasets and texts arrive, and are deleted again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog
from pydantic import JsonValue

from chassis.crash import crash_point
from chassis.errors import Invalid, NotFound, Transient
from chassis.ids import now
from chassis.peers import Peer
from schemas import (
    FEWEST_TRAINING_ROWS,
    DatasetDeleted,
    DatasetPrepared,
    DatasetRejected,
    DocumentParsed,
    FileDeleted,
    LabelingRequested,
)
from schemas.artifacts import ArmKind
from schemas.http.ingest import FileText
from trainer.arms.lines import lines_without_adapter, tell_lines
from trainer.domain import Failure, Job, Text
from trainer.run.hyperparameters import resolve
from trainer.run.methods import METHODS, Method
from trainer.run.methods.pretrain import CONTEXT_LENGTH
from trainer.store import FILE_DELETED, Jobs

log = structlog.get_logger()

SAME_ROWS = (
    "validation_file: it holds the rows of the training file. Give other rows, or leave it out: then some of the "
    "training file's own are held out for validation."
)

BECAME_TEXT = ("no_rows", "no_answers")
"""Codes with which ingest says that a `user_data` file is text: no dataset, and yet something to learn from."""

BYTES_A_TOKEN = 4
"""About, of text: what a text costs is to be said before it is read."""


class Refused(Exception):
    """A job's data is there and cannot be used.

    Attributes:
        failure: why.
    """

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.failure = Failure(code=code, message=message, param=param)


class JobData:
    """Brings jobs and their data together.

    Args:
        jobs: where they are kept.
        ingest: asked for the text of a file of which no event was heard.
        longest: most tokens of a window of text.
        arms: kinds of arms that are fitted for jobs with rows.
        wake: has this replica's workers look at once for what was queued.
    """

    def __init__(
        self, jobs: Jobs, ingest: Peer, longest: int, arms: Sequence[ArmKind], wake: Callable[[], None]
    ) -> None:
        self._jobs = jobs
        self._ingest = ingest
        self._longest = longest
        self._arms = arms
        self._wake = wake

    def check(self, requested: Mapping[str, JsonValue]) -> None:
        """Refuse what this installation would not honour.

        Raises:
            Invalid: the windows of text would be longer than it allows.
        """
        length = requested.get(CONTEXT_LENGTH.name)
        if isinstance(length, int) and length > self._longest:
            param = f"hyperparameters.{CONTEXT_LENGTH.name}"
            message = f"{param}: this installation allows {self._longest} tokens at most; got {length}."
            raise Invalid(message, param=param)

    async def arrive(self, event: DatasetPrepared | DatasetRejected) -> None:
        """A file became a dataset, or will never: the jobs that wait for it go on, or end."""
        if event.file_id is None:
            return
        await self._jobs.learn(event)
        await self._advance_all(event.tenant_id, event.file_id)

    async def arrive_text(self, event: DocumentParsed | LabelingRequested) -> None:
        """A file became text without answers: the jobs that wait for it go on, or end."""
        if isinstance(event, DocumentParsed):
            text = Text(file_id=event.file_id, kind="document", object=event.text)
        else:
            text = Text(file_id=event.file_id, kind="rows", object=event.records, rows=event.rows)
        await self._jobs.learn_text(event.tenant_id, text)
        await self._advance_all(event.tenant_id, event.file_id)

    async def leave(self, event: DatasetDeleted) -> None:
        """Rows are deleted: no job waits for them or is trained on them any longer."""
        if event.file_id is None:
            return
        await self._jobs.forget(event)
        await self._advance_all(event.tenant_id, event.file_id)
        await self._lose(event.tenant_id, event.dataset_id)

    async def leave_text(self, event: FileDeleted) -> None:
        """A file is deleted: no job waits for its text or is trained on it any longer."""
        await self._jobs.forget_text(event)
        await self._advance_all(event.tenant_id, event.file_id)
        await self._lose(event.tenant_id, event.file_id)

    async def _advance_all(self, tenant_id: str, file_id: str) -> None:
        for job in await self._jobs.waiting_for(tenant_id, file_id):
            await self.advance(job)

    async def _lose(self, tenant_id: str, data_id: str) -> None:
        failure = Failure(code="file_deleted", message=FILE_DELETED)
        for job in await self._jobs.resting_on(tenant_id, data_id):
            left = await self._jobs.update(job.tenant_id, job.id, lambda it: it.lose_data(data_id, failure, now()))
            if failure in (left.error, left.setback):
                await tell_lines(self._jobs, left, lines_without_adapter(left, failure.message))

    async def begin(self, job: Job) -> Job:
        """Say that a job was accepted, and queue it if its data is there; doing it again changes nothing."""
        if not await self._jobs.told(job, "validating"):
            await self._jobs.tell(job, "created", f"Created fine-tuning job: {job.id}")
            await self._jobs.tell(job, "validating", f"Validating training file: {job.training_file}")
        return await self.advance(job)

    async def advance(self, job: Job) -> Job:
        """Queue a job if all of its data is there; fail it if some never will be."""
        if job.has_data or job.ended:
            return job
        method = METHODS[job.method]
        try:
            if method.source == "text":
                return await self._advance_on_text(job, method)
            return await self._advance_on_rows(job, method)
        except Refused as refused:
            failure = refused.failure
        except Invalid as error:
            failure = Failure(code="invalid_hyperparameters", message=error.message, param=error.param)
        job = await self._jobs.update(job.tenant_id, job.id, lambda it: it.fail(failure, now()))
        await self._jobs.tell(job, "failed", failure.message, level="error")
        return job

    async def _advance_on_rows(self, job: Job, method: Method) -> Job:
        training = await self._jobs.dataset(job.tenant_id, job.training_file)
        validation = (
            await self._jobs.dataset(job.tenant_id, job.validation_file) if job.validation_file is not None else None
        )
        for dataset, param in ((training, "training_file"), (validation, "validation_file")):
            if isinstance(dataset, DatasetRejected):
                raise Refused(f"invalid_{param}", dataset.message, param)
        if not isinstance(training, DatasetPrepared) or (job.validation_file and validation is None):
            return job
        if training.rows.total < FEWEST_TRAINING_ROWS:
            message = (
                f"training_file: {training.rows.total} different rows are too few to learn and to test from; at least "
                f"{FEWEST_TRAINING_ROWS}."
            )
            raise Refused("invalid_training_file", message, "training_file")
        if isinstance(validation, DatasetPrepared) and _same_rows(training, validation):
            raise Refused("invalid_validation_file", SAME_ROWS, "validation_file")
        chosen: dict[str, int | float | str] = {**resolve(method.hyperparameters, training.rows.train, job.requested)}
        prepared = validation if isinstance(validation, DatasetPrepared) else None
        if self._arms:
            await self._jobs.order_arm(job)
            crash_point("trainer.arm_ordered")
        job = await self._jobs.update(job.tenant_id, job.id, partial(self._enqueue, training, prepared, chosen))
        self._wake()
        await self._jobs.tell(job, "split", _split_line(training, prepared))
        await self._tell_queued(job, chosen)
        return job

    def _enqueue(
        self,
        training: DatasetPrepared,
        validation: DatasetPrepared | None,
        chosen: dict[str, int | float | str],
        job: Job,
    ) -> None:
        begins = not job.has_data
        job.enqueue(training, validation, chosen, now())
        if begins and self._arms:  # a replica that fits none may have queued it, and the fit have found it so
            job.expect_arm()

    async def _advance_on_text(self, job: Job, method: Method) -> Job:
        text = await self._jobs.text(job.tenant_id, job.training_file)
        dataset = await self._jobs.dataset(job.tenant_id, job.training_file)
        if isinstance(dataset, DatasetPrepared):
            message = (
                f"training_file: it holds rows with answers, and '{method.name}' learns from text. Use the method "
                "'supervised', or upload a document as 'assistants', or rows of the one field 'text' as 'user_data'."
            )
            raise Refused("invalid_training_file", message, "training_file")
        if await self._jobs.has_lost_text(job.tenant_id, job.training_file):
            raise Refused("invalid_training_file", FILE_DELETED, "training_file")
        if isinstance(dataset, DatasetRejected) and not (text or _became_text(dataset)):
            raise Refused("invalid_training_file", dataset.message, "training_file")
        text = text or await self._ask(job)
        if text is None:
            return job
        windows = self._windows(text, job.requested)
        chosen: dict[str, int | float | str] = {**resolve(method.hyperparameters, windows, job.requested)}
        job = await self._jobs.update(job.tenant_id, job.id, lambda it: it.enqueue_text(text, chosen, now()))
        self._wake()
        await self._tell_queued(job, chosen)
        return job

    async def _ask(self, job: Job) -> Text | None:
        """The text of a file that was read before this service listened for texts, from ingest."""
        about = "/internal/files/{}/text"
        try:
            found = await self._ingest.read(FileText, about, job.training_file, tenant_id=job.tenant_id)
        except NotFound:  # not read yet; that it never will be, or was deleted, is said by an event
            return None
        except Transient as error:
            log.warning("text_asked_later", job_id=job.id, error=error.message)
            return None
        text = Text(file_id=job.training_file, kind=found.kind, object=found.text, rows=found.rows)
        await self._jobs.learn_text(job.tenant_id, text)
        return await self._jobs.text(job.tenant_id, job.training_file)

    def _windows(self, text: Text, requested: Mapping[str, JsonValue]) -> int:
        """About how many windows a text makes; none is of two rows."""
        asked = requested.get(CONTEXT_LENGTH.name)
        length = asked if isinstance(asked, int) else self._longest
        return max(text.object.size // (BYTES_A_TOKEN * length), text.rows, 1)

    async def _tell_queued(self, job: Job, chosen: dict[str, int | float | str]) -> None:
        line = ", ".join(f"{name} {value}" for name, value in chosen.items())
        await self._jobs.tell(job, "queued", f"Files validated, the job is queued with {line}.")


def _became_text(rejected: DatasetRejected) -> bool:
    """Whether it is said only that a file is no dataset; a file of another purpose with that code is refused."""
    return rejected.purpose == "user_data" and rejected.code in BECAME_TEXT


def _same_rows(one: DatasetPrepared, other: DatasetPrepared) -> bool:
    """Whether two files hold the same rows: they are then split alike."""
    return [split.sha256 for split in one.dataset.splits] == [split.sha256 for split in other.dataset.splits]


def _split_line(training: DatasetPrepared, validation: DatasetPrepared | None) -> str:
    rows = training.rows
    if validation is None:
        return (
            f"No validation file was given: of {rows.total} rows, {rows.validation} were held out for validation and "
            f"{rows.heldout} for the evaluation; {rows.train} are trained on."
        )
    return f"Of {rows.total} rows, {rows.heldout} were held out for the evaluation; {rows.train} are trained on."
