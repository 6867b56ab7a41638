"""What has become of an upload, gathered from the services, as a page or a stream shows it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import takewhile

from chassis.errors import SartorError
from chassis.ids import now
from chassis.peers import Peer
from console.answering import BY, TITLES, better, kind_of, name_of
from console.answers import (
    EvaluationAnswer,
    EventAnswer,
    FileAnswer,
    JobAnswer,
    Listing,
    VersionAnswer,
    WaitingFor,
)
from console.paging import cursor
from console.sessions import Session, Who

STAGES = ("Checking", "Training", "Testing", "Serving")
DOCUMENT = "Kept as knowledge: it is a document, not rows to learn from. Ask with retrieval."
TEXTS = ("document", "unlabelled")
"""Kinds of files without answers to learn."""

MOST_PAGES = 20
MOST_SEARCHES = 20
NEWEST_VERSIONS = 100
CHART_POINTS = 150

STAGE_OF = {"validating_files": "waiting_for_file", "queued": "queued", "running": "training", "paused": "paused"}
"""A job's stage as far as its status tells, for a trainer that does not name it."""

WORDS = {
    "waiting_for_file": (0, 50.0, "Waiting for the file to be read"),
    "queued": (0, 50.0, "Waiting for a free worker"),
    "training": (1, 0.0, "Loading the base model"),
    "paused": (1, 0.0, "Paused"),
    "testing": (2, 0.0, "Waiting for the test on held-out rows"),
    "awaiting_approval": (3, 0.0, "Tested. A person decides whether it goes into use"),
    "loading": (3, 0.0, "Tested. It goes into use now"),
}
"""Of each stage of a job: which of `STAGES` it is, percent, and a note, until more is known."""


@dataclass
class Seen:
    """What somebody who follows an upload has seen, so that it is not asked for again.

    Attributes:
        job_id: of the newest job; empty while there is none.
        moment: its stage, what it waits for and what answers.
        events: its events, newest first.
        evaluation_id: of the run that tests its adapter.
        name: of its model, as soon as that has a version.
        versions: of that model, as they were when something last happened.
        searches: how often the project of rows without answers was looked for.
    """

    filename: str = ""
    uploaded_at: int = 0
    job_id: str = ""
    moment: tuple[str, str, WaitingFor | None, str | None, str | None] | None = None
    events: list[EventAnswer] = field(default_factory=list)
    evaluation_id: str = ""
    name: str = ""
    versions: list[VersionAnswer] = field(default_factory=list)
    searches: int = 0


