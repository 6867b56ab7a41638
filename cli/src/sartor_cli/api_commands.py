"""Commands over the public API: tenants, keys, files, jobs, models, chat."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sartor_cli.client import Client, CommandFailed, show, stdout

Json = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="API key; else SARTOR_API_KEY.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Address of the API, ending in /v1.")]

POLL_SECONDS = 1.0
ENDED = ("succeeded", "failed", "cancelled")

tenants = typer.Typer(help="Tenants (with the operator key).", no_args_is_help=True)
keys = typer.Typer(help="API keys of your tenant.", no_args_is_help=True)
files = typer.Typer(help="Uploads.", no_args_is_help=True)
jobs = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)
models = typer.Typer(help="Models.", no_args_is_help=True)
dlq = typer.Typer(help="Events that no consumer could handle (with the operator key).", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the groups to the command."""
    groups = {"tenants": tenants, "keys": keys, "files": files, "jobs": jobs, "models": models, "dlq": dlq}
    for name, group in groups.items():
        app.add_typer(group, name=name)
    app.command()(chat)


@tenants.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="Display name.")],
    tune_on_upload: Annotated[
        bool, typer.Option(help="Fine-tune by itself when data is uploaded as user_data.")
    ] = True,
    gate: Annotated[str, typer.Option(help="auto, approval or advisory.")] = "auto",
    as_json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """Make a tenant and its first API key, which is shown only now."""
    body = {"name": name, "policy": {"tune_on_upload": tune_on_upload, "gate": gate}}
    made = Client(base_url=base_url, operator=True).call("POST", "/organization/tenants", json=body)
    show(made, as_json=as_json, columns=("tenant_id", "slug", "api_key"))


@tenants.command("list")
def list_tenants(as_json: Json = False, base_url: BaseUrl = None) -> None:
    """List all tenants."""
    found = Client(base_url=base_url, operator=True).call("GET", "/organization/tenants")
    show(found, as_json=as_json, columns=("tenant_id", "slug", "name"))


Consumer = Annotated[str | None, typer.Option(help="Only those of this service.")]
Code = Annotated[str | None, typer.Option(help="Only those with this reason code.")]


@dlq.command("list")
def list_dead_letters(
    consumer: Consumer = None, code: Code = None, limit: int = 20, as_json: Json = False, base_url: BaseUrl = None
) -> None:
    """List events that were given up and not sent back yet, newest first."""
    wanted = {"limit": limit, "consumer": consumer, "code": code}
    parameters = {name: value for name, value in wanted.items() if value is not None}
    found = Client(base_url=base_url, operator=True).call("GET", "/organization/dead_letters", params=parameters)
    show(found, as_json=as_json, columns=("id", "type", "consumer", "code", "attempts", "reason"))


@dlq.command("show")
def show_dead_letter(letter_id: str, as_json: Json = False, base_url: BaseUrl = None) -> None:
    """Show one with its headers and body."""
    letter = Client(base_url=base_url, operator=True).call("GET", f"/organization/dead_letters/{letter_id}")
    columns = ("id", "type", "tenant_id", "consumer", "code", "attempts", "reason", "key", "headers", "value")
    show(letter, as_json=as_json, columns=columns)


