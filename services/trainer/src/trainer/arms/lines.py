"""What the events of a job say of its arm, and of a training that came to nothing while the arm answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas import ModelPinned, ModelUnpinned
from trainer.domain import ARM_IS_BETTER, FittedArm, Job
from trainer.store import Jobs

COMPLETED = "The job has successfully completed"


@dataclass(frozen=True)
class Line:
    """One line; `key` says it once."""

    key: str
    message: str
    level: str = "info"


async def tell_lines(jobs: Jobs, job: Job, lines: Sequence[Line]) -> None:
    """Add lines to a job's history, in their order."""
    for line in lines:
        await jobs.tell(job, line.key, line.message, level=line.level)


def fitted_line(fitted: FittedArm) -> Line:
    """That an arm is fitted."""
    if fitted.generates:
        message = (
            f"The vectors of {fitted.rows} rows were made in {fitted.fit_seconds:.0f} s. The base model is tested now, "
            "shown the rows that are closest to each question, and may answer so while the model is trained."
        )
        return Line("arm-fitted", message)
    right = fitted.metrics.get(f"{fitted.kind}_accuracy", 0.0)
    message = (
        f"A {fitted.kind} was fitted to {fitted.rows} rows in {fitted.fit_seconds:.0f} s: {right:.0%} right on rows it "
        "was not fitted to. It is tested now, and may answer while the model is trained."
    )
    if fitted.learning_curve is not None:
        message = f"{message} {fitted.learning_curve.said}"
    return Line("arm-fitted", message)


def no_arm_line(reason: str) -> Line:
    """That there will be none."""
    return Line("no-arm", f"Nothing answers before the training is over: {reason}")


def lines_of_arm(job: Job) -> list[Line]:
    """That a job's arm answers."""
    if job.ended and job.setback is None:
        return []
    answers = f"The model answers now by its {job.arm.kind}, as {job.fine_tuned_model}"
    if job.state != "succeeded":
        return [Line("arm-answers", f"{answers}; {'training' if job.adapter is None else 'testing'} goes on.")]
    return [Line("arm-answers", f"{answers}."), Line("ended", COMPLETED)]


def pin_line(event: ModelPinned | ModelUnpinned) -> Line:
    """That a person has the model answer by one of its versions, or does so no longer."""
    version = event.arm or "adapter"
    key = f"{version}-pin-{event.revision}"
    if isinstance(event, ModelPinned):
        below = event.hand_over_below
        unless = "" if below is None else f" It hands over to the next where it is less than {below * 100:g}% sure."
        return Line(key, f"The model answers by its {version}: a person pinned it.{unless}")
    return Line(key, f"The model's {version} is no longer pinned.")


def lines_of_failure(job: Job) -> list[Line]:
    """Why a job failed, if it did."""
    return [Line("failed", job.error.message, "error")] if job.error else []


def lines_without_adapter(job: Job, what: str) -> list[Line]:
    """That a job's training, or its adapter, came to nothing; the job has been changed so already.

    Args:
        job: as it is afterwards.
        what: what happened.
    """
    if job.state == "failed":
        return [Line("failed", what, "error")]
    level = "info" if job.setback is not None and job.setback.code == ARM_IS_BETTER else "warn"
    if job.state == "succeeded":
        stays = f"{what} The model goes on answering by its {job.arm.kind}."
        return [Line("setback", stays, level), Line("ended", COMPLETED)]
    return [Line("setback", f"{what} Whether the model answers otherwise is not decided yet.", level)]
