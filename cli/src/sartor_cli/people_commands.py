"""Commands by which an organization is run: its people, its policy, its audit trail."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sartor_cli.client import Client, CommandFailed
from sartor_cli.options import After, ApiKey, BaseUrl, Json, Limit, given
from sartor_cli.tables import show

people = typer.Typer(help="People of your organization.", no_args_is_help=True)
policy = typer.Typer(help="What happens to your organization's uploads and models.", no_args_is_help=True)
audit = typer.Typer(help="The audit trail of your organization.", no_args_is_help=True)

PERSON = ("id", "email", "role", "status", "created_at")
ROLES = "owner, admin, engineer, approver, labeler, viewer, auditor or end_user."
Role = Annotated[str, typer.Option(help=ROLES)]


def show_invited(client: Client, invited: dict[str, Any], *, as_json: bool) -> None:
    """Print a person with the link by which they choose a password."""
    place = client.base_url.removesuffix("/v1") + invited["invitation"]["path"]
    shown = invited if as_json else {**invited, "link": place, "link_expires_at": invited["invitation"]["expires_at"]}
    show(shown, as_json=as_json, columns=("id", "email", "role", "status", "link", "link_expires_at"))


@people.command("list")
def list_people(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List people, newest first."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/organization/users", params=wanted)
    show(found, as_json=as_json, columns=PERSON)


@people.command("invite")
def invite_person(
    email: str, role: Role = "end_user", api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """Invite somebody; prints the link to give them, which is shown only now."""
    client = Client(base_url=base_url, api_key=api_key)
    body = {"email": email, "role": role}
    show_invited(client, client.call("POST", "/organization/users", json=body), as_json=as_json)


@people.command("reset-password")
def reset_password(user_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Make a link by which somebody chooses another password; the old one holds until they do."""
    client = Client(base_url=base_url, api_key=api_key)
    show_invited(client, client.call("POST", "/organization/users/{}/reset_password", user_id), as_json=as_json)


@people.command("withdraw")
def withdraw_invitation(user_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Take an invitation back, of somebody who has not come."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", "/organization/users/{}", user_id)
    show(done, as_json=as_json, columns=("id", "deleted"))


@people.command("change")
def change_person(
    user_id: str,
    role: Annotated[str | None, typer.Option(help=ROLES)] = None,
    disabled: Annotated[bool | None, typer.Option("--shut-out/--let-in", help="Whether they may come in.")] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Give somebody another role, shut them out, or let them in again."""
    change = given(role=role, disabled=disabled)
    if not change:
        raise CommandFailed("say what changes: --role, --shut-out or --let-in")
    changed = Client(base_url=base_url, api_key=api_key).call("PATCH", "/organization/users/{}", user_id, json=change)
    show(changed, as_json=as_json, columns=PERSON)


@policy.command("show")
def show_policy(api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Show the policy."""
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/organization")
    shown = found if as_json else found | found["policy"]
    show(shown, as_json=as_json, columns=("id", "name", "slug", "tune_on_upload", "gate", "base_model"))


@policy.command("set")
def set_policy(
    tune_on_upload: Annotated[bool | None, typer.Option(help="Fine-tune by itself when data is uploaded.")] = None,
    gate: Annotated[str | None, typer.Option(help="auto, approval or advisory.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Base model; '' for the installation's usual one.")] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Change parts of the policy."""
    change = given(tune_on_upload=tune_on_upload, gate=gate, base_model=base_model)
    if not change:
        raise CommandFailed("say what changes: --tune-on-upload, --gate or --base-model")
    changed = Client(base_url=base_url, api_key=api_key).call("PATCH", "/organization", json=change)
    shown = changed if as_json else changed | changed["policy"]
    show(shown, as_json=as_json, columns=("id", "name", "slug", "tune_on_upload", "gate", "base_model"))


@audit.command("list")
def list_lines(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List who did what, newest first."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/organization/audit_logs", params=wanted)
    show(found, as_json=as_json, columns=("at", "actor", "action", "target", "details", "id"))
    if not found["intact"]:
        raise CommandFailed("a line of the audit trail was changed, removed or put in; tell the operator")


@audit.command("verify")
def verify_trail(api_key: ApiKey = None, base_url: BaseUrl = None) -> None:
    """Read the whole trail, and say whether a line was changed, removed or put in."""
    params = {"limit": 1, "verify": True}
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/organization/audit_logs", params=params)
    if not found["intact"]:
        raise CommandFailed("a line of the audit trail was changed, removed or put in; tell the operator")
    typer.echo("The whole trail was read: no line was changed, removed or put in.")