@dlq.command("replay")
def replay_dead_letters(
    letter_id: Annotated[str | None, typer.Argument(help="Which one; or --all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All, or all that match --consumer and --code.")] = False,
    consumer: Consumer = None,
    code: Code = None,
    as_json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """Send events back to the consumer that gave them up, once the cause is mended."""
    if (letter_id is None) is not everything:
        raise CommandFailed("Name one dead letter (see `sartor dlq list`), or give --all.")
    client = Client(base_url=base_url, operator=True)
    if letter_id is not None:
        letter = client.call("POST", f"/organization/dead_letters/{letter_id}/replay")
        show(letter, as_json=as_json, columns=("id", "type", "consumer", "replayed_at"))
        return
    body = {"consumer": consumer, "code": code}
    show(client.call("POST", "/organization/dead_letters/replay", json=body), as_json=as_json, columns=("replayed",))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")] = "cli",
    role: Annotated[str, typer.Option(help="owner, engineer, approver, labeler, viewer or end_user.")] = "engineer",
    expires_in_days: Annotated[int | None, typer.Option(help="Days until it expires; never if not given.")] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make an API key, which is shown only now."""
    body: dict[str, Any] = {"name": name, "role": role}
    if expires_in_days is not None:
        body["expires_at"] = int(time.time()) + expires_in_days * 86_400
    made = Client(base_url=base_url, api_key=api_key).call("POST", "/organization/keys", json=body)
    show(made, as_json=as_json, columns=("id", "role", "api_key"))


@keys.command("list")
def list_keys(api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """List the tenant's keys; the keys themselves are not stored."""
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/organization/keys")
    show(found, as_json=as_json, columns=("id", "name", "role", "created_at", "expires_at", "revoked_at"))


@keys.command("revoke")
def revoke_key(key_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """End a key at once."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", f"/organization/keys/{key_id}")
    show(done, as_json=as_json, columns=("id", "deleted"))


@files.command("upload")
def upload_file(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    purpose: Annotated[str, typer.Option(help="user_data (tune by itself), fine-tune, or assistants.")] = "user_data",
    columns: Annotated[str | None, typer.Option(help="For CSV: text=COLUMN,label=COLUMN.")] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Upload a file, with a progress bar."""
    fields = {"purpose": purpose}
    if columns:
        try:
            fields["columns"] = json.dumps(dict(pair.split("=", 1) for pair in columns.split(",")))
        except ValueError as error:
            raise CommandFailed("--columns wants text=COLUMN,label=COLUMN") from error
    client = Client(base_url=base_url, api_key=api_key)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=stdout
    )
    with bar, path.open("rb") as source:
        bar.disable = as_json or not stdout.is_terminal
        task = bar.add_task(path.name, total=path.stat().st_size)
        watched = _Watched(source, lambda sent: bar.update(task, completed=sent))
        made = client.call(
            "POST", "/files", data=fields, files={"file": (path.name, watched, "application/octet-stream")}
        )
    show(made, as_json=as_json, columns=("id", "filename", "bytes", "purpose", "status"))


class _Watched:
    """A file that tells how far it has been read."""

    def __init__(self, source: BinaryIO, tell: Any) -> None:
        self._source = source
        self._tell = tell

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._tell(self._source.tell())
        return data

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(65_536):
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@files.command("list")
def list_files(api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """List uploads."""
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/files")
    show(found, as_json=as_json, columns=("id", "filename", "bytes", "purpose", "status", "status_details"))


@jobs.command("create")
def create_job(
    training_file: Annotated[str, typer.Option(help="Id of an uploaded file.")],
    model: Annotated[
        str | None, typer.Option(help="Base model; the first one of `sartor models list` if not given.")
    ] = None,
    validation_file: Annotated[str | None, typer.Option(help="Id of another uploaded file.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Goes into the model's name.")] = None,
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
        if not bases:
            raise CommandFailed("there is no base model")
        model = bases[0]["id"]
    body: dict[str, Any] = {"training_file": training_file, "model": model}
    body |= {
        name: value
        for name, value in (("validation_file", validation_file), ("suffix", suffix), ("seed", seed))
        if value is not None
    }
    if epochs is not None:
        body["method"] = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs}}}
    show(client.call("POST", "/fine_tuning/jobs", json=body), as_json=as_json, columns=("id", "model", "status"))


@jobs.command("list")
def list_jobs(api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """List jobs, newest first."""
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/fine_tuning/jobs")
    show(found, as_json=as_json, columns=("id", "status", "model", "training_file", "fine_tuned_model"))


@jobs.command("logs")
def job_logs(
    job_id: str,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Print a job's events, oldest first."""
    client = Client(base_url=base_url, api_key=api_key)
    shown: set[str] = set()
    while True:
        status = client.call("GET", f"/fine_tuning/jobs/{job_id}")["status"]
        for event in reversed(_events(client, job_id)):
            if event["id"] not in shown:
                shown.add(event["id"])
                _print_event(event, as_json=as_json)
        if not follow or status in ENDED:
            break
        time.sleep(POLL_SECONDS)
    if follow and status != "succeeded":
        raise CommandFailed(f"the job ended as {status}")


def _events(client: Client, job_id: str) -> list[dict[str, Any]]:
    """All events of a job, newest first."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": 100}
    while True:
        page = client.call("GET", f"/fine_tuning/jobs/{job_id}/events", params=params)
        found += page["data"]
        if not page["has_more"]:
            return found
        params["after"] = found[-1]["id"]


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(event, ensure_ascii=False))
    else:
        at = time.strftime("%H:%M:%S", time.localtime(event["created_at"]))
        stdout.print(f"{at} {event['level']:<5} {event['message']}", markup=False, highlight=False)


@jobs.command("cancel")
def cancel_job(job_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """End a job."""
    done = Client(base_url=base_url, api_key=api_key).call("POST", f"/fine_tuning/jobs/{job_id}/cancel")
    show(done, as_json=as_json, columns=("id", "status"))


@models.command("list")
def list_models(api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """List the models you may use."""
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/models")
    show(found, as_json=as_json, columns=("id", "owned_by", "created"))


@models.command("promote")
def promote_model(model_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Approve a model that waits at the gate."""
    done = Client(base_url=base_url, api_key=api_key).call("POST", f"/registry/models/{model_id}/approve", json={})
    show(done, as_json=as_json, columns=("id", "state"))


def chat(
    message: Annotated[str | None, typer.Argument(help="One message; a conversation if not given.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Model to talk to.")] = "",
    system: Annotated[
        str | None, typer.Option(help="System message; a model answers best under the one of its training rows.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Chat with a model; the answer appears as it is made."""
    client = Client(base_url=base_url, api_key=api_key)
    model = model or client.call("GET", "/models")["data"][0]["id"]
    messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    while True:
        asked = message if message is not None else typer.prompt("you", prompt_suffix="> ")
        messages.append({"role": "user", "content": asked})
        body = {"model": model, "messages": messages, "max_tokens": max_tokens}
        if as_json:
            show(client.call("POST", "/chat/completions", json=body), as_json=True)
            return
        answer = ""
        for chunk in client.stream("/chat/completions", body):
            piece = chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None
            if piece:
                answer += piece
                stdout.print(piece, end="", markup=False, highlight=False)
        stdout.print()
        messages.append({"role": "assistant", "content": answer})
        if message is not None:
            return
