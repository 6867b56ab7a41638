"""What has become of an upload, gathered from the services, as a page or a stream shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any

from chassis.auth import Peer
from chassis.errors import SartorError
from console.sessions import Session

STAGES = ("Checking", "Training", "Testing", "Serving")
DOCUMENT = "Kept as knowledge: it is a document, not rows to learn from. Ask with retrieval."
MOST_PAGES = 20
CHART_POINTS = 150

Known = list[dict[str, Any]]
"""A job's events, newest first, as far as a watcher has read them."""


@dataclass
class Progress:
    """One upload's way.

    Attributes:
        stage: index of the one under way, 4 when all is done.
        undecided: the model that a person must let through before it is served.
        refused: the model that was tested and not let through.
        project: where people answer rows that came without answers.
        document: it is a text to be searched; nothing is trained on it.
    """

    file_id: str
    filename: str = ""
    stage: int = 0
    percent: float = 0.0
    note: str = ""
    failed: str = ""
    model: str = ""
    undecided: str = ""
    refused: str = ""
    project: str = ""
    document: bool = False
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
    """Asks ingest, the trainer, the evaluator, the registry and labeling."""

    def __init__(self, ingest: Peer, trainer: Peer, evaluator: Peer, registry: Peer, labeling: Peer) -> None:
        self._ingest = ingest
        self._trainer = trainer
        self._evaluator = evaluator
        self._registry = registry
        self._labeling = labeling

    async def look(self, session: Session, file_id: str, known: Known | None = None) -> Progress:
        """Where an upload stands now.

        Args:
            session: who asks.
            file_id: the upload.
            known: events of an earlier look; new ones are put before them, so that only those are asked for.

        Raises:
            NotFound: it is not this tenant's.
        """
        who = session.who
        file = await self._ingest.get("/v1/files/{}", file_id, **who)
        progress = Progress(file_id, filename=file["filename"])
        if file["status"] == "error":
            progress.failed, progress.over = str(file["status_details"]), True
            return progress
        wanted = {"training_file": file_id, "limit": 1}
        jobs = (await self._trainer.get("/v1/fine_tuning/jobs", params=wanted, **who))["data"]
        if jobs:
            await self._of_job(progress, jobs[0], await self._events(jobs[0]["id"], known, who), who)
        elif file.get("kind") == "document":
            progress.document, progress.over, progress.note = True, True, DOCUMENT
        else:
            progress.note = file.get("status_details") or _waiting(file["status"])
            if file["status"] == "processed":
                progress.project = await self._project_of(file_id, who)
        return progress

    async def _project_of(self, file_id: str, who: dict[str, Any]) -> str:
        try:
            projects = (await self._labeling.get("/v1/labeling/projects", params={"limit": 100}, **who))["data"]
        except SartorError:
            return ""
        return next((str(project["id"]) for project in projects if project["file_id"] == file_id), "")

    async def _events(self, job_id: str, known: Known | None, who: dict[str, Any]) -> Known:
        known = [] if known is None else known
        newest = known[0]["id"] if known else None
        fresh: Known = []
        for _ in range(MOST_PAGES):
            wanted = {"limit": 100, **({"after": fresh[-1]["id"]} if fresh else {})}
            page = await self._trainer.get("/v1/fine_tuning/jobs/{}/events", job_id, params=wanted, **who)
            new = list(takewhile(lambda event: event["id"] != newest, page["data"]))
            fresh += new
            if len(new) < len(page["data"]) or not page["has_more"]:
                break
        known[:0] = fresh
        return known

    async def _of_job(self, progress: Progress, job: dict[str, Any], events: Known, who: dict[str, Any]) -> None:
        progress.events = [event["message"] for event in events if event["type"] == "message"][:12]
        steps = [event["data"] for event in events if "total_steps" in event["data"] and "train_loss" in event["data"]]
        every = 1 + len(steps) // CHART_POINTS
        progress.losses = [(step["step"], step["train_loss"]) for step in reversed(steps[::every])]
        if job["status"] == "succeeded":
            progress.stage, progress.percent, progress.over = len(STAGES), 100.0, True
            progress.model, progress.note = job["fine_tuned_model"], "Your model answers."
        elif job["status"] in ("failed", "cancelled"):
            error = job.get("error") or {}
            progress.over = True
            progress.failed = error.get("message") or "The job was cancelled."
            progress.stage = 1 if steps else 0
            if error.get("code") == "gate_rejected":
                progress.stage, progress.refused = 2, (await self._evaluation(job["id"], who) or {}).get("model", "")
        elif job["status"] == "running" and events and events[0]["message"].startswith("Training is over"):
            progress.stage = 2
            await self._of_evaluation(progress, job["id"], who)
        elif job["status"] == "running" and steps:
            newest = steps[0]
            progress.stage, progress.percent = 1, 100 * newest["step"] / newest["total_steps"]
            progress.note = f"step {newest['step']} of {newest['total_steps']}, loss {newest['train_loss']:.3f}"
        elif job["status"] == "running":
            progress.stage, progress.note = 1, "Loading the base model"
        else:
            progress.percent, progress.note = 50.0, "Waiting for a free worker"

    async def _of_evaluation(self, progress: Progress, job_id: str, who: dict[str, Any]) -> None:
        progress.note = "Loading the adapter"
        run = await self._evaluation(job_id, who)
        if run is None:
            return
        if run["status"] == "completed":
            await self._of_decision(progress, run["model"], who)
        elif counts := run["progress"]["total"]:
            progress.percent = 100 * run["progress"]["done"] / counts
            progress.note = f"{run['progress']['done']} of {counts} answers on held-out rows"

    async def _evaluation(self, job_id: str, who: dict[str, Any]) -> dict[str, Any] | None:
        try:
            runs = (await self._evaluator.get("/v1/evals/evaluations", params={"limit": 100}, **who))["data"]
        except SartorError:
            return None
        return next((run for run in runs if run["job_id"] == job_id), None)

    async def _of_decision(self, progress: Progress, model_id: str, who: dict[str, Any]) -> None:
        progress.stage, progress.note = 3, "Tested. It goes into use now"
        try:
            card = await self._registry.get("/v1/registry/models/{}", model_id, **who)
        except SartorError:
            return
        if card["waiting_for"] == "approval":
            progress.undecided, progress.note = model_id, "Tested. A person decides whether it goes into use"


def state_of(file: dict[str, Any], job: dict[str, Any] | None) -> str:
    """An upload's state in the words of the first page."""
    if job is None:
        if file.get("kind") == "document":
            return "kept as knowledge"
        return {"uploaded": "being read", "error": "not usable: see why"}.get(
            file["status"], "see what is next" if file.get("status_details") else "read and kept"
        )
    states = {
        "validating_files": "waits for training",
        "queued": "waits for training",
        "running": "model being made",
        "succeeded": "model in use",
        "failed": "no model: see why",
    }
    return states.get(job["status"], str(job["status"]))


def _waiting(status: str) -> str:
    return "Reading the file" if status == "uploaded" else "Read and kept. Rows wait for a fine-tuning job."
