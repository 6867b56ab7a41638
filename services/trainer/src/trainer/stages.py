"""Where a job stands, in a word, and what it waits for from whom, in sentences: nobody needs to read its events."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from trainer.domain import GateWait, Job, State

Stage = Literal["waiting_for_file", "queued", "training", "paused", "testing", "awaiting_approval", "loading", "ended"]

OF_STATE: dict[State, Stage] = {
    "waiting_for_dataset": "waiting_for_file",
    "queued": "queued",
    "paused": "paused",
    "running": "training",
    "succeeded": "ended",
    "failed": "ended",
    "cancelled": "ended",
}
OF_GATE: dict[str, Stage] = {"evaluation": "testing", "approval": "awaiting_approval", "replica": "loading"}
"""The stages of a job that is `evaluating`, by what its model waits for, or `awaiting_arm`, by what its arm does."""

ARM_FIRST: tuple[Stage, ...] = ("queued", "training", "paused", "testing")
"""In which nothing is more urgent than what the arm waits for."""

BY_ITSELF = "Sartor, by itself"
OPERATOR = "whoever runs this installation"


class Waiting(BaseModel):
    """What a job waits for, who can end that, whether a person must, and since when it waits (Unix seconds)."""

    what: str
    who: str
    person: bool
    since: int


def stage_of(job: Job) -> Stage:
    """The stage a job is in."""
    if job.state in ("evaluating", "awaiting_arm"):
        return OF_GATE[_gate(job).waiting_for]
    return OF_STATE[job.state]


def waiting_of(job: Job) -> Waiting | None:
    """What a job waits for; None once it is over, and while it is trained.

    That a person must decide about its arm comes before what ends by itself, and before a pause.
    """
    stage = stage_of(job)
    if stage == "ended":
        return None
    if stage in ARM_FIRST and (arm_waits := _arm_waits(job)):
        return arm_waits
    if stage == "training":
        return None
    what, who = _what_and_who(job, stage)
    person = stage in ("paused", "awaiting_approval")
    return Waiting(what=what, who=who, person=person, since=job.since or job.created_at)


def _what_and_who(job: Job, stage: Stage) -> tuple[str, str]:
    gate = _gate(job)
    if stage == "waiting_for_file":
        files = [job.training_file, *([job.validation_file] if job.validation_file else [])]
        return f"{' and '.join(files)} must be read and checked first.", BY_ITSELF
    if stage == "queued":
        return "A training worker must be free for it.", BY_ITSELF
    if stage == "paused":
        resume = f"POST /v1/fine_tuning/jobs/{job.id}/resume"
        return "It is paused and must be resumed.", f"a person with fine_tuning:write, by {resume}"
    if stage == "awaiting_approval":
        who = f"a person with models:approve, by {decide_by(gate.model_id)}"
        return f"A person must decide about the model. {gate.reason}".strip(), who
    who = OPERATOR if gate.reason else BY_ITSELF
    if job.state == "awaiting_arm" and stage == "testing":
        comes = "being fitted" if job.arm.state == "to_fit" else "tested on held-out rows"
        return f"The training came to nothing; its quick way to answer is {comes}. {gate.reason}".strip(), who
    if stage == "testing":
        return f"The model must be tested on held-out rows. {gate.reason}".strip(), who
    return f"A replica of the model server must load the model and prove it. {gate.reason}".strip(), who


def _gate(job: Job) -> GateWait:
    """What the version waits for that the job waits for."""
    return job.arm.gate if job.state == "awaiting_arm" else job.gate


def _arm_waits(job: Job) -> Waiting | None:
    """That a person must decide about the arm, though the job goes on training."""
    gate = job.arm.gate
    if job.arm.state != "fitted" or gate.waiting_for != "approval":
        return None
    what = f"A person must decide about the model's {job.arm.kind}, which could answer while it is trained."
    who = f"a person with models:approve, by {decide_by(gate.model_id)}"
    return Waiting(what=f"{what} {gate.reason}".strip(), who=who, person=True, since=job.arm.since or job.created_at)


def decide_by(model_id: str) -> str:
    """How a person decides about a model."""
    return f"`sartor models approve {model_id}` or `sartor models reject {model_id}`"


def waiting_line(job: Job, arm: str | None = None) -> str:
    """What the job's events say when what its model, or the model's arm, waits for changed."""
    gate = job.arm.gate if arm else job.gate
    version = f"The model's {arm}" if arm else "The model"
    if gate.waiting_for == "approval":
        why = f" {gate.reason}" if gate.reason else ""
        return f"{version} waits for a person with models:approve to decide; {decide_by(gate.model_id)}.{why}"
    if gate.waiting_for == "replica":
        return f"{version} was let through; it waits for a replica that loads it. {gate.reason}".strip()
    return gate.reason or f"{version} is loaded now; the test goes on."
