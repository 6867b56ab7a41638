"""Which pages there are, where they stand in the navigation, and who finds which of them."""

from __future__ import annotations

from dataclasses import dataclass

from chassis.auth import Principal


@dataclass(frozen=True)
class Link:
    """A page that the navigation leads to.

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


GROUPS: tuple[tuple[str, tuple[Link, ...]], ...] = (
    ("", (Link("/", "Home", "models:read", "h", ("home/home", "home/progress")),)),
    ("Data", (Link("/labeling", "Labeling", "labeling:annotate", "l", ("labeling/projects", "labeling/task")),)),
    (
        "Models",
        (
            Link("/models", "Models", "models:read", "m", ("models/models", "models/model")),
            Link("/chat", "Chat", "chat:write", "c", ("play/chat",)),
        ),
    ),
    (
        "Operate",
        (
            Link("/people", "People", "organization:read", "p", ("operate/people",)),
            Link("/keys", "API keys", "organization:read", "k", ("operate/keys",)),
            Link("/policy", "Policy", "organization:read", "o", ("operate/policy",)),
            Link("/events", "Events and webhooks", "events:read", "e", ("operate/events", "operate/webhook")),
            Link("/audit", "Audit", "audit:read", "a", ("operate/audit",)),
        ),
    ),
)

ACCOUNT = Link("/account", "Account", "", "u", ("operate/account",))
"""Of every person."""

OPERATOR: tuple[tuple[str, tuple[Link, ...]], ...] = (
    (
        "Operator",
        (
            Link("/operator", "Services", "", "s", ("operator/services",)),
            Link("/operator/tenants", "Tenants", "", "t", ("operator/tenants",)),
            Link("/operator/dead-letters", "Dead letters", "", "d", ("operator/dead_letters",)),
        ),
    ),
)


def navigation_of(principal: Principal) -> list[tuple[str, list[Link]]]:
    """The groups of pages that somebody finds; an operator sees no tenant's, and is nobody with an account."""
    if principal.role == "operator":
        return [(title, list(links)) for title, links in OPERATOR]
    found = [(title, [link for link in links if principal.may(link.scope)]) for title, links in GROUPS]
    return [(title, links) for title, links in [*found, ("You", [ACCOUNT])] if links]


def home_of(principal: Principal) -> str:
    """Where somebody's work begins."""
    if principal.role == "auditor":
        return "/audit"
    return next(link.place for _, links in navigation_of(principal) for link in links)
