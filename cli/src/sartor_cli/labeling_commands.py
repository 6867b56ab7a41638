"""Commands for labeling projects, and for ratings of answers."""

from __future__ import annotations

import typer

from sartor_cli.client import Client
from sartor_cli.options import After, ApiKey, BaseUrl, Json, Limit, given
from sartor_cli.tables import show, show_deleted

labeling = typer.Typer(help="Projects in which people answer rows.", no_args_is_help=True)
feedback = typer.Typer(help="Ratings of answers.", no_args_is_help=True)


@labeling.command("list")
def list_projects(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List projects, newest first."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/labeling/projects", params=wanted)
    show(found, as_json=as_json, columns=("id", "name", "kind", "answered", "total", "file_id", "created_at"))


@labeling.command("delete")
def delete_project(project_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Delete a project with its tasks and answers, and the files that were published of them."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", "/labeling/projects/{}", project_id)
    show_deleted(done, as_json=as_json)


@feedback.command("list")
def list_ratings(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List ratings, newest first."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/labeling/feedback", params=wanted)
    show(found, as_json=as_json, columns=("id", "rating", "has_correction", "model", "chat_id", "created_at"))


@feedback.command("delete")
def delete_rating(feedback_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Take a rating back, with what was written beside it: your own, or anybody's if you manage the organization."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", "/feedback/{}", feedback_id)
    show_deleted(done, as_json=as_json)
