"""Commands for tenants, API keys, and events that no consumer could handle."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from sartor_cli.client import Client, CommandFailed, stderr
from sartor_cli.options import After, ApiKey, BaseUrl, Json, Limit, given
from sartor_cli.people_commands import ROLES, show_invited
from sartor_cli.tables import local_time, show

tenants = typer.Typer(help="Tenants (with the operator key).", no_args_is_help=True)
keys = typer.Typer(help="API keys of your tenant.", no_args_is_help=True)
dlq = typer.Typer(help="Events that no consumer could handle (with the operator key).", no_args_is_help=True)


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
def list_tenants(limit: Limit = 20, after: After = None, as_json: Json = False, base_url: BaseUrl = None) -> None:
    """List all tenants."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, operator=True).call("GET", "/organization/tenants", params=wanted)
    show(found, as_json=as_json, columns=("tenant_id", "slug", "name", "created_at"))


@tenants.command("let-in")
def let_owner_in(
    tenant_id: str,
    email: Annotated[str, typer.Argument(help="Who is to be an owner of the tenant.")],
    as_json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """Make somebody an owner of a tenant, and print the link to give them, which is shown only now."""
    client = Client(base_url=base_url, operator=True)
    body = {"email": email}
    show_invited(client, client.call("POST", "/organization/tenants/{}/owners", tenant_id, json=body), as_json=as_json)


@tenants.command("limits")
def change_limits(
    tenant_id: str,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Of all its keys and people.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Of all its keys and people.")] = None,
    keys: Annotated[int | None, typer.Option(min=1, help="Most API keys in use.")] = None,
    people: Annotated[int | None, typer.Option(min=1, help="Most people.")] = None,
    as_json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """Show what a tenant may use in all, and change it."""
    change = given(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, keys=keys, people=people
    )
    client = Client(base_url=base_url, operator=True)
    changed = client.call("PATCH", "/organization/tenants/{}", tenant_id, json=change)
    shown = changed if as_json else changed | changed["limits"]
    columns = ("tenant_id", "name", "requests_per_minute", "tokens_per_minute", "keys", "people")
    show(shown, as_json=as_json, columns=columns)


Consumer = Annotated[str | None, typer.Option(help="Only those of this service.")]
Code = Annotated[str | None, typer.Option(help="Only those with this reason code.")]


@dlq.command("list")
def list_dead_letters(
    consumer: Consumer = None, code: Code = None, limit: Limit = 20, as_json: Json = False, base_url: BaseUrl = None
) -> None:
    """List events that were given up and not sent back yet, newest first."""
    wanted = given(limit=limit, consumer=consumer, code=code)
    found = Client(base_url=base_url, operator=True).call("GET", "/organization/dead_letters", params=wanted)
    columns = ("id", "type", "consumer", "code", "attempts", "died_at", "reason")
    show(found, as_json=as_json, columns=columns, more="--limit shows up to 100 of them")


@dlq.command("show")
def show_dead_letter(letter_id: str, as_json: Json = False, base_url: BaseUrl = None) -> None:
    """Show one with its headers and body."""
    letter = Client(base_url=base_url, operator=True).call("GET", "/organization/dead_letters/{}", letter_id)
    columns = ("id", "type", "tenant_id", "consumer", "code", "attempts", "died_at", "replayed_at", "reason", "key")
    show(letter, as_json=as_json, columns=(*columns, "headers", "value"))


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
        letter = client.call("POST", "/organization/dead_letters/{}/replay", letter_id)
        show(letter, as_json=as_json, columns=("id", "type", "consumer", "replayed_at"))
        return
    body = {"consumer": consumer, "code": code}
    done = client.call("POST", "/organization/dead_letters/replay", json=body)
    show(done, as_json=as_json, columns=("replayed", "skipped"))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")] = "cli",
    role: Annotated[str, typer.Option(help=ROLES)] = "engineer",
    expires_in_days: Annotated[int | None, typer.Option(help="Days until it expires; never if not given.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do of its role; several times for more. All if not given.")
    ] = None,
    event_type: Annotated[
        list[str] | None,
        typer.Option(help="A type of event that a service of yours publishes with it; several times for more."),
    ] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make an API key, which is shown only now."""
    body: dict[str, Any] = {"name": name, "role": role, **given(scopes=scope or None, event_types=event_type or None)}
    if expires_in_days is not None:
        body["expires_at"] = int(time.time()) + expires_in_days * 86_400
    made = Client(base_url=base_url, api_key=api_key).call("POST", "/organization/keys", json=body)
    show(made, as_json=as_json, columns=("id", "role", "expires_at", "api_key"))


@keys.command("list")
def list_keys(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List the tenant's keys; the keys themselves are not stored."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/organization/keys", params=wanted)
    show(found, as_json=as_json, columns=("id", "name", "role", "created_at", "expires_at", "revoked_at"))


@keys.command("rotate")
def rotate_key(
    key_id: Annotated[str, typer.Argument(help="Which key; if none is named, the one this is asked with.")] = "own",
    grace_seconds: Annotated[
        int | None, typer.Option(min=0, help="How long the secret before it holds too; a day if not given.")
    ] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Replace a key by another one of the same rights, which is shown only now."""
    client = Client(base_url=base_url, api_key=api_key)
    body = given(grace_seconds=grace_seconds)
    rotated = client.call("POST", "/organization/keys/{}/rotate", key_id, json=body)
    show(rotated, as_json=as_json, columns=("id", "name", "role", "expires_at", "api_key"))
    if not as_json:
        for secret in rotated["replaced"]:
            stderr.print(f"{secret['hint']} holds too, until {local_time(secret['ends_at'])}")


@keys.command("revoke")
def revoke_key(key_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """End a key at once."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", "/organization/keys/{}", key_id)
    show(done, as_json=as_json, columns=("id", "deleted"))


def leftovers(
    purge: Annotated[bool, typer.Option("--purge", help="Remove it; otherwise it is only counted.")] = False,
    as_json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """Find what is left of files and models that were deleted under an earlier release (with the operator key)."""
    client = Client(base_url=base_url, operator=True)
    done = client.call("GET", "/organization/leftovers")
    removed = dict.fromkeys((one["service"] for one in done["data"]), 0)
    while purge:
        done = client.call("POST", "/organization/leftovers/purge")
        for one in done["data"]:
            removed[one["service"]] += one["purged"]
        purge = any(one["purged"] for one in done["data"])
    total = {**done, "data": [{**one, "purged": removed[one["service"]]} for one in done["data"]]}
    show(total, as_json=as_json, columns=("service", "found", "purged"))