@dataclass
class Progress:
    """One upload's way.

    Attributes:
        stage: index of the one under way, 4 when all is done.
        waiting: what it waits for, and whom, and since when.
        first_answer: how long after the upload its model could first be asked; empty while it cannot.
        model: its model, once that answers.
        answers: by what it answers, in a sentence.
        better: when it answers better, while that is to come.
        undecided: by id, the versions that a person must let through before they serve, in words.
        stands_still: nothing moves until a person decides.
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
    first_answer: str = ""
    model: str = ""
    answers: str = ""
    better: str = ""
    undecided: dict[str, str] = field(default_factory=dict)
    stands_still: bool = False
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
        return bool(self.stands_still or self.project)

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

    def to_json(self) -> str:
        """As a page that is open reads it."""
        shown = {"waits_for_people": self.waits_for_people, "chart": self.chart, "loss_note": self.loss_note}
        return json.dumps({**asdict(self), **shown}, ensure_ascii=False)


class Watcher:
    """Asks the services that have to do with an upload; while nothing happens in its job, the trainer alone."""

    def __init__(self, ingest: Peer, trainer: Peer, evaluator: Peer, registry: Peer, labeling: Peer) -> None:
        self._ingest = ingest
        self._trainer = trainer
        self._evaluator = evaluator
        self._registry = registry
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
            seen.filename, seen.uploaded_at = file["filename"], file.get("created_at") or 0
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

    async def _read_events(self, seen: Seen, who: Who) -> bool:
        """Put the new events before those seen, and tell whether one of them is more than a figure."""
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
        return any(event["type"] == "message" for event in fresh)

    async def _read_versions(self, seen: Seen, job: JobAnswer, who: Who) -> bool:
        """Look what became of the job's model; what was seen before holds while the registry is away.

        Returns:
            Whether there is no need to look again before something else happens.
        """
        seen.name = job.get("fine_tuned_model") or seen.name
        wanted = {"name": seen.name} if seen.name else {"limit": NEWEST_VERSIONS}
        try:
            found: Listing[VersionAnswer] = await self._registry.get("/v1/registry/models", params=wanted, **who)
        except SartorError as error:
            return not error.transient
        seen.versions = [card for card in found["data"] if card["job_id"] == seen.job_id]
        seen.name = seen.name or next(map(name_of, seen.versions), "")
        return True

    async def _of_job(self, progress: Progress, job: JobAnswer, seen: Seen, who: Who) -> None:
        if job["id"] != seen.job_id:
            seen.job_id, seen.moment, seen.events, seen.versions = job["id"], None, [], []
            seen.evaluation_id = seen.name = ""
        progress.method = _method_of(job)
        stage = job.get("stage") or STAGE_OF.get(job["status"], "ended")
        moment = (stage, job["status"], job.get("waiting_for"), job.get("fine_tuned_model"), job.get("answers_by"))
        happened = moment != seen.moment
        if stage == "training" or happened:
            happened |= await self._read_events(seen, who)
        known = True
        if happened and stage != "waiting_for_file":
            known = await self._read_versions(seen, job, who)
        seen.moment = moment if known else None
        progress.events = [event["message"] for event in seen.events if event["type"] == "message"][:12]
        steps = [
            event["data"] for event in seen.events if "total_steps" in event["data"] and "train_loss" in event["data"]
        ]
        every = 1 + len(steps) // CHART_POINTS
        progress.losses = [(step["step"], step["train_loss"]) for step in reversed(steps[::every])]
        progress.first_answer = _first_answer(seen)
        if stage == "ended":
            self._of_end(progress, job, seen)
            return
        if model := job.get("fine_tuned_model"):
            by, to_come = BY.get(str(job.get("answers_by")), ""), better(job, now())
            progress.model, progress.better = model, f"{to_come[0].upper()}{to_come[1:]}."
            progress.answers = f"Your model answers now{f' by {by}' if by else ''}."
        progress.undecided = {
            card["id"]: TITLES[kind_of(card)] for card in seen.versions if card.get("waiting_for") == "approval"
        }
        progress.stage, progress.percent, progress.note = WORDS.get(stage, (1, 0.0, str(stage)))
        asks = stage == "awaiting_approval" or bool(progress.undecided)
        progress.waiting = _waits(job.get("waiting_for"), by_whom=not asks)
        if stage == "training" and steps:
            newest = steps[0]
            progress.percent = 100 * newest["step"] / newest["total_steps"]
            progress.note = f"step {newest['step']} of {newest['total_steps']}, loss {newest['train_loss']:.3f}"
        elif stage == "testing":
            await self._of_evaluation(progress, seen, who)
        progress.stands_still = stage == "awaiting_approval" and bool(progress.undecided)

    def _of_end(self, progress: Progress, job: JobAnswer, seen: Seen) -> None:
        progress.over = True
        if job["status"] == "succeeded":
            progress.stage, progress.percent = len(STAGES), 100.0
            progress.model, progress.note = job["fine_tuned_model"] or "", "Your model answers."
            by = str(job.get("answers_by"))
            if by in BY and by != "adapter":
                progress.answers = f"It goes on answering by {BY[by]}: no fine-tune came of it that does better."
            return
        error = job.get("error") or {}
        progress.failed = error.get("message") or "The job was cancelled."
        progress.stage = 1 if progress.losses else 0
        if error.get("code") == "gate_rejected":
            refused = [card for card in seen.versions if card["state"] == "rejected"]
            newest = min(refused, key=lambda card: kind_of(card) != "adapter", default=None)
            progress.stage, progress.refused = 2, newest["id"] if newest else ""

    async def _of_evaluation(self, progress: Progress, seen: Seen, who: Who) -> None:
        run = await self._evaluation(seen, who)
        if run and (counts := run["progress"]["total"]):
            progress.percent = 100 * run["progress"]["done"] / counts
            progress.note = f"{run['progress']['done']} of {counts} answers on held-out rows"

    async def _evaluation(self, seen: Seen, who: Who) -> EvaluationAnswer | None:
        """The run that tests the job's adapter; found once, then asked for by its id."""
        place = "/v1/evals/evaluations"
        try:
            if seen.evaluation_id:
                run: EvaluationAnswer = await self._evaluator.get(f"{place}/{{}}", seen.evaluation_id, **who)
                return run
            runs = (await self._evaluator.get(place, params={"limit": 100}, **who))["data"]
        except SartorError:
            return None
        found = next((run for run in runs if run["job_id"] == seen.job_id and not run.get("arm")), None)
        if found:
            seen.evaluation_id = found["id"]
        return found


def _first_answer(seen: Seen) -> str:
    """How long after the upload a version of its model first served."""
    served = [at for card in seen.versions if (at := card.get("promoted_at"))]
    if not served or not seen.uploaded_at:
        return ""
    seconds = max(min(served) - seen.uploaded_at, 0)
    return f"{seconds} s" if seconds < 120 else f"{round(seconds / 60)} minutes"


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
    state = states.get(job["status"] if stage == "ended" else stage, str(job["status"]))
    return f"answers; {state}" if job.get("fine_tuned_model") and stage != "ended" else state


def _waiting(status: str) -> str:
    return "Reading the file" if status == "uploaded" else "Read and kept. Rows wait for a fine-tuning job."
