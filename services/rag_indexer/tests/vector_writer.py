"""An indexer's writes, as a process of its own: `python vector_writer.py URL COLLECTION WHO BATCHES`."""

from __future__ import annotations

import asyncio
import sys

from chassis.errors import Transient
from rag_indexer.milvus import Vectors

DIMENSIONS = 32
IN_A_BATCH = 20


def vector(number: int) -> list[float]:
    """Told from all others by its direction."""
    return [1.0 + (number >> place & 1) for place in range(DIMENSIONS)]


def chunk(who: str, batch: int, place: int) -> str:
    """The id of a chunk."""
    return f"chunk-{who}-{batch}-{place}"


def kept(who: str, batches: int) -> set[str]:
    """What must be there at the end: of every batch the last fifth was taken out again."""
    return {chunk(who, batch, place) for batch in range(batches) for place in range(IN_A_BATCH * 4 // 5)}


async def main(url: str, collection: str, who: str, batches: int) -> None:
    """Write batch after batch, each followed by a removal."""
    vectors = Vectors(url, collection)
    while True:  # as the service does: another one may just be making the collection
        try:
            await vectors.prepare(DIMENSIONS)
            break
        except Transient:
            await asyncio.sleep(0.1)
    for batch in range(batches):
        ids = [chunk(who, batch, place) for place in range(IN_A_BATCH)]
        rows = {one: vector(batch * IN_A_BATCH + place) for place, one in enumerate(ids)}
        await vectors.upsert("tenant", "store", f"file-{who}", rows)
        await vectors.delete(ids[IN_A_BATCH * 4 // 5 :])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
