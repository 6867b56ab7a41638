"""The age of the oldest document in each waiting state: a wait that nobody ends is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prometheus_client import Gauge

from chassis.ids import now
from stores.mongo import ASCENDING, Collection, Query

OLDEST = Gauge(
    "waiting_oldest_seconds", "How long the one that waits longest has been in its state.", ["collection", "state"]
)

MEASURE_SECONDS = 15.0


async def measure_waiting(collection: Collection, states: Mapping[str, Query], since: str) -> None:
    """Set the gauge of each state once.

    Args:
        collection: where the documents lie.
        states: name -> query of the documents in that state; should use an index that ends in `since`.
        since: the field with the Unix second in which a document entered its state.
    """
    for state, query in states.items():
        oldest = collection.find({**query, since: {"$gt": 0}}, {since: 1}).sort([(since, ASCENDING)]).limit(1)
        found = [document[since] async for document in oldest]
        OLDEST.labels(collection.name, state).set(max(0, now() - found[0]) if found else 0)


async def watch_waiting(collection: Collection, states: Mapping[str, Query], since: str) -> None:
    """Keep the gauges current, until cancelled."""
    while True:
        await measure_waiting(collection, states, since)
        await asyncio.sleep(MEASURE_SECONDS)
