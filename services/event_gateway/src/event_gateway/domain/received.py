"""Events that services outside send: what they must be, and what is published of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, JsonValue, ValidationError

from chassis.auth import Principal
from chassis.bodies import AnyJson, Body
from chassis.errors import Conflict, Forbidden, Invalid, TooLarge
from chassis.ids import derived_id
from chassis.text import quoted, shown
from eventbus import Aggregate
from schemas import EVENTS, PUBLISHABLE, Event

Attribute = Annotated[str, Field(min_length=1, max_length=256)]

MOST_FIELDS = 64
MOST_BYTES = 16 * 1024
"""Of one event: it holds ids and numbers."""

ID_PREFIXES = {"feedback.recorded.v1": "fb_", "drift.detected.v1": "drift_"}
"""How ids of what services outside tell of begin."""


class Sent(Body):
    """An event as a service outside sends it: CloudEvents 1.0, JSON format.

    `traceparent` and `tracestate` are added by whatever the request came through, and mean nothing here.
    """

    ADVICE = frozenset({"traceparent", "tracestate"})

    specversion: Literal["1.0"]
    id: Attribute
    source: Attribute
    type: Attribute
    time: AwareDatetime | None = None
    subject: Attribute | None = None
    datacontenttype: Annotated[str, Field(max_length=256, pattern=r"^application/json(;.*)?$")] = "application/json"
    dataschema: Attribute | None = None
    tenantid: Attribute | None = None
    data: dict[Annotated[str, Field(max_length=64)], AnyJson] = Field(max_length=MOST_FIELDS)


@dataclass(frozen=True)
class Refused:
    """Why an event was not published, for the engineers of its tenant.

    Attributes:
        id, source, type: as the event says; empty where it cannot be read.
        key_id: whose key sent it.
        code: stable slug of the reason.
        reason: in a sentence.
        param: the attribute or field at fault, if one is.
    """

    id: str
    source: str
    type: str
    key_id: str
    code: str
    reason: str
    param: str | None


class Received(Aggregate):
    """An event that a service outside sent, by its tenant, source and id: the same again is published once."""

    created_at: int
    key_id: str
    event_id: str
    source: str
    type: str
    subject: str
    time: str | None = None
    digest: str

    @staticmethod
    def id_of(producer: Principal, sent: Sent) -> str:
        """Its id: the tenant's, the source's and the sender's own."""
        return derived_id("sent_", producer.tenant_id, sent.source, sent.id)

    @classmethod
    def of(cls, sent: Sent, event: Event, producer: Principal, at: int) -> Received:
        """What was sent, with the event to be published of it."""
        received = cls(
            id=cls.id_of(producer, sent),
            tenant_id=producer.tenant_id,
            created_at=at,
            key_id=producer.key_id,
            event_id=sent.id,
            source=sent.source,
            type=sent.type,
            subject=event.aggregate_id,
            time=sent.time.isoformat() if sent.time else None,
            digest=digest_of(sent),
        )
        received.record(event)
        return received

    def expect(self, sent: Sent) -> None:
        """It is the same event that is sent again.

        Raises:
            Conflict: another one has its source and id.
        """
        if self.digest != digest_of(sent):
            raise Conflict(
                f"id: {quoted(sent.id)} of {quoted(sent.source)} was sent before with another body. "
                "Give each event an id of its own.",
                code="event_id_reused",
                param="id",
            )


def digest_of(sent: Sent) -> str:
    """SHA-256 of what was sent, whatever the order of its fields and the way it came in."""
    said = sent.model_dump(mode="json", exclude_none=True, exclude={"datacontenttype"})
    canonical = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def checked_data(sent: Sent, producer: Principal) -> Event:
    """The event to be published: of the key's tenant, of a type that the key may publish, as its schema says.

    Its own id is made from the tenant's and the one given, so that no tenant can take a name of another's.

    Raises:
        Invalid: there is no such type, or the data is not as its schema says.
        Forbidden: the key may not publish this type, or the event names another tenant.
        TooLarge: it is over `MOST_BYTES`.
    """
    if sent.type not in EVENTS:
        raise Invalid(
            f"type: there is no event {quoted(sent.type)}; this key publishes {_listed(producer)}.",
            code="unknown_event_type",
            param="type",
        )
    if sent.type not in PUBLISHABLE or sent.type not in producer.event_types:
        raise Forbidden(
            f"type: this key publishes {_listed(producer)}; not {quoted(sent.type)}.",
            code="event_type_not_allowed",
            param="type",
        )
    for name, tenant in (("tenantid", sent.tenantid), ("data.tenant_id", sent.data.get("tenant_id"))):
        if tenant not in (None, producer.tenant_id):
            raise Forbidden(
                f"{name}: is not the tenant of this key. Leave it out: the key says whose event it is.",
                code="foreign_tenant",
                param=name,
            )
    kind = PUBLISHABLE[sent.type]
    _expect_fields(kind, sent)
    size = len(json.dumps(sent.data, ensure_ascii=False).encode())
    if size > MOST_BYTES:
        raise TooLarge(
            f"data: has {size} bytes; an event has at most {MOST_BYTES}.", code="event_too_large", param="data"
        )
    given = str(sent.data[kind.key])
    own = derived_id(ID_PREFIXES[kind.type], producer.tenant_id, given)
    return _validated(kind, {**sent.data, "tenant_id": producer.tenant_id, "producer": producer.key_id, kind.key: own})


def _expect_fields(kind: type[Event], sent: Sent) -> None:
    fields = set(kind.model_fields) - {"producer"}
    for name in sorted(set(sent.data) - fields):
        raise Invalid(
            f"data.{shown(name)}: {kind.type} has no such field to be given. Leave it out.",
            code="invalid_event_data",
            param="data",
        )
    given = sent.data.get(kind.key)
    if not isinstance(given, str) or not 0 < len(given) <= 256:
        raise Invalid(
            f"data.{kind.key}: 1 to 256 characters by which you know it.",
            code="invalid_event_data",
            param=f"data.{kind.key}",
        )
    if sent.subject not in (None, given):
        raise Invalid(
            f"subject: is the same as data.{kind.key}, or left out.", code="invalid_event_data", param="subject"
        )


def _validated(kind: type[Event], data: Mapping[str, JsonValue]) -> Event:
    try:
        return kind.model_validate(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(["data", *map(str, first["loc"])])[:200]
        raise Invalid(f"{where}: {first['msg']}.", code="invalid_event_data", param=where) from error


def _listed(producer: Principal) -> str:
    return ", ".join(producer.event_types) or "no events: make one that names its `event_types`"
