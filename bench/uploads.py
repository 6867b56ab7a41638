"""What comes of an upload, by the public API alone: when its model answers, by what, and what the job says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import httpx2
import openai
import psutil
from bench.cells import Judged
from bench.data_sets import DataSet, Row
from tests.conftest import Tenant

from localstack import LocalStack

LONGEST = 900.0
"""Seconds until an arm must have its verdict."""

LONGEST_JOB = 3600.0
EVERY = 0.1
REST_SECONDS = 3.0
AT_A_TIME = 4

NO_ARM = "Nothing answers before the training is over: "
"""How the event of a job begins that has no arm; no field of it says so."""

GOES_ON_LONG: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}}
"""A training that is not over before the arm is judged: it is paused then, and not waited for."""

T = TypeVar("T")


class Silent(Exception):
    """Nothing was decided in time, or another version answered than was measured."""


@dataclass
class Outcome:
    """What came of an upload.

    Attributes:
        job: as the API shows it last.
        came_to: `answers`, `refused`, `no arm` or `failed`.
        served: the arm that answered first.
        seconds: until it did.
        reason: of the arm's test, or why there is none.
        out_of_fold: what the arm's card shows.
        said: the events of the job.
    """

    job: dict[str, Any]
    came_to: str
    served: str = ""
    seconds: float | None = None
    reason: str = ""
    out_of_fold: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def upload(tenant: Tenant, rows: Sequence[Row], base: str, seed: int, method: Any) -> Outcome:
    """Upload rows, ask for a job, and wait for the verdict on its arm. The tenant has no other job.

    Args:
        tenant: a new one.
        rows: what is uploaded.
        base: the base model.
        seed: of the job.
        method: of the training; openai.NOT_GIVEN for the usual one.
    """
    sdk, began = clients(tenant)[0], time.monotonic()
    content = "\n".join(row.line for row in rows).encode()
    file = sdk.files.create(file=("rows.jsonl", content), purpose="fine-tune")
    job_id = sdk.fine_tuning.jobs.create(model=base, training_file=file.id, seed=seed, method=method).id
    outcome = until("no verdict on an arm", LONGEST, lambda: _outcome(tenant, job_id))
    if outcome.came_to == "answers":
        outcome.served = ask(sdk, outcome.job["fine_tuned_model"], rows[0], max_tokens=16, stop=None)[0]
        outcome.seconds = time.monotonic() - began
    card = _card(tenant)
    if card is not None:
        outcome.out_of_fold = {name: value for name, value in card["metrics"].items() if name.endswith("_accuracy")}
        outcome.reason = card["evaluation"]["reason"] if card["evaluation"] else outcome.reason
    outcome.said = events_of(sdk, job_id)
    return outcome


def _outcome(tenant: Tenant, job_id: str) -> Outcome | None:
    job = shown(tenant, f"/fine_tuning/jobs/{job_id}")
    if job["fine_tuned_model"]:
        return Outcome(job, "answers")
    if job["status"] == "failed":
        return Outcome(job, "failed", reason=job["error"]["message"])
    card = _card(tenant)
    if card is not None and card["state"] == "rejected":
        return Outcome(job, "refused")
    without = [said for said in events_of(clients(tenant)[0], job_id) if said.startswith(NO_ARM)]
    return Outcome(job, "no arm", reason=without[0].removeprefix(NO_ARM)) if without else None


def _card(tenant: Tenant) -> dict[str, Any] | None:
    """The card of the tenant's only arm."""
    return next((card for card in shown(tenant, "/registry/models")["data"] if card["arm"]), None)


@cache
def clients(tenant: Tenant) -> tuple[openai.OpenAI, httpx2.Client]:
    """The SDK and a plain client of a tenant, made once: each reads all certificates, for a tenth of a second."""
    return tenant.sdk, tenant.http


def shown(tenant: Tenant, path: str) -> Any:
    """What the API shows."""
    return clients(tenant)[1].get(path).raise_for_status().json()


