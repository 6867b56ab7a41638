"""Drops what is older than it is kept."""

from __future__ import annotations

import asyncio

from chassis.ids import now
from event_gateway.store import Inbox, Webhooks

SWEEP_SECONDS = 60.0


class DropOld:
    """Drops what was sent, and deliveries, that nobody asks about any more.

    Args:
        inbox: what was sent.
        webhooks: deliveries.
        kept_seconds: how long both are known.
    """

    def __init__(self, inbox: Inbox, webhooks: Webhooks, *, kept_seconds: int) -> None:
        self._inbox = inbox
        self._webhooks = webhooks
        self._kept_seconds = kept_seconds

    async def run(self) -> None:
        """Drop what is old, until cancelled."""
        while True:
            await self.drop_before(now() - self._kept_seconds)
            await asyncio.sleep(SWEEP_SECONDS)

    async def drop_before(self, moment: int) -> None:
        """Drop what came and was delivered before a moment, and keep what waits to be published."""
        await self._inbox.drop_before(moment)
        await self._webhooks.drop_before(moment)
