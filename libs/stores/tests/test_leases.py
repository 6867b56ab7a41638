"""A document has one holder at a time, by the database's clock."""

from __future__ import annotations

import asyncio

import pytest

from chassis.settings import ServiceSettings
from stores.leases import Holds, keep_renewed
from stores.mongo import Collection, PyMongoError, connect
from testkit import Space, eventually


@pytest.fixture
def documents(space: Space) -> Collection:
    return connect(space.settings(ServiceSettings, "registry"), "registry")["things"]


async def test_who_holds_a_document_keeps_it_until_it_is_given_back_or_over(documents: Collection) -> None:
    holds = Holds(documents)
    assert await holds.take({"_id": "one"}, "a", 60) is None
    made = await holds.take({"_id": "one"}, "a", 60, upsert=True)
    assert made is not None
    assert made["owner"] == "a"
    assert await holds.take({"_id": "one"}, "b", 60, upsert=True) is None
    assert await holds.take({"_id": "one"}, "a", 60) is not None
    assert not await holds.renew("one", "b", 60)
    await holds.give_back("one", "b")
    assert await holds.take({"_id": "one"}, "b", 60) is None
    await holds.give_back("one", "a")
    assert await holds.take({"_id": "one"}, "b", 0.05) is not None

    async def over() -> bool:
        return await holds.take({"_id": "one"}, "c", 60) is not None

    await eventually(over)
    assert not await holds.renew("one", "b", 60)
    assert await holds.renew("one", "c", 60)


async def test_the_first_that_nobody_else_holds_is_taken(documents: Collection) -> None:
    holds = Holds(documents, holder="person", until_ms="kept_until_ms")
    await documents.insert_many([{"_id": f"t{n}", "position": n, **holds.given_back} for n in (2, 0, 1)])
    order = [("position", 1)]
    taken = [await holds.take({}, person, 60, sort=order) for person in ("a", "b", "a")]
    assert [one and one["_id"] for one in taken] == ["t0", "t1", "t0"]
    free = {one["_id"] async for one in documents.find(holds.free_for("b"))}
    assert free == {"t1", "t2"}


async def test_a_lease_is_renewed_until_it_is_lost_or_cannot_be_renewed_in_time() -> None:
    answers: list[bool | PyMongoError] = [True, PyMongoError("away"), True, False]
    told: list[PyMongoError] = []

    async def renew() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, PyMongoError):
            raise answer
        return answer

    await asyncio.wait_for(keep_renewed(renew, 0.2, told.append), 10)
    assert (answers, len(told)) == ([], 1)

    async def away() -> bool:
        raise PyMongoError("away")

    await asyncio.wait_for(keep_renewed(away, 0.2, told.append), 10)
    assert len(told) > 2
