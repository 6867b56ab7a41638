"""Commands for fine-tuning jobs."""

from __future__ import annotations

import json
import time
from itertools import takewhile
from typing import Annotated, Any

import typer

from sartor_cli.answering import answers
from sartor_cli.client import Client, CommandFailed, stderr, stdout
from sartor_cli.options import After, ApiKey, BaseUrl, Json, Limit, given
from sartor_cli.stages import stage_of, waiting_for
from sartor_cli.tables import cell, local_time, show

jobs = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)

POLL_SECONDS = 1.0

MOST_SHOWN = 200
"""Characters of a row's text in a table."""

POINT = ("rows", "accuracy", "low", "high")
BIN = ("confidence", *POINT)
COVERAGE = (*BIN, "others")


@jobs.command("create")
def create_job(
    training_file: Annotated[str, typer.Option(help="Id of an uploaded file.")],
    model: Annotated[
        str | None, typer.Option(help="Base model; the first one of `sartor models list` if not given.")
    ] = None,
    validation_file: Annotated[str | None, typer.Option(help="Id of another uploaded file.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Goes into the model's name.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to train: supervised, on rows with answers (if not given), or pretrain, on a document (purpose "
            "assistants) or rows of text (purpose user_data)."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs; chosen by the size of the data if not given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Ask for a fine-tune."""
    client = Client(base_url=base_url, api_key=api_key)
    if model is None:
        bases = client.call("GET", "/registry/base_models")["data"]
        model = next((base["id"] for base in bases if base.get("fine_tuning", True)), None)
        if model is None:
            raise CommandFailed("this installation has no base model to fine-tune; its operator adds one")
    body = given(training_file=training_file, model=model, validation_file=validation_file, suffix=suffix, seed=seed)
    if method is not None or epochs is not None:
        body["method"] = _method(method or "supervised", given(n_epochs=epochs))
    show(client.call("POST", "/fine_tuning/jobs", json=body), as_json=as_json, columns=("id", "model", "status"))


def _method(name: str, hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """A job's method as the API wants it."""
    return {"type": name, **({name: {"hyperparameters": hyperparameters}} if hyperparameters else {})}


@jobs.command("list")
def list_jobs(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List jobs, newest first."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/fine_tuning/jobs", params=wanted)
    made = ("fine_tuned_model", "answers_by", "created_at")
    columns = ("id", "status", "stage", "method", "model", "training_file", *made)
    shown = found if as_json else {**found, "data": [_with_method(job) for job in found["data"]]}
    show(shown, as_json=as_json, columns=columns)


def _with_method(job: dict[str, Any]) -> dict[str, Any]:
    """A job for people: its method by name, as its hyperparameters stand beside it."""
    return {**job, "method": (job.get("method") or {}).get("type")}


@jobs.command("show")
def show_job(job_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Show one job: its stage, what it waits for, what answers, what it was asked for and what came of it."""
    job = Client(base_url=base_url, api_key=api_key).call("GET", "/fine_tuning/jobs/{}", job_id)
    asked = ("method", "model", "training_file", "validation_file", "hyperparameters", "seed", "metadata")
    came = ("created_at", "estimated_finish", "finished_at", "trained_tokens", "fine_tuned_model")
    shown = job if as_json else {**_with_method(job), "waiting_for": waiting_for(job), "answers": answers(job)}
    show(shown, as_json=as_json, columns=("id", "status", "stage", "waiting_for", "answers", "error", *asked, *came))


@jobs.command("logs")
def job_logs(
    job_id: str,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Print a job's events, oldest first, what it waits for and what answers, and with -f go on until it ends."""
    client = Client(base_url=base_url, api_key=api_key)
    newest, waited, answered = None, "", ""
    while True:
        job = client.call("GET", "/fine_tuning/jobs/{}", job_id)
        for event in reversed(_events(client, job_id, until=newest)):
            newest = event["id"]
            _print_event(event, as_json=as_json)
        waits = waiting_for(job)
        if waits and waits != waited:
            advice = "; Ctrl+C ends this command, not the job" if follow else ""
            stderr.print(f"The job waits: {waits}{advice}")
        waited = waits
        by = answers(job)
        if by and by != answered and stage_of(job) != "ended":
            stderr.print(f"{job['fine_tuned_model']} answers {by}")
        answered = by
        if not follow or stage_of(job) == "ended":
            break
        time.sleep(POLL_SECONDS)
    if not follow:
        return
    if job["status"] != "succeeded":
        reason = (job.get("error") or {}).get("message") or "no reason is kept"
        raise CommandFailed(f"the job ended as {job['status']}: {reason}")
    if not as_json:
        stderr.print(f"The job succeeded: {job['fine_tuned_model']}{f' answers {answered}' if answered else ''}")


def _events(client: Client, job_id: str, *, until: str | None) -> list[dict[str, Any]]:
    """A job's events, newest first, as far as the one with the id `until`."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": 100}
    while True:
        page = client.call("GET", "/fine_tuning/jobs/{}/events", job_id, params=params)
        new = list(takewhile(lambda event: event["id"] != until, page["data"]))
        found += new
        if len(new) < len(page["data"]) or not page["has_more"]:
            return found
        params["after"] = found[-1]["id"]


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(event, ensure_ascii=False))
    else:
        line = f"{local_time(event['created_at'])} {event['level']:<5} {cell('message', event['message'])}"
        stdout.print(line)


@jobs.command("report")
def data_report(job_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Say what a job's rows tell: what more would bring, how far its arm's confidence holds, and what looks wrong."""
    report = Client(base_url=base_url, api_key=api_key).call("GET", "/fine_tuning/jobs/{}/data_report", job_id)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    for sentence in report["said"]:
        typer.echo(sentence)
    reliability = report.get("reliability") or {}
    for title, columns, rows in (
        ("Accuracy by rows, on rows that it was not fitted to:", POINT, report["curve"]["points"]),
        ("Accuracy by confidence, on rows that it was not fitted to:", BIN, reliability.get("bins")),
        ("Answering only from a confidence on:", COVERAGE, reliability.get("coverage")),
        ("Taken for another:", ("wanted", "given", "times"), report["confusions"]),
        (_suspects_title(report), ("question", "answer", "likelier", "confidence"), report["suspects"]),
    ):
        if rows:
            typer.echo(f"\n{title}")
            show({"data": [_short(row) for row in rows]}, as_json=False, columns=columns)


def _suspects_title(report: dict[str, Any]) -> str:
    listed, found = len(report["suspects"]), report["suspects_found"]
    of = f" ({listed} of {found}, the clearest)" if found > listed else ""
    return f"Rows whose answer may be wrong{of}; --json has them whole:"


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table, its numbers rounded and its texts cut."""
    texts = {name: f"{value:.2f}" if isinstance(value, float) else value for name, value in row.items()}
    return {
        name: f"{value[: MOST_SHOWN - 1]}…" if isinstance(value, str) and len(value) > MOST_SHOWN else value
        for name, value in texts.items()
    }


@jobs.command("cancel")
def cancel_job(job_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """End a job; a model of it that answers already by its rows goes too."""
    done = Client(base_url=base_url, api_key=api_key).call("POST", "/fine_tuning/jobs/{}/cancel", job_id)
    show(done, as_json=as_json, columns=("id", "status"))
