"""Pages of what a query matches: in one order, each behind the last document of the page before."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.errors import NotFound
from stores.mongo import Collection, Document, Query

NEWEST_FIRST = (("created_at", -1), ("_id", -1))
OLDEST_FIRST = (("created_at", 1), ("_id", 1))


async def page(
    collection: Collection,
    query: Query,
    order: Sequence[tuple[str, int]],
    *,
    limit: int,
    after: Query | None = None,
    missing: str = "",
) -> list[Document]:
    """The documents that match, in order.

    Args:
        collection: where they lie.
        query: which they are.
        order: fields and directions that tell any two of them apart.
        limit: at most so many; 0 for all.
        after: the last one of the page before.
        missing: what to say where there is none such.

    Raises:
        NotFound: there is no such last one.
    """
    if after is not None:
        last = await collection.find_one(after)
        if last is None:
            raise NotFound(missing, param="after")
        query = {"$and": [query, following(order, last)]}
    return [document async for document in collection.find(query).sort(list(order)).limit(limit)]


def following(order: Sequence[tuple[str, int]], last: Document) -> Query:
    """Matches what follows a document: it is further in a field, and the same in those before."""
    ways: list[Query] = []
    for place, (field, direction) in enumerate(order):
        same = {name: last[name] for name, _ in order[:place]}
        ways.append({**same, field: {"$gt" if direction > 0 else "$lt": last[field]}})
    return ways[0] if len(ways) == 1 else {"$or": ways}
