"""Whether the local database keeps its pace, with retryable writes and without."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from testkit.space import Addresses

BEFORE, MEASURED, AT_ONCE = 10_000, 400, 8


async def rate(documents: Any, count: int) -> float:
    """Writes a second of `count` of them, eight at a time."""
    began = time.perf_counter()

    async def write() -> None:
        for _ in range(count // AT_ONCE):
            await documents.update_one({"_id": 1}, {"$inc": {"times": 1}}, upsert=True)

    await asyncio.gather(*(write() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - began)


@pytest.mark.timeout(300)
async def test_the_ten_thousandth_write_is_as_fast_as_the_first(addresses: Addresses) -> None:
    assert "retryWrites=false" in addresses.mongo_url
    kept = {}
    for retryable, url in ((False, addresses.mongo_url), (True, addresses.mongo_url.replace("=false", "=true"))):
        client = AsyncIOMotorClient[dict[str, Any]](url)
        documents = client["bench"][f"pace_{retryable}"]
        await documents.insert_one({"_id": 1})
        first = await rate(documents, MEASURED)
        await rate(documents, BEFORE)
        last = await rate(documents, MEASURED)
        client.close()
        kept[retryable] = last / first
        name = "retryable" if retryable else "plain"
        print(f"\n{name} writes: the first {first:.0f} /s, after {BEFORE} {last:.0f} /s, {last / first:.2f} of that")
    assert kept[False] > 0.5
