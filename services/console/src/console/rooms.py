"""Which pages there are, where they stand in the navigation, and who finds which of them."""

from __future__ import annotations

from dataclasses import dataclass

from chassis.auth import Principal


@dataclass(frozen=True)
class Room:
    """A page one goes to from anywhere.

    Attributes:
        place: its address.
        title: its name in the navigation.
        scope: what one must be allowed to do to find it; empty where everybody does.
        key: the letter that leads there after `g`.
        pages: the templates that belong to it.
    """

    place: str
    title: str
    scope: str
    key: str
    pages: tuple[str, ...]


GROUPS: tuple[tuple[str, tuple[Room, ...]], ...] = (
    ("", (Room("/", "Home", "models:read", "h", ("home/home", "home/progress")),)),
    ("Data", (Room("/labeling", "Labeling", "labeling:annotate", "l", ("labeling/projects", "labeling/task")),)),
    (
        "Models",
        (
            Room("/models", "Models", "models:read", "m", ("models/models", "models/model")),
            Room("/chat", "Chat", "chat:write", "c", ("play/chat",)),
        ),
    ),
    (
        "Operate",
        (
            Room("/people", "People", "organization:read", "p", ("operate/people",)),
            Room("/keys", "API keys", "organization:read", "k", ("operate/keys",)),
            Room("/policy", "Policy", "organization:read", "o", ("operate/policy",)),
            Room("/events", "Events and webhooks", "events:read", "e", ("operate/events", "operate/webhook")),
            Room("/audit", "Audit", "audit:read", "a", ("operate/audit",)),
        ),
    ),
)

ACCOUNT = Room("/account", "Account", "", "u", ("operate/account",))
"""Of every person."""

OPERATOR: tuple[tuple[str, tuple[Room, ...]], ...] = (
    (
        "Operator",
        (
            Room("/operator", "Services", "", "s", ("operator/services",)),
            Room("/operator/tenants", "Tenants", "", "t", ("operator/tenants",)),
            Room("/operator/dead-letters", "Dead letters", "", "d", ("operator/dead_letters",)),
        ),
    ),
)


def rooms_of(principal: Principal) -> list[tuple[str, list[Room]]]:
    """The groups of pages that somebody finds; an operator sees no tenant's, and is nobody with an account."""
    if principal.role == "operator":
        return [(title, list(rooms)) for title, rooms in OPERATOR]
    found = [(title, [room for room in rooms if principal.may(room.scope)]) for title, rooms in GROUPS]
    return [(title, rooms) for title, rooms in [*found, ("You", [ACCOUNT])] if rooms]


def home_of(principal: Principal) -> str:
    """Where somebody's work begins."""
    if principal.role == "auditor":
        return "/audit"
    return next(room.place for _, rooms in rooms_of(principal) for room in rooms)
