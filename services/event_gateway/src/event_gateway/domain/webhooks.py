"""Webhook endpoints of a tenant, and what is sent to them, how often, and until when."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from chassis.errors import Conflict
from chassis.ids import derived_id, new_id
from event_gateway.domain.visible import VISIBLE, CloudEvent
from eventbus import Aggregate
from schemas import OPENAI_NAMES
from schemas.webhooks import SECRET_PREFIX

BY_NAME = {name: event_type for event_type, name in OPENAI_NAMES.items()}

KEPT_SECONDS = 86_400
"""For which a secret that was replaced still signs, where that is asked for: as OpenAI's API does."""

SAMPLE_ID = "sample"


def new_secret() -> str:
    """A secret to sign with."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def known_types(names: Iterable[str]) -> list[str]:
    """The types that names of webhooks stand for: our own, or OpenAI's."""
    return sorted({BY_NAME.get(name, name) for name in names})


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a delivery ended.

    Attributes:
        status: of HTTP; None where nobody answered.
        problem: what went wrong, in a few words; empty where it was taken.
        over: whether no later attempt can end otherwise.
        gone: whether the endpoint says that it wants no more.
    """

    status: int | None = None
    problem: str = ""
    over: bool = False
    gone: bool = False


class Endpoint(Aggregate):
    """An address to which chosen events of a tenant are sent.

    `event_types` are names as they were given. `off` says why nothing is sent any more. `skipped` counts the events for
    which too many waited before them.
    """

    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    secret: str
    former_secret: str = ""
    former_until: int = 0
    off: str = ""
    skipped: int = 0

    @property
    def types(self) -> list[str]:
        """The types of event that are sent."""
        return known_types(self.event_types)

    @property
    def hint(self) -> str:
        """The secret's end, to be told from others."""
        return f"{SECRET_PREFIX}…{self.secret[-4:]}"

    def signing(self, at: int) -> tuple[str, ...]:
        """The secrets that sign now, the present one first."""
        return (self.secret, self.former_secret) if self.former_secret and at < self.former_until else (self.secret,)

    def change(self, at: int, **changes: Any) -> None:
        """Take another name, address or choice of types; an endpoint that was off is tried again."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.updated_at, self.off = at, ""

    def rotate(self, secret: str, at: int, *, keep: bool) -> None:
        """Sign by another secret; by the one before as well for a day, if it is kept."""
        self.former_secret, self.former_until = (self.secret, at + KEPT_SECONDS) if keep else ("", 0)
        self.secret, self.updated_at = secret, at

    def turn_off(self, why: str) -> None:
        """Send nothing any more until it is changed."""
        self.off = why


class Delivery(Aggregate):
    """One event on its way to one endpoint."""

    created_at: int
    endpoint_id: str
    event_id: str
    event_type: str
    body: str
    state: Literal["waiting", "delivered", "parked"] = "waiting"
    attempts: int = 0
    tried_at: int | None = None
    status: int | None = None
    problem: str = ""
    replays: int = Field(0, ge=0)

    @classmethod
    def of(cls, endpoint: Endpoint, shown: CloudEvent, created_at: int, at: int) -> Delivery:
        """The delivery of an event, once however often it is made."""
        return cls(
            id=derived_id("whd_", endpoint.id, str(shown["id"])),
            tenant_id=endpoint.tenant_id,
            created_at=at,
            endpoint_id=endpoint.id,
            event_id=str(shown["id"]),
            event_type=str(shown["type"]),
            body=webhook_body(shown, created_at),
        )

    def ended(self, outcome: Outcome, at: int, most: int) -> None:
        """Note an attempt: it was taken, is tried again, or is parked after `most` of them."""
        self.attempts += 1
        self.tried_at, self.status, self.problem = at, outcome.status, outcome.problem
        if not outcome.problem:
            self.state = "delivered"
        elif outcome.over or outcome.gone or self.attempts >= most:
            self.state = "parked"

    def replay(self) -> None:
        """Begin anew.

        Raises:
            Conflict: it is under way.
        """
        if self.state == "waiting":
            raise Conflict("This delivery is under way; wait for its next attempt.", code="delivery_waiting")
        self.state, self.attempts, self.problem = "waiting", 0, ""
        self.replays += 1
        self.begin_anew()


def webhook_body(shown: CloudEvent, created_at: int) -> str:
    """What is sent of an event: in the form of OpenAI's webhooks, under its name where OpenAI's API has one.

    Args:
        shown: the event as it may be read.
        created_at: unix seconds.
    """
    event = {
        "object": "event",
        "id": shown["id"],
        "created_at": created_at,
        "type": OPENAI_NAMES.get(shown["type"], shown["type"]),
        "data": {"id": shown["subject"], **shown["data"]},
    }
    return json.dumps(event, ensure_ascii=False)


def sample_event(event_type: str) -> CloudEvent:
    """An event that never was, to try an endpoint with."""
    data = {name: SAMPLE_ID for name in VISIBLE[event_type].fields if name.endswith("_id")}
    return {"id": new_id("evt_sample_"), "type": event_type, "subject": SAMPLE_ID, "data": data}
