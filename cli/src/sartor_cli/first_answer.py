"""Follows an upload to the first answer of the model that is made from it: seconds where an arm answers by its rows."""

from __future__ import annotations

import time
from typing import Any

from sartor_cli.answering import BETTER, WORDS
from sartor_cli.client import Client, CommandFailed, stderr
from sartor_cli.stages import stage_of, waiting_for

POLL_SECONDS = 0.5
LONGEST_SECONDS = 60.0
"""A model without an arm answers once it is trained; nobody waits for that here."""

UNASKED_SECONDS = 5.0
"""A file that was read, and of which no job was made so long after, may have none made by itself."""


def follow(client: Client, file_id: str, began: float) -> None:
    """Say when the model of an upload answers, or how to go on where that is not soon.

    Args:
        client: who uploaded.
        file_id: the upload.
        began: when it began, by `time.monotonic`.
    """
    try:
        stderr.print(_told(client, file_id, began))
    except CommandFailed as error:
        stderr.print(f"What becomes of it is not known: {error}")


def _told(client: Client, file_id: str, began: float) -> str:
    read: float | None = None
    while True:
        jobs = client.call("GET", "/fine_tuning/jobs", params={"training_file": file_id, "limit": 1})["data"]
        now = time.monotonic()
        if jobs:
            said = _of_job(jobs[0], now - began)
        else:
            file = client.call("GET", "/files/{}", file_id)
            read = read or (now if file["status"] == "processed" else None)
            said = _of_file(file, unasked=read is not None and now - read > UNASKED_SECONDS)
        if said:
            return said
        if now - began > LONGEST_SECONDS:
            on = f"sartor jobs logs -f {jobs[0]['id']}" if jobs else "sartor jobs list"
            return f"No model answers by it yet; `{on}` shows how it goes on."
        time.sleep(POLL_SECONDS)


def _of_job(job: dict[str, Any], seconds: float) -> str:
    """What is said of a job; empty while it must be waited for."""
    model, by = job.get("fine_tuned_model"), WORDS.get(str(job.get("answers_by")))
    ended = stage_of(job) == "ended"
    if model:
        answers = f"Its own model answers {seconds:.1f} s after the upload began{f', by {by}' if by else ''}: {model}"
        on = "" if ended else f"\nMeanwhile {BETTER}: `sartor jobs logs -f {job['id']}` follows it."
        return answers + on
    if ended:
        return f"Job {job['id']} ended as {job['status']}: {(job.get('error') or {}).get('message')}"
    if (job.get("waiting_for") or {}).get("person"):  # in whatever stage: an arm waits while the job is queued, too
        return f"Job {job['id']} waits: {waiting_for(job)}"
    return ""


def _of_file(file: dict[str, Any], *, unasked: bool) -> str:
    """What is said of a file without a job; empty while it must be waited for."""
    if file["status"] == "error":
        return f"It cannot be used: {file.get('status_details')}"
    if file["status"] == "processed" and file.get("kind") not in (None, "rows"):
        return f"No model is made of it: it is kept as {file['kind']}. {file.get('status_details') or ''}".strip()
    on = "`sartor jobs list` shows whether one comes, `sartor jobs create` asks for one."
    return f"No job was made of it yet; {on}" if unasked else ""
