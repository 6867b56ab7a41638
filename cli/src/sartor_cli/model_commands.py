"""Commands for fine-tuning jobs and the models they make."""

from __future__ import annotations

import json
import time
from itertools import takewhile
from typing import Annotated, Any

import typer

from sartor_cli.answering import answers, kind_of
from sartor_cli.client import Client, CommandFailed, stderr, stdout
from sartor_cli.options import After, ApiKey, BaseUrl, Json, Limit, given
from sartor_cli.stages import stage_of, waiting_for
from sartor_cli.tables import cell, local_time, show, show_deleted, show_rows

jobs = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)
models = typer.Typer(help="Models.", no_args_is_help=True)

POLL_SECONDS = 1.0
Note = Annotated[str, typer.Option(help="Why; kept with the decision.")]


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


@models.command("list")
def list_models(
    state: Annotated[
        str | None,
        typer.Option(help="Instead: candidate, awaiting_approval, production, rejected or retired ones."),
    ] = None,
    limit: Limit = 20,
    after: After = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """List the models you may use, or those in another state."""
    client = Client(base_url=base_url, api_key=api_key)
    if state is None:
        found = client.call("GET", "/models")
        serving = {} if as_json else _serving(client)
        rows = [row | _answer_of(serving.get(row["id"], {})) for row in found["data"]]
        shown = found if as_json else {**found, "data": rows}
        show(shown, as_json=as_json, columns=("id", "answers_by", "pinned", "owned_by", "created"))
        return
    found = client.call("GET", "/registry/models", params=given(state=state, limit=limit, after=after))
    shown = found if as_json else {**found, "data": [card | _answer_of(card) for card in found["data"]]}
    show(shown, as_json=as_json, columns=("id", "answers_by", "pinned", "state", "waiting_for", "created_at"))


def _serving(client: Client) -> dict[str, dict[str, Any]]:
    """By name, the version by which each of one's own models answers at the moment."""
    found: dict[str, dict[str, Any]] = {}
    params: dict[str, Any] = {"state": "production", "limit": 100}
    while True:
        page = client.call("GET", "/registry/models", params=params)
        found |= {card["name"]: card for card in page["data"] if card.get("serves")}
        if not page["has_more"]:
            return found
        params["after"] = page["data"][-1]["id"]


def _answer_of(card: dict[str, Any]) -> dict[str, Any]:
    """By what a version answers, and whether a person pinned it; nothing is shown where they did not."""
    return {"answers_by": kind_of(card), "pinned": card.get("pinned") or None}


@models.command("bases")
def list_bases(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List base models: who answers for each, how many replicas of ours do, and whether it can be fine-tuned."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/registry/base_models", params=wanted)
    show(
        found,
        as_json=as_json,
        columns=("id", "engine", "replicas", "fine_tuning", "default", "context_length", "created"),
    )


@models.command("show")
def show_model(model_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Show one of your models: its state, its scores, where it came from, and all versions of its name."""
    client = Client(base_url=base_url, api_key=api_key)
    card = client.call("GET", "/registry/models/{}", model_id)
    if as_json:
        show(card, as_json=True, columns=())
        return
    evaluation = card.get("evaluation") or {}
    scores = {f"score_{system}": score for system, score in (evaluation.get("scores") or {}).items()}
    scores |= {
        name: score for name, score in (evaluation.get("measured") or {}).items() if name != evaluation["metric"]
    }
    facts = card | {
        name: f"{score['value']:.3f} ({_interval(score)}, {score['n']} rows)" for name, score in scores.items()
    }
    facts |= {"verdict": evaluation.get("verdict"), "reason": evaluation.get("reason"), **_answer_of(card)}
    pinned = ("pinned", "hand_over_below") if card.get("hand_over_below") else ("pinned",)
    state = ("id", "name", "answers_by", "serves", *pinned, "state", "waiting_for", *scores, "verdict", "reason")
    origin = ("base_model", "job_id", "dataset_id", "training_file", "task", "method", "hyperparameters", "seed")
    show(facts, as_json=False, columns=(*state, *origin, "trained_tokens", "created_at", "promoted_at", "ended_at"))
    if "name" in card:
        _show_versions(client.call("GET", "/registry/models", params={"name": card["name"]})["data"])


def _show_versions(cards: list[dict[str, Any]]) -> None:
    """The versions of a name in one table; of one that is alone all is said already."""
    if len(cards) < 2:
        return
    stdout.print("\nversions of the name, newest first")
    columns = ("version", "state", "waiting_for", "serves", "pinned", "measured", "interval", "rows", "id")
    show_rows(columns, [_version_row(card) for card in cards], numbers=("rows",))


def _version_row(card: dict[str, Any]) -> list[str]:
    evaluation = card.get("evaluation") or {}
    score = (evaluation.get("scores") or {}).get("candidate")
    measured = (
        [f"{evaluation['metric']} {score['value']:.3f}", _interval(score), str(score["n"])] if score else [""] * 3
    )
    state = [cell(name, (card | _answer_of(card)).get(name)) for name in ("state", "waiting_for", "serves", "pinned")]
    return [kind_of(card) or "", *state, *measured, card["id"]]


def _interval(score: dict[str, Any]) -> str:
    return f"{score['low']:.3f} to {score['high']:.3f}"


@models.command("delete")
def delete_model(model_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Delete a name with every version, or one arm of it (NAME@head); says what stays, and why."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", "/models/{}", model_id)
    show_deleted(done, as_json=as_json)


@models.command("approve")
def approve_model(
    model_id: str, note: Note = "", api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """Let a version that waits at the gate into use: an arm, NAME@head or NAME@nearest, or the adapter, NAME."""
    _decide(Client(base_url=base_url, api_key=api_key), model_id, "approve", note, as_json=as_json)


@models.command("reject")
def reject_model(
    model_id: str, note: Note = "", api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """Refuse a version that waits at the gate; another version of its name is decided on by itself."""
    _decide(Client(base_url=base_url, api_key=api_key), model_id, "reject", note, as_json=as_json)


@models.command("pin")
def pin_model(
    model_id: str,
    note: Note = "",
    hand_over_below: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Of an arm: where it is less sure than this (0.9), its adapter answers, or the base model.",
        ),
    ] = None,
    hand_nothing_over: Annotated[
        bool, typer.Option("--hand-nothing-over", help="Have an arm that hands over answer all by itself again.")
    ] = False,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Have a name answer by one version whatever tests say: an arm, NAME@head or NAME@nearest, or the adapter, NAME."""
    if hand_nothing_over and hand_over_below is not None:
        raise typer.BadParameter("--hand-over-below and --hand-nothing-over are opposites; give one of them.")
    client = Client(base_url=base_url, api_key=api_key)
    bound = {"hand_over_below": None} if hand_nothing_over else given(hand_over_below=hand_over_below)
    _decide(client, model_id, "pin", note, as_json=as_json, **bound)


@models.command("unpin")
def unpin_model(
    model_id: str, note: Note = "", api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """Leave it to tests again by which version a name answers."""
    _decide(Client(base_url=base_url, api_key=api_key), model_id, "unpin", note, as_json=as_json)


def _decide(client: Client, model_id: str, decision: str, note: str, *, as_json: bool, **more: float | None) -> None:
    done = client.call("POST", f"/registry/models/{{}}/{decision}", model_id, json={"note": note, **more})
    shown = done if as_json else done | _answer_of(done)
    answering = ("id", "answers_by", "state", "waiting_for", "serves", "pinned")
    columns = (*answering, "hand_over_below") if done.get("hand_over_below") else answering
    show(shown, as_json=as_json, columns=columns)
