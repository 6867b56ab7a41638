"""Watches that the events of each stream arrive without a gap; a watchdog, which decides nothing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import structlog
from prometheus_client import Counter

from eventbus.messages.message import Message
from schemas import Envelope

log = structlog.get_logger()

OUT_OF_SEQUENCE = Counter(
    "events_out_of_sequence_total", "Events before which one of their stream is missing, or that came again.", ["kind"]
)

MOST_STREAMS = 10_000


class SequenceGaps:
    """The last number seen in each stream, of the newest `MOST_STREAMS` streams.

    It starts empty, so the first event of a stream is never a gap.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()

    def watch(self, message: Message, envelope: Envelope) -> None:
        """Take note of a message, and tell where it is not the next of its stream; one that nobody counts has none."""
        if not envelope.origin:
            return
        stream = f"{message.topic}/{envelope.subject}/{envelope.origin}"
        kind = self.see(stream, envelope.seq)
        if kind != "next":
            OUT_OF_SEQUENCE.labels(kind).inc()
            log.warning("event_out_of_sequence", kind=kind, stream=stream, seq=envelope.seq)

    def see(self, stream: str, seq: int) -> Literal["next", "gap", "repeated"]:
        """Take note of an event.

        Args:
            stream: its name.
            seq: the event's number in it, from 1.

        Returns:
            `gap` when a number was left out, `repeated` when this one or a later one was seen before.
        """
        last = self._last.pop(stream, None)
        self._last[stream] = max(seq, last or 0)
        if len(self._last) > MOST_STREAMS:
            self._last.popitem(last=False)
        if last is None or seq == last + 1:
            return "next"
        return "gap" if seq > last else "repeated"

    def clear(self) -> None:
        """Forget all streams."""
        self._last.clear()
