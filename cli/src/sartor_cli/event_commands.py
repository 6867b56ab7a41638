"""Commands for events: publishing those of a service outside, reading the tenant's, webhooks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from sartor_cli.client import Client, CommandFailed
from sartor_cli.options import After, ApiKey, BaseUrl, Json, Limit, given
from sartor_cli.tables import show

events = typer.Typer(help="Events: publish those of a service of yours, read the tenant's.", no_args_is_help=True)
webhooks = typer.Typer(help="Webhooks: where chosen events are sent.", no_args_is_help=True)

WAIT_SECONDS = 25
"""How long one question waits for the next event."""

ENDPOINT = ("id", "name", "url", "event_types", "deliveries", "skipped", "off", "created_at")
DELIVERY = ("id", "event_type", "state", "attempts", "status", "tried_at", "problem", "event_id")
Types = Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be given several times.")]


@events.command("publish")
def publish_event(
    event_type: Annotated[str, typer.Argument(help="Its type, for example feedback.recorded.v1.")],
    data: Annotated[str, typer.Option(help="The payload as JSON; @FILE reads a file, - the standard input.")],
    event_id: Annotated[str | None, typer.Option("--id", help="Unique for the source; by chance if not given.")] = None,
    source: Annotated[str, typer.Option(help="A path that names the sender.")] = "/sartor-cli",
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Publish an event with a key that names its type; the same id again is the same event."""
    attributes = {"specversion": "1.0", "id": event_id or str(uuid4()), "source": source, "type": event_type}
    content = json.dumps({**attributes, "data": _decoded(data)})
    client = Client(base_url=base_url, api_key=api_key)
    sent = client.call("POST", "/events", content=content, headers={"content-type": "application/cloudevents+json"})
    show(sent, as_json=as_json, columns=("id", "type", "subject", "accepted_at"))


def _decoded(data: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if data == "-" else Path(data[1:]).read_text() if data.startswith("@") else data
        decoded = json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"--data: {error}") from error
    if not isinstance(decoded, dict):
        raise CommandFailed('--data is a JSON object, for example \'{"rating": "up"}\'')
    return decoded


@events.command("tail")
def tail_events(
    types: Types = None,
    after: Annotated[str | None, typer.Option(help="Only what follows this cursor; `latest` for what comes.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for further ones.")] = True,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Show the tenant's events, a line each, oldest first, and wait for further ones."""
    client = Client(base_url=base_url, api_key=api_key)
    wanted = given(types=",".join(types) if types else None, limit=100, wait=WAIT_SECONDS if follow else None)
    while True:
        page = client.call("GET", "/events", params=wanted | given(after=after))
        for event in page["data"]:
            typer.echo(json.dumps(event, ensure_ascii=False) if as_json else _line(event))
        after = page["last_id"]
        if not follow and not page["has_more"]:
            return


def _line(event: dict[str, Any]) -> str:
    facts = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in event["data"].items())
    return f"{event['cursor']:>6}  {event['time'][:19]}  {event['type']}  {facts}"


@events.command("refused")
def list_refused_events(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List events of services outside that were not published, with the reason."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/events/refused", params=wanted)
    show(found, as_json=as_json, columns=("id", "refused_at", "type", "event_id", "key_id", "code", "reason"))


@webhooks.command("create")
def create_webhook(
    url: Annotated[str, typer.Argument(help="Where events are sent: an https address.")],
    types: Annotated[list[str], typer.Option("--type", help="A type that is sent; may be given several times.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "webhook",
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Send events of these types to an address; the secret by which they are signed is shown only now."""
    body = {"name": name, "url": url, "event_types": types}
    made = Client(base_url=base_url, api_key=api_key).call("POST", "/webhook_endpoints", json=body)
    show(made, as_json=as_json, columns=("id", "name", "url", "event_types", "signing_secret"))


@webhooks.command("list")
def list_webhooks(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List the tenant's webhooks, with what waits for them and what was parked."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/webhook_endpoints", params=wanted)
    show(found, as_json=as_json, columns=ENDPOINT)


@webhooks.command("delete")
def delete_webhook(endpoint_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Send nothing there any more."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", "/webhook_endpoints/{}", endpoint_id)
    show(done, as_json=as_json, columns=("id", "deleted"))


@webhooks.command("test")
def try_webhook(
    endpoint_id: str,
    event_type: Annotated[str, typer.Argument(help="A type of event to send a sample of.")],
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Send a sample now, and show how it was answered."""
    client = Client(base_url=base_url, api_key=api_key)
    done = client.call("POST", "/webhook_endpoints/{}/test", endpoint_id, json={"event_type": event_type})
    show(done, as_json=as_json, columns=("webhook_endpoint_id", "event_type", "status_code"))


@webhooks.command("deliveries")
def list_deliveries(
    endpoint_id: str,
    state: Annotated[str | None, typer.Option(help="Only waiting, delivered or parked ones.")] = None,
    limit: Limit = 20,
    after: After = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """List what was sent to a webhook, newest first."""
    client, wanted = Client(base_url=base_url, api_key=api_key), given(state=state, limit=limit, after=after)
    found = client.call("GET", "/webhook_endpoints/{}/deliveries", endpoint_id, params=wanted)
    show(found, as_json=as_json, columns=DELIVERY)


@webhooks.command("replay")
def replay_delivery(
    endpoint_id: str, delivery_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """Send a delivery again that was parked, or taken."""
    client = Client(base_url=base_url, api_key=api_key)
    again = client.call("POST", "/webhook_endpoints/{}/deliveries/{}/replay", endpoint_id, delivery_id)
    show(again, as_json=as_json, columns=DELIVERY)
