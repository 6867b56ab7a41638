"""What a service does with events, which of that a message is for, and the event that is being handled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

from eventbus.messages.message import Message
from eventbus.messages.outcome import CONSUMED
from schemas import EVENTS, Envelope, Event, parse, read_envelope

Handler = Callable[[Any], Awaitable[None]]
Handlers = Mapping[type[Event], Handler]

_current: ContextVar[Envelope] = ContextVar("envelope")


def topics_of(handlers: Handlers, prefix: str) -> list[str]:
    """The topics in which the events of some handlers lie.

    Args:
        handlers: by the event they are for.
        prefix: of the installation's topics.
    """
    return sorted({f"{prefix}{event.topic}" for event in handlers})


def event_of(message: Message, handlers: Handlers) -> tuple[Event | None, Envelope | None]:
    """The event that a message says, if there is a handler for it, and its envelope.

    Raises:
        MalformedEvent: it is none.
    """
    event_type = EVENTS.get(message.headers.get("ce_type", ""))
    envelope = read_envelope(message.headers)
    if event_type is None:
        CONSUMED.labels("unknown", "skipped").inc()
    if event_type is None or event_type not in handlers:
        return None, envelope
    return parse(event_type, message.value), envelope


def envelope_handled() -> Envelope:
    """The envelope of the event that the calling handler was given.

    Raises:
        LookupError: no event is being handled.
    """
    return _current.get()


@contextmanager
def handling(envelope: Envelope) -> Iterator[None]:
    """Bind whose event is handled within to the log, and its envelope for whoever keeps more than the payload."""
    identity = {"event_id": envelope.id, "correlation_id": envelope.correlationid, "tenant_id": envelope.tenantid}
    token = _current.set(envelope)
    try:
        with structlog.contextvars.bound_contextvars(**identity):
            yield
    finally:
        _current.reset(token)
