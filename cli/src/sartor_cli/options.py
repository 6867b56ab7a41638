"""Options that many commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="API key; else SARTOR_API_KEY.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Address of the API, ending in /v1.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100, help="Most rows to show.")]
After = Annotated[str | None, typer.Option("--after", help="Id of the last row shown before; goes on behind it.")]


def given(**fields: Any) -> dict[str, Any]:
    """Those fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
