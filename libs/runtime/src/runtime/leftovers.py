"""What a service keeps of things that were deleted by a release that did not take everything along.

The operator looks first, and has it removed then, a slice at a time; doing either again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Generic, TypeVar

import structlog

from chassis.auth import Principal, internal
from chassis.bodies import Body
from chassis.routes import Router
from eventbus import Aggregate, AggregateStore
from stores.mongo import Query

log = structlog.get_logger()

MOST_COUNTED = 100_000
SLICE = 200

A = TypeVar("A", bound=Aggregate)


class Leftovers(Generic[A]):
    """One collection's.

    Args:
        store: where the things lie that were deleted.
        query: those of which something may be left.
        finish: deletes such a thing as it is done today; it does not match `query` afterwards.
    """

    def __init__(self, store: AggregateStore[A], query: Query, finish: Callable[[A], None]) -> None:
        self._store = store
        self._query = query
        self._finish = finish

    async def count(self) -> int:
        """How many there are, counted to `MOST_COUNTED`."""
        return int(await self._store.collection.count_documents(self._query, limit=MOST_COUNTED))

    async def purge(self) -> int:
        """Finish deleting at most `SLICE` of them; how many it were."""
        found = self._store.collection.find(self._query, {"tenant_id": 1}).limit(SLICE)
        things = [(one["tenant_id"], one["_id"]) async for one in found]
        for tenant_id, thing_id in things:
            await self._store.update(tenant_id, thing_id, self._finish)
            log.info("leftover_purged", tenant_id=tenant_id, thing=thing_id, kind=self._store.kind.__name__)
        return len(things)


class LeftoversAsked(Body):
    """Whether to remove, or only to look."""

    purge: bool = False


def leftover_routes(leftovers: Leftovers[A]) -> Router:
    """What accounts asks for the operator."""
    router = Router(prefix="/internal/leftovers")

    @router.post("")
    async def look(asked: LeftoversAsked, _: Annotated[Principal, internal()]) -> dict[str, int]:
        purged = await leftovers.purge() if asked.purge else 0
        return {"purged": purged, "found": await leftovers.count()}

    return router
