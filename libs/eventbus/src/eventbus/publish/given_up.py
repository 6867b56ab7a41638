"""Events that no broker takes: out of their outbox, so that the rest flows, and kept for the operator."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import Counter, Gauge

from chassis.errors import SartorError
from chassis.ids import now
from stores.mongo import Collection, Document, DuplicateKeyError

log = structlog.get_logger()

GIVEN_UP = Counter("outbox_given_up_total", "Events given up because they cannot be published.", ["topic", "code"])
KEPT = Gauge("outbox_given_up_kept", "Events given up that the operator has not looked at and removed.")

MEASURE_SECONDS = 15.0


class GivenUp:
    """The collection of a service's events that could not be published, with the reason.

    Args:
        collection: where they lie until an operator removes them.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def keep(self, outbox: str, aggregate_id: str, record: Document, error: Exception) -> None:
        """Keep one event; twice the same is once.

        Args:
            outbox: name of the collection in whose outbox it lay.
            aggregate_id: the document there.
            record: as it lay in the outbox.
            error: why it cannot be published.
        """
        code = (error.code if isinstance(error, SartorError) else None) or "invalid"
        reason = f"{type(error).__name__}: {error}"[:2000]
        identity = {"event_id": record["id"], "topic": record["topic"], "aggregate_id": aggregate_id}
        why = {"code": code, "reason": reason, "given_up_at": now()}
        document = {"_id": record["id"], "outbox": outbox, "aggregate_id": aggregate_id, **record, **why}
        try:
            await self._collection.insert_one(document)
        except DuplicateKeyError:
            pass  # a crash between this and its removal from the outbox
        GIVEN_UP.labels(record["topic"], code).inc()
        tenant_id = record["envelope"].get("tenantid", "")
        log.error("event_given_up", type=record["envelope"].get("type"), tenant_id=tenant_id, **identity, **why)
        KEPT.inc()

    async def watch(self) -> None:
        """Keep the gauge current, until cancelled."""
        while True:
            KEPT.set(await self._collection.estimated_document_count())
            await asyncio.sleep(MEASURE_SECONDS)
