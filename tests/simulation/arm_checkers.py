"""The invariants of arms: each is decided, answers as its job says, and leaves files only while it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.simulation.history import Document, History, Write

UNDECIDED = ("to_fit", "fitted")


def arms_are_decided(history: History) -> list[str]:
    """I21: in the end no job waits for an arm, no fit is left, and no version waits for the gate."""
    if history.drained_at is None:
        return []
    wrong = []
    for key, job in history.final("jobs").items():
        if job["state"] == "awaiting_arm" or job["arm"]["state"] in UNDECIDED:
            wrong.append(f"I21: job {key} is {job['state']} and its arm {job['arm']['state']}")
    for key, fit in history.final("arm_fits").items():
        if fit["state"] != "done":
            wrong.append(f"I21: the arm of {key} is still to be fitted")
    waits = ("candidate", "awaiting_approval")
    return wrong + [
        f"I21: {key} is {it['state']}" for key, it in history.final("models").items() if it["state"] in waits
    ]


def names_answer_as_jobs_say(history: History) -> list[str]:
    """I22: a job has the name of its model exactly while a version of it answers."""
    wrong = [
        f"I22: {write.id} has a model at {write.at:.1f}, and its arm is {write.after['arm']['state']}"
        for write in history.writes
        if write.collection == "jobs" and write.after and write.after["state"] != "succeeded"
        if write.after["fine_tuned_model"] is not None and write.after["arm"]["state"] != "serving"
    ]
    if history.drained_at is None:
        return wrong
    for key, job in history.final("jobs").items():
        versions = _versions(history, key)
        serving = {version_id: one for version_id, one in versions.items() if one["state"] == "production"}
        taken_back = any(one["deleted_at"] is not None for one in versions.values())
        answered = history.routes.get(key)
        if job["state"] != "succeeded" and serving:
            wrong.append(f"I22: {key} has {job['state']}, and {sorted(serving)} is in production")
        if job["state"] == "succeeded" and not serving and not taken_back:
            wrong.append(f"I22: {key} has succeeded, and none of {sorted(versions)} is in production")
        if (job["state"] == "succeeded") != (job["fine_tuned_model"] is not None):
            wrong.append(f"I22: {key} has {job['state']} with the model {job['fine_tuned_model']}")
        if (answered is None) != (not serving) or (answered is not None and answered not in serving):
            wrong.append(f"I22: the model of {key} is answered by {answered}, and in production is {sorted(serving)}")
        arms = [one["state"] for one in versions.values() if one["arm"] is not None]
        if (job["arm"]["state"] == "serving") != ("production" in arms):
            wrong.append(f"I22: {key} says that its arm is {job['arm']['state']}, and the registry {arms}")
    return wrong


def adapters_give_way_to_arms_that_serve(history: History) -> list[str]:
    """I23: an adapter is refused for an arm only while that serves the name."""
    wrong = []
    for number, write in enumerate(history.writes):
        before, after = write.before, write.after
        if write.collection != "models" or after is None or before is None or after["state"] != "rejected":
            continue
        evaluation = after["evaluation"]
        if before["state"] == "rejected" or evaluation is None or not evaluation["beaten_by"]:
            continue
        served = any(
            one.after["state"] == "production" and one.after["arm"]["kind"] == evaluation["beaten_by"]
            for one in _arm_writes(history, after["job_id"], number)
        )
        if not served:
            wrong.append(f"I23: {write.id} gave way to the arm {evaluation['beaten_by']}, which never served its name")
    return wrong


def arm_files_are_kept_while_wanted(history: History) -> list[str]:
    """I24: an arm is whole once its job names it, and until it is wanted no more; then nothing of it is left.

    What a killed worker left of another attempt is found a day later; without a fault there is none.
    """
    wrong = []
    for write in history.writes:
        made = write.after["arm"]["made"] if write.collection == "jobs" and write.after else None
        if made is None or (write.before is not None and write.before["arm"]["made"] == made):
            continue
        before = {key: digest for key, (at, digest) in history.stored.items() if at <= write.at}
        manifest = made["manifest"]["key"]
        if len(_of(manifest, before)) < 4 or before[manifest][:24] != made["arm_id"].removeprefix("arm-"):
            wrong.append(f"I24: {write.id} names an arm of which {sorted(_of(manifest, before))} is stored")
    if history.drained_at is None:
        return wrong
    left = {key for key in history.stored if "/arms/" in key} - history.removed
    for key, job in history.final("jobs").items():
        made, files = job["arm"]["made"], job["arm"]["files"]
        if made is None:
            continue
        own = _of(made["manifest"]["key"], left)
        left -= own
        if (len(own), files) not in ((4, "kept"), (0, "deleted")):
            wrong.append(f"I24: the files of the arm of {key} are {files}, and stored are {sorted(own)}")
        if files == "kept" and job["arm"]["state"] != "serving":
            wrong.append(f"I24: the files of the arm of {key}, which is {job['arm']['state']}, are kept")
    if left and not history.faults:
        wrong.append(f"I24: of no job's arm are {sorted(left)}")
    return wrong


def rows_stay_for_models_alone(history: History) -> list[str]:
    """I25: ingest holds the rows of a job exactly while a version of its model answers."""
    return [
        f"I25: the rows of {job} are {'held' if held else 'let go'}, and {history.routes.get(job)} answers"
        for job, held in history.rows.items()
        if held != (history.routes.get(job) is not None)
    ]


def _of(manifest: str, keys: Iterator[str] | set[str] | dict[str, str]) -> set[str]:
    folder = manifest.rpartition("/")[0]
    return {key for key in keys if key.startswith(f"{folder}/")}


def _versions(history: History, job_id: str) -> dict[str, Document]:
    return {key: model for key, model in history.final("models").items() if model["job_id"] == job_id}


def _arm_writes(history: History, job_id: str, until: int) -> Iterator[Write]:
    for write in history.writes[:until]:
        if write.collection == "models" and write.after and write.after["job_id"] == job_id and write.after["arm"]:
            yield write


ARM_CHECKERS: tuple[Callable[[History], list[str]], ...] = (
    arms_are_decided,
    names_answer_as_jobs_say,
    adapters_give_way_to_arms_that_serve,
    arm_files_are_kept_while_wanted,
    rows_stay_for_models_alone,
)
