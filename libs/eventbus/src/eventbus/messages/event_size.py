"""How large an event may be: it holds ids and references, and quotes a little."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from chassis.errors import Invalid, TooLarge
from chassis.text import shown
from schemas import Envelope, to_message

MOST_EVENT_BYTES = 80 * 1024
"""Of an event's payload: it holds ids and references, and quotes a little. A broker takes 1 MiB."""


def check_size(envelope: Envelope, data: Mapping[str, JsonValue]) -> None:
    """Refuse an event that is too large, where it is made.

    Raises:
        TooLarge: its payload is over `MOST_EVENT_BYTES`.
        Invalid: it cannot be written as JSON.
    """
    try:
        _, value, _ = to_message(envelope, data)
    except ValueError as error:
        raise Invalid(f"{envelope.type} of {shown(envelope.subject)} cannot be written: {error}.") from error
    if len(value) > MOST_EVENT_BYTES:
        largest = max(data, key=lambda name: len(str(data[name])))
        raise TooLarge(
            f"{envelope.type} of {shown(envelope.subject)} has {len(value)} bytes; an event has at most "
            f"{MOST_EVENT_BYTES}. Shorten its field '{largest}'.",
            code="event_too_large",
        )
