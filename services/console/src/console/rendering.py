"""Renders the pages; everything is escaped, nothing is loaded from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",  # with no-referrer, browsers hide from us that a form is our own
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}

_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def moment(at: int) -> str:
    """A time (unix seconds) in words."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """A short time in the unit that people would use."""
    return f"{1000 * seconds:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


_environment.filters["moment"] = moment
_environment.filters["duration"] = duration


def render(name: str, **values: Any) -> str:
    """The page `name` as HTML."""
    return _environment.get_template(f"{name}.html").render(page=name, **values)