def events_of(sdk: openai.OpenAI, job_id: str) -> list[str]:
    """What a job said, from the first to the last."""
    return [event.message for event in sdk.fine_tuning.jobs.list_events(job_id, limit=100)][::-1]


def stop_training(tenant: Tenant, job_id: str) -> None:
    """Pause the job, so that nothing computes beside its arm; one that is not trained any more is waited for."""
    with suppress(openai.ConflictError):  # it is not trained any more
        clients(tenant)[0].fine_tuning.jobs.pause(job_id)
    until(
        "the job neither paused nor ended",
        LONGEST_JOB,
        lambda: shown(tenant, f"/fine_tuning/jobs/{job_id}")["stage"] in ("paused", "ended"),
    )


def until_over(tenant: Tenant, job_id: str) -> dict[str, Any]:
    """The job as it ended."""

    def ended() -> Any:
        job = shown(tenant, f"/fine_tuning/jobs/{job_id}")
        return job if job["status"] in ("succeeded", "failed", "cancelled") else None

    return dict(until("the job did not end", LONGEST_JOB, ended))


def until(what: str, seconds: float, look: Callable[[], T | None]) -> T:
    """What `look` finds.

    Raises:
        Silent: nothing, for so long.
    """
    began = time.monotonic()
    while not (found := look()):
        if time.monotonic() - began > seconds:
            raise Silent(f"{what} within {seconds:.0f} s")
        time.sleep(EVERY)
    return found


def ask(sdk: openai.OpenAI, model: str, row: Row, *, max_tokens: int, stop: str | None) -> tuple[str, str]:
    """By what a model answers a row, and what."""
    raw = sdk.chat.completions.with_raw_response.create(
        model=model,
        messages=row.asked,
        temperature=0,
        max_tokens=max_tokens,
        stop=stop,
    )
    return raw.headers.get("x-sartor-arm") or "base", raw.parse().choices[0].message.content or ""


def judge(tenant: Tenant, stack: LocalStack, model: str, by: str, data_set: DataSet, rows: Sequence[Row]) -> Judged:
    """Ask a model the test rows.

    Args:
        tenant: who asks.
        stack: whose processor time is taken.
        model: its name.
        by: what must answer: an arm, the adapter or the base.
        data_set: the rows' own.
        rows: the test rows.

    Raises:
        Silent: another version answered.
    """
    sdk, processes = clients(tenant)[0], processes_of(stack)
    rest = _taken(processes, lambda: time.sleep(REST_SECONDS)) / REST_SECONDS
    began, answers = time.monotonic(), list[tuple[str, str]]()

    def answer(row: Row) -> tuple[str, str]:
        return ask(sdk, model, row, max_tokens=data_set.max_tokens, stop=data_set.stop)

    def all_of_them() -> None:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            answers.extend(pool.map(answer, rows))

    taken = _taken(processes, all_of_them) - rest * (time.monotonic() - began)
    if others := {name for name, _ in answers} - {by}:
        raise Silent(f"{model} was to answer by {by}, and answered by {sorted(others)}")
    marks = "".join("01"[row.is_right(said)] for row, (_, said) in zip(rows, answers, strict=True))
    return Judged(marks=marks, processor_seconds=max(0.0, taken) * 1000 / len(rows))


def processes_of(stack: LocalStack) -> list[psutil.Process]:
    """The stack's programs."""
    return [psutil.Process(one.pid) for one in stack.status(sample_seconds=0) if one.pid]


def _taken(processes: Sequence[psutil.Process], work: Callable[[], None]) -> float:
    """Processor seconds that the programs take while something is done."""
    before = _processor_seconds(processes)
    work()
    return _processor_seconds(processes) - before


def _processor_seconds(processes: Sequence[psutil.Process]) -> float:
    """So far, with children, also those that ended."""
    total = 0.0
    for program in processes:
        for process in (program, *program.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # its parent counts it
                total += sum(process.cpu_times()[:4])
    return total
