"""Commands for uploads and the datasets made from them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from sartor_cli.client import Client, CommandFailed, stderr
from sartor_cli.first_answer import follow
from sartor_cli.options import After, ApiKey, BaseUrl, Json, Limit, given
from sartor_cli.tables import show, show_deleted
from sartor_cli.transfer_bar import transfer_bar

files = typer.Typer(help="Uploads.", no_args_is_help=True)
datasets = typer.Typer(help="Datasets made from uploads.", no_args_is_help=True)

FILE = ("id", "filename", "bytes", "purpose", "status", "kind", "created_at", "expires_at", "status_details")


@files.command("upload")
def upload_file(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    purpose: Annotated[str, typer.Option(help="user_data (tune by itself), fine-tune, or assistants.")] = "user_data",
    columns: Annotated[str | None, typer.Option(help="For CSV and XLSX: text=COLUMN,label=COLUMN.")] = None,
    on_bad_rows: Annotated[
        str | None,
        typer.Option(help="Where rows are broken: refuse the file, as if not given, or skip those rows and list them."),
    ] = None,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--no-wait",
            help="Say when the model made of it first answers, or after a minute how to go on; as if given in a "
            "terminal, for user_data without --json.",
            show_default=False,
        ),
    ] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Upload a file (JSONL, CSV, XLSX, Markdown or plain text), with a progress bar."""
    began = time.monotonic()
    fields = {"purpose": purpose, **({"on_bad_rows": on_bad_rows} if on_bad_rows is not None else {})}
    if columns:
        try:
            fields["columns"] = json.dumps(dict(pair.split("=", 1) for pair in columns.split(",")))
        except ValueError as error:
            raise CommandFailed("--columns wants text=COLUMN,label=COLUMN") from error
    client = Client(base_url=base_url, api_key=api_key)
    with transfer_bar(quiet=as_json) as bar, path.open("rb") as source:
        task = bar.add_task(path.name, total=path.stat().st_size)
        watched = _Watched(source, lambda sent: bar.update(task, completed=sent))
        made = client.call(
            "POST", "/files", data=fields, files={"file": (path.name, watched, "application/octet-stream")}
        )
    show(made, as_json=as_json, columns=FILE)
    somebody_reads = stderr.is_terminal and purpose == "user_data" and not as_json
    if somebody_reads if wait is None else wait:
        follow(client, made["id"], began)


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
def list_files(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List uploads, newest first."""
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/files", params=given(limit=limit, after=after))
    columns = ("id", "filename", "bytes", "purpose", "status", "created_at", "status_details")
    show(found, as_json=as_json, columns=columns)


@files.command("show")
def show_file(file_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Show one upload, and what became of it."""
    file = Client(base_url=base_url, api_key=api_key).call("GET", "/files/{}", file_id)
    show(file, as_json=as_json, columns=FILE)


@files.command("delete")
def delete_file(file_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Delete an upload and what was made of it; says what stays, and why."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", "/files/{}", file_id)
    show_deleted(done, as_json=as_json)


@datasets.command("list")
def list_datasets(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List datasets, newest first."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/datasets", params=wanted)
    show(found, as_json=as_json, columns=("id", "task", "rows", "file_id", "created_at"))


@datasets.command("show")
def show_dataset(dataset_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Show one dataset; --json has its manifest and card too."""
    dataset = Client(base_url=base_url, api_key=api_key).call("GET", "/datasets/{}", dataset_id)
    columns = ("id", "task", "rows", "labels", "system", "file_id", "project_id", "created_at")
    show(dataset, as_json=as_json, columns=columns)
