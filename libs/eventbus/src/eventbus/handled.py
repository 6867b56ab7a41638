"""The event that is being handled: bound to the log, and its envelope for whoever keeps more than the payload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

from schemas import Envelope

_current: ContextVar[Envelope] = ContextVar("envelope")


def envelope_handled() -> Envelope:
    """The envelope of the event that the calling handler was given.

    Raises:
        LookupError: no event is being handled.
    """
    return _current.get()


@contextmanager
def handling(envelope: Envelope) -> Iterator[None]:
    """Say whose event is handled within."""
    identity = {"event_id": envelope.id, "correlation_id": envelope.correlationid, "tenant_id": envelope.tenantid}
    token = _current.set(envelope)
    try:
        with structlog.contextvars.bound_contextvars(**identity):
            yield
    finally:
        _current.reset(token)
