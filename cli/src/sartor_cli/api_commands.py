"""The commands over the public API: their groups, and chat."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sartor_cli.client import Client, CommandFailed, stdout
from sartor_cli.data_commands import datasets, files
from sartor_cli.event_commands import events, webhooks
from sartor_cli.job_commands import jobs
from sartor_cli.labeling_commands import feedback, labeling
from sartor_cli.model_commands import models
from sartor_cli.options import ApiKey, BaseUrl, Json
from sartor_cli.organization_commands import dlq, keys, leftovers, tenants
from sartor_cli.people_commands import audit, people, policy


def add_to(app: typer.Typer) -> None:
    """Add the groups to the command."""
    groups = {"tenants": tenants, "keys": keys, "files": files, "datasets": datasets, "jobs": jobs, "models": models}
    groups |= {"labeling": labeling, "feedback": feedback, "people": people, "policy": policy, "audit": audit}
    groups |= {"dlq": dlq, "events": events, "webhooks": webhooks}
    for name, group in groups.items():
        app.add_typer(group, name=name)
    app.command()(chat)
    app.command()(leftovers)


def chat(
    message: Annotated[str | None, typer.Argument(help="One message; a conversation if not given.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model to talk to; the first of `sartor models list` if not given.")
    ] = "",
    system: Annotated[
        str | None, typer.Option(help="System message; a model answers best under the one of its training rows.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens; to the end of the context if not given.")
    ] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Chat with a model; the answer appears as it is made."""
    client = Client(base_url=base_url, api_key=api_key)
    model = model or _first_model(client)
    messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    while True:
        asked = message if message is not None else typer.prompt("you", prompt_suffix="> ")
        messages.append({"role": "user", "content": asked})
        limit = {} if max_tokens is None else {"max_tokens": max_tokens}
        body = {"model": model, "messages": messages, **limit}
        if as_json:
            answer = client.call("POST", "/chat/completions", json=body)
            typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
            return
        said = ""
        for chunk in client.stream("/chat/completions", body):
            piece = chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None
            if piece:
                said += piece
                stdout.print(piece, end="")
        stdout.print()
        messages.append({"role": "assistant", "content": said})
        if message is not None:
            return


def _first_model(client: Client) -> str:
    found = client.call("GET", "/models")["data"]
    if not found:
        raise CommandFailed("there is no model to talk to; upload data (`sartor files upload FILE`) to have one made")
    return str(found[0]["id"])
