"""What has become of an upload, gathered from the services, as a page or a stream shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from chassis.errors import SartorError
from chassis.peers import Peer
from console.answers import EvaluationAnswer, EventAnswer, FileAnswer, JobAnswer, WaitingFor
from console.paging import cursor
from console.sessions import Session, Who

STAGES = ("Checking", "Training", "Testing", "Serving")
DOCUMENT = "Kept as knowledge: it is a document, not rows to learn from. Ask with retrieval."
TEXTS = ("document", "unlabelled")
"""Kinds of files without answers to learn."""

MOST_PAGES = 20
MOST_SEARCHES = 20
CHART_POINTS = 150

STAGE_OF = {"validating_files": "waiting_for_file", "queued": "queued", "running": "training", "paused": "paused"}
"""A job's stage as far as its status tells, for a trainer that does not name it."""

WORDS = {
    "waiting_for_file": (0, 50.0, "Waiting for the file to be read"),
    "queued": (0, 50.0, "Waiting for a free worker"),
    "training": (1, 0.0, "Loading the base model"),
    "paused": (1, 0.0, "Paused"),
    "testing": (2, 0.0, "Loading the adapter"),
    "awaiting_approval": (3, 0.0, "Tested. A person decides whether it goes into use"),
    "loading": (3, 0.0, "Tested. It goes into use now"),
}
"""Of each stage of a job: which of `STAGES` it is, percent, and a note, until more is known."""


@dataclass
class Seen:
    """What somebody who follows an upload has seen, so that it is not asked for again.

    Attributes:
        job_id: of the newest job; empty while there is none.
        moment: its stage and what it waits for.
        events: its events, newest first.
        evaluation_id: of the run that tests its model.
        model: that model.
        searches: how often the project of rows without answers was looked for.
    """

    filename: str = ""
    job_id: str = ""
    moment: tuple[str, str, WaitingFor | None] | None = None
    events: list[EventAnswer] = field(default_factory=list)
    evaluation_id: str = ""
    model: str = ""
    searches: int = 0


