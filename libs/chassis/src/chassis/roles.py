"""What each role may do, in scopes."""

from __future__ import annotations

from collections.abc import Iterable

RESOURCES = ("files", "fine_tuning", "models", "chat", "retrieval", "labeling", "evals", "events", "organization")

SCOPES = frozenset(f"{resource}:{action}" for resource in RESOURCES for action in ("read", "write")) | {
    "models:approve",
    "models:download",
    "labeling:annotate",
    "events:publish",
    "audit:read",
    "organization:own",
    "own:delete",
    "own:rotate",
}
"""Every scope there is, spelt out.

`write` includes `read`, and `annotate`, which is to answer labeling tasks and to see nothing else of labeling.
`models:download` is to take a copy of an adapter out of the installation.
`events:publish` is to publish the types of event that a key names; `events:write` is to make and change webhooks.
`organization:own` is to make owners and to change them; `own:delete` is to take back what was made of one's own data;
`own:rotate` is a key's right to another secret for itself.
"""

ROLES: dict[str, frozenset[str]] = {
    "operator": frozenset({"*"}),
    "owner": frozenset({"*"}),
    "admin": SCOPES - {"organization:own"},
    "engineer": frozenset(
        {"files:write", "fine_tuning:write", "models:write", "chat:write", "retrieval:write", "labeling:write"}
        | {"evals:write", "events:write", "events:publish", "models:download", "own:rotate"}
    ),
    "approver": frozenset(
        {"models:read", "models:approve", "evals:read", "fine_tuning:read", "events:read", "own:rotate"}
    ),
    "labeler": frozenset({"labeling:annotate", "own:rotate"}),
    "viewer": frozenset(
        {"files:read", "fine_tuning:read", "models:read", "retrieval:read", "labeling:read", "evals:read"}
        | {"events:read", "own:rotate"}
    ),
    "auditor": frozenset(
        {"audit:read", "organization:read", "models:read", "evals:read", "fine_tuning:read", "events:read"}
        | {"own:rotate"}
    ),
    "end_user": frozenset(
        {"files:write", "fine_tuning:read", "models:read", "chat:write", "retrieval:read", "evals:read"}
        | {"models:download", "own:delete", "own:rotate"}
    ),
}
"""What each role may do, as `resource:action` scopes; `*` is everything of the tenant."""


def expand(granted: Iterable[str]) -> frozenset[str]:
    """The scopes of `SCOPES` that patterns such as `*`, `files:*` or `files:write` stand for."""
    patterns = frozenset(granted)
    return frozenset(scope for scope in SCOPES if covers(patterns, scope))


def covers(granted: frozenset[str], scope: str) -> bool:
    """Whether `scope` is among what was granted, by name or by a pattern such as `*`, `files:*` or `files:write`."""
    resource, _, action = scope.partition(":")
    return (
        "*" in granted
        or scope in granted
        or f"{resource}:*" in granted
        or (action in ("read", "annotate") and f"{resource}:write" in granted)
    )
