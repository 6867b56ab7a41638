"""Which role may use which public route, read from the routes as each service is built with them.

`python -m tests.contract.permissions` writes `docs/permissions.md`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from chassis.auth import Requires
from chassis.roles import ROLES
from schemas.services import PUBLIC

DOCUMENT = Path(__file__).parents[2] / "docs/permissions.md"

CONVERTER = re.compile(r":\w+\}")

HEADER = """# Who may do what

Read from the routes by `make permissions`; do not edit. A key of the role named above a column may call a route that
has a dot there, unless the key was narrowed to fewer scopes. An end user sees own things only; a labeler sees of a
project what its tasks need; nobody sees another tenant's things, whose ids answer 404. `tests/e2e/test_owners.py` tries
every route with a key of each role, of the tenant and of another one.
"""


@dataclass(frozen=True)
class Permission:
    """A public route and what it asks of its caller."""

    method: str
    path: str
    requires: Requires


def permissions(built: Callable[[str], FastAPI]) -> list[Permission]:
    """Every public route of every service that the ingress leads to, in the order of their addresses.

    Raises:
        LookupError: a route asks nothing of its caller.
    """
    found = []
    for service in PUBLIC:
        for route in routes_of(built(service)):
            if route.path.startswith("/v1/") and route.include_in_schema:
                asked = next(_asked(route.dependant), None)
                if asked is None:
                    raise LookupError(f"{route.path} of {service} asks nothing of its caller")
                path = CONVERTER.sub("}", route.path)
                found += [Permission(method, path, asked) for method in sorted(route.methods)]
    if not found:
        raise LookupError("no route was found: FastAPI keeps them elsewhere now")
    return sorted(found, key=lambda it: (it.path, it.method))


def routes_of(app: FastAPI) -> list[APIRoute]:
    """The routes of a service.

    Raises:
        LookupError: there are others, where these would not be looked for.
    """
    if any(hasattr(route, "original_router") for route in app.routes):
        raise LookupError(f"{app.title} includes a router: what that holds would be overlooked")
    return [route for route in app.routes if isinstance(route, APIRoute)]


def _asked(dependant: Dependant) -> Iterator[Requires]:
    if isinstance(dependant.call, Requires):
        yield dependant.call
    for needed in dependant.dependencies:
        yield from _asked(needed)


def document(found: list[Permission]) -> str:
    """The table for people."""
    roles = [role for role in ROLES if role != "operator"] + ["operator"]
    lines = [HEADER, f"| route | needs | {' | '.join(role.replace('_', ' ') for role in roles)} |"]
    lines.append("|" + "---|" * (len(roles) + 2))
    for one in found:
        needs = " or ".join(f"`{scope}`" for scope in one.requires.scopes) or "operator"
        dots = " | ".join("●" if one.requires.allows(role) else "" for role in roles)
        lines.append(f"| {one.method} `{one.path}` | {needs} | {dots} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from tests.conftest import builder

    with tempfile.TemporaryDirectory() as folder:
        DOCUMENT.write_text(document(permissions(builder(Path(folder), Path(folder)))))
    sys.stdout.write(f"{DOCUMENT}\n")
