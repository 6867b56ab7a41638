"""The base of every aggregate: a document whose changes and events are saved together. No I/O here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from schemas import Event
from stores.leases import Lease
from stores.mongo import Document


class Aggregate(BaseModel):
    """A document that only its own methods change, and that records the events of those changes.

    Subclasses add fields and methods; a method changes fields and calls `record`. `AggregateStore.save` writes both
    in one document update.
    """

    model_config = ConfigDict(validate_assignment=True, extra="ignore")

    id: str
    tenant_id: str
    version: int = 0
    sent: dict[str, int] = Field(default_factory=dict)
    lease: Lease = Field(default_factory=Lease)

    _pending: list[Event] = PrivateAttr(default_factory=list)
    _begins_anew: bool = PrivateAttr(default=False)

    def record(self, event: Event) -> None:
        """Add an event to be saved with the change that caused it."""
        self._pending.append(event)

    def begin_anew(self) -> None:
        """Have its work begin from the start: what was counted against it is forgotten in the write that saves this."""
        self._begins_anew = True

    def take_begins_anew(self) -> bool:
        """Whether its work is to begin from the start, once."""
        begins, self._begins_anew = self._begins_anew, False
        return begins

    def count(self, event: Event) -> int:
        """The number of an event in its stream, from 1: those of this aggregate with the same topic and subject."""
        stream = f"{event.topic}/{event.aggregate_id}"
        self.sent = self.sent | {stream: self.sent.get(stream, 0) + 1}
        return self.sent[stream]

    def take_pending(self) -> list[Event]:
        """The recorded events, once."""
        pending, self._pending = self._pending, []
        return pending

    def to_document(self) -> Document:
        """The fields as stored, without those the store manages itself (`_id`, `version`, `lease`)."""
        return self.model_dump(mode="json", exclude={"id", "version", "lease"})
