"""The events the gateway consumes: all that a tenant may read."""

from __future__ import annotations

from event_gateway.use_cases import ANNOUNCED, KeepEvent
from eventbus import Handlers
from schemas import Event


def subscriptions(keep: KeepEvent) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_event(event: Event) -> None:
        await keep.run(event)

    return dict.fromkeys(ANNOUNCED, on_event)
