"""The event base class and its CloudEvents 1.0 envelope, in Kafka binary mode."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.refs import Id

CONTENT_TYPE = "application/json"


class Event(BaseModel):
    """A past-tense fact about one aggregate. Subclasses set `type`, `topic` and the field that names the aggregate.

    Unknown fields are ignored when parsing, so an older consumer reads a newer producer.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    type: ClassVar[str]
    topic: ClassVar[str]
    key: ClassVar[str]

    tenant_id: Id = Field(description="The tenant this happened to; empty for the installation itself.")

    @property
    def aggregate_id(self) -> str:
        """The value of the field named by `key`: the Kafka key, so one aggregate's events stay in order."""
        return str(getattr(self, self.key))


class Envelope(BaseModel):
    """The CloudEvents attributes of one event, with our extensions from `seq` on."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Unique per event; a re-publish keeps it.")
    source: str = Field(description="The producing service, `/sartor/<service>`.")
    type: str = Field(description="Event type, for example `model.promoted.v1`.")
    time: datetime = Field(description="When the state changed (UTC).")
    subject: str = Field(description="The aggregate's id.")
    seq: int = Field(ge=1, description="Number of this event in its stream: origin, topic and subject; no gaps.")
    tenantid: str = Field("", description="The tenant; empty for the installation itself.")
    correlationid: str = Field("", description="The request this follows from.")
    causationid: str = Field("", description="The event this follows from.")
    origin: str = Field("", description="The aggregate that counts `seq`; empty for facts that nobody stores.")
    specversion: str = Field("1.0", description="CloudEvents version.")


class MalformedEvent(ValueError):
    """A message that is not an event of ours: missing attributes, or a payload its schema refuses."""


def to_message(envelope: Envelope, data: Mapping[str, JsonValue]) -> tuple[bytes, bytes, dict[str, str]]:
    """Encode for Kafka: (key, value, headers) in CloudEvents binary mode."""
    headers = {f"ce_{name}": str(value) for name, value in envelope.model_dump(mode="json").items() if value != ""}
    headers["ce_partitionkey"] = envelope.subject
    headers["content-type"] = CONTENT_TYPE
    return envelope.subject.encode(), json.dumps(data, ensure_ascii=False).encode(), headers


def read_envelope(headers: Mapping[str, str] | Iterable[tuple[str, bytes]]) -> Envelope:
    """The envelope in a message's headers.

    Raises:
        MalformedEvent: a required attribute is missing or wrong.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    text = {name: value.decode() if isinstance(value, bytes) else value for name, value in pairs}
    attributes = {name[3:]: value for name, value in text.items() if name.startswith("ce_")}
    try:
        return Envelope.model_validate(attributes)
    except ValueError as error:
        raise MalformedEvent(f"CloudEvents headers: {error}") from error


def parse(event_type: type[Event], value: bytes) -> Event:
    """Parse a payload as `event_type`.

    Raises:
        MalformedEvent: not JSON, or refused by the schema.
    """
    try:
        return event_type.model_validate_json(value)
    except ValueError as error:
        raise MalformedEvent(f"{event_type.type}: {error}") from error