@dataclass
class Progress:
    """One upload's way.

    Attributes:
        stage: index of the one under way, 4 when all is done.
        waiting: what it waits for, and whom, and since when.
        undecided: the model that a person must let through before it is served.
        refused: the model that was tested and not let through.
        project: where people answer rows that came without answers.
        document: it is a text to be searched; nothing is trained on it.
        method: how its newest job trains; empty where there is none.
    """

    file_id: str
    filename: str = ""
    stage: int = 0
    percent: float = 0.0
    note: str = ""
    waiting: str = ""
    failed: str = ""
    model: str = ""
    undecided: str = ""
    refused: str = ""
    project: str = ""
    document: bool = False
    method: str = ""
    over: bool = False
    losses: list[tuple[int, float]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @property
    def waits_for_people(self) -> bool:
        """Nothing moves until somebody does something."""
        return bool(self.undecided or self.project)

    @property
    def chart(self) -> str:
        """The training loss as the points of a line, 300 wide and 80 high; empty where there is no line yet."""
        if len(self.losses) < 2:
            return ""
        (first, _), (last, _) = self.losses[0], self.losses[-1]
        top = max(loss for _, loss in self.losses) or 1.0
        return " ".join(
            f"{300 * (step - first) / max(last - first, 1):.1f},{78 - 74 * loss / top:.1f}"
            for step, loss in self.losses
        )

    @property
    def loss_note(self) -> str:
        """The same in words."""
        if not self.chart:
            return ""
        (first, before), (last, now) = self.losses[0], self.losses[-1]
        return f"Training loss, {before:.3f} at step {first}, {now:.3f} at step {last}: lower is closer to your data"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        shown = {"waits_for_people": self.waits_for_people, "chart": self.chart, "loss_note": self.loss_note}
        return {**asdict(self), **shown}


class Watcher:
    """Asks ingest, the trainer, the evaluator and labeling: the trainer alone while a job is under way."""

    def __init__(self, ingest: Peer, trainer: Peer, evaluator: Peer, labeling: Peer) -> None:
        self._ingest = ingest
        self._trainer = trainer
        self._evaluator = evaluator
        self._labeling = labeling

    async def look(self, session: Session, file_id: str, seen: Seen | None = None) -> Progress:
        """Where an upload stands now.

        Args:
            session: who asks.
            file_id: the upload.
            seen: what earlier looks saw; this one adds to it.

        Raises:
            NotFound: it is not this tenant's.
        """
        who, seen = session.who, Seen() if seen is None else seen
        file: FileAnswer = {}
        if not seen.job_id:
            file = await self._ingest.get("/v1/files/{}", file_id, **who)
            seen.filename = file["filename"]
        progress = Progress(file_id, filename=seen.filename)
        if file.get("status") == "error":
            progress.failed, progress.over = str(file["status_details"]), True
        elif job := await self._newest_job(file_id, file.get("kind"), who):
            await self._of_job(progress, job, seen, who)
        elif file.get("kind") == "document":
            progress.document, progress.over, progress.note = True, True, DOCUMENT
        elif file.get("kind") == "unlabelled":
            progress.note = str(file["status_details"] or "Its rows have no answers yet")
            progress.project = await self._project_of(file_id, seen, who)
            progress.over = bool(progress.project)
        else:
            progress.note = file.get("status_details") or _waiting(file.get("status", "uploaded"))
        return progress

    async def _newest_job(self, file_id: str, kind: str | None, who: Who) -> JobAnswer | None:
        """The file's newest job; of a text, only one that learns from text tells what has become of it."""
        wanted = {"training_file": file_id, "limit": 1}
        found = (await self._trainer.get("/v1/fine_tuning/jobs", params=wanted, **who))["data"]
        return next((job for job in found if kind not in TEXTS or _method_of(job) != "supervised"), None)

    async def _project_of(self, file_id: str, seen: Seen, who: Who) -> str:
        """Where people answer the rows of a file; it is made a moment after the file was read."""
        if seen.searches >= MOST_SEARCHES:
            return ""
        seen.searches += 1
        after: str | None = None
        for _ in range(MOST_PAGES):
            try:
                page = await self._labeling.get("/v1/labeling/projects", params=cursor(100, after), **who)
            except SartorError:
                return ""
            found = next((str(project["id"]) for project in page["data"] if project["file_id"] == file_id), "")
            if found or not page["has_more"]:
                return found
            after = page["data"][-1]["id"]
        return ""

    async def _read_events(self, seen: Seen, who: Who) -> None:
        """Put the events that are new before those seen."""
        newest = seen.events[0]["id"] if seen.events else None
        fresh: list[EventAnswer] = []
        for _ in range(MOST_PAGES):
            wanted = cursor(100, fresh[-1]["id"] if fresh else None)
            page = await self._trainer.get("/v1/fine_tuning/jobs/{}/events", seen.job_id, params=wanted, **who)
            new = list(takewhile(lambda event: event["id"] != newest, page["data"]))
            fresh += new
            if len(new) < len(page["data"]) or not page["has_more"]:
                break
        seen.events[:0] = fresh

    async def _of_job(self, progress: Progress, job: JobAnswer, seen: Seen, who: Who) -> None:
        if job["id"] != seen.job_id:
            seen.job_id, seen.moment, seen.events = job["id"], None, []
            seen.evaluation_id = seen.model = ""
        progress.method = _method_of(job)
        stage = job.get("stage") or STAGE_OF.get(job["status"], "ended")
        moment = (stage, job["status"], job.get("waiting_for"))
        if stage == "training" or moment != seen.moment:
            await self._read_events(seen, who)
        seen.moment = moment
        progress.events = [event["message"] for event in seen.events if event["type"] == "message"][:12]
        steps = [
            event["data"] for event in seen.events if "total_steps" in event["data"] and "train_loss" in event["data"]
        ]
        every = 1 + len(steps) // CHART_POINTS
        progress.losses = [(step["step"], step["train_loss"]) for step in reversed(steps[::every])]
        if stage == "ended":
            await self._of_end(progress, job, seen, who)
            return
        progress.stage, progress.percent, progress.note = WORDS.get(stage, (1, 0.0, str(stage)))
        progress.waiting = _waits(job.get("waiting_for"), by_whom=stage != "awaiting_approval")
        if stage == "training" and steps:
            newest = steps[0]
            progress.percent = 100 * newest["step"] / newest["total_steps"]
            progress.note = f"step {newest['step']} of {newest['total_steps']}, loss {newest['train_loss']:.3f}"
        elif stage == "testing":
            await self._of_evaluation(progress, seen, who)
        elif stage == "awaiting_approval":
            progress.undecided = await self._tested(seen, who)

    async def _of_end(self, progress: Progress, job: JobAnswer, seen: Seen, who: Who) -> None:
        progress.over = True
        if job["status"] == "succeeded":
            progress.stage, progress.percent = len(STAGES), 100.0
            progress.model, progress.note = job["fine_tuned_model"] or "", "Your model answers."
            return
        error = job.get("error") or {}
        progress.failed = error.get("message") or "The job was cancelled."
        progress.stage = 1 if progress.losses else 0
        if error.get("code") == "gate_rejected":
            progress.stage, progress.refused = 2, await self._tested(seen, who)

    async def _of_evaluation(self, progress: Progress, seen: Seen, who: Who) -> None:
        run = await self._evaluation(seen, who)
        if run and (counts := run["progress"]["total"]):
            progress.percent = 100 * run["progress"]["done"] / counts
            progress.note = f"{run['progress']['done']} of {counts} answers on held-out rows"

    async def _tested(self, seen: Seen, who: Who) -> str:
        """The model that the job made, once it is tested."""
        run = None if seen.model else await self._evaluation(seen, who)
        return run["model"] if run else seen.model

    async def _evaluation(self, seen: Seen, who: Who) -> EvaluationAnswer | None:
        """The run that tests the job's model; found once, then asked for by its id."""
        place = "/v1/evals/evaluations"
        try:
            if seen.evaluation_id:
                run: EvaluationAnswer = await self._evaluator.get(f"{place}/{{}}", seen.evaluation_id, **who)
                return run
            runs = (await self._evaluator.get(place, params={"limit": 100}, **who))["data"]
        except SartorError:
            return None
        found = next((run for run in runs if run["job_id"] == seen.job_id), None)
        if found:
            seen.evaluation_id, seen.model = found["id"], found["model"]
        return found


def _method_of(job: JobAnswer) -> str:
    return str((job.get("method") or {}).get("type") or "supervised")


def _waits(waiting_for: WaitingFor | None, *, by_whom: bool) -> str:
    """What a job waits for in a sentence; without whom, where the page has a button for it."""
    if not waiting_for or not waiting_for.get("what"):
        return ""
    who, since = waiting_for.get("who"), waiting_for.get("since")
    at = f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC" if since else ""
    known = [str(who or "") if by_whom else "", f"since {at}" if at else ""]
    return " · ".join([str(waiting_for["what"]), *filter(None, known)])


def state_of(file: FileAnswer, job: JobAnswer | None) -> str:
    """An upload's state in the words of the first page."""
    if job is None:
        if file.get("kind") == "document":
            return "kept as knowledge"
        return {"uploaded": "being read", "error": "not usable: see why"}.get(
            file["status"], "see what is next" if file.get("status_details") else "read and kept"
        )
    stage = job.get("stage") or STAGE_OF.get(job["status"], "ended")
    states = {
        "waiting_for_file": "waits for training",
        "queued": "waits for training",
        "training": "model being made",
        "testing": "being tested",
        "awaiting_approval": "waits for a decision",
        "loading": "being loaded",
        "succeeded": "model in use",
        "failed": "no model: see why",
    }
    return states.get(job["status"] if stage == "ended" else stage, str(job["status"]))


def _waiting(status: str) -> str:
    return "Reading the file" if status == "uploaded" else "Read and kept. Rows wait for a fine-tuning job."
