"""Limits over several replicas, each with a limiter of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chassis.errors import RateLimited
from chassis.limits import Allowance, Limiter
from chassis.settings import ServiceSettings
from stores import shared_limits
from stores.mongo import Collection, PyMongoError, connect
from stores.shared_limits import SharedLimit
from testkit import Space, eventually

TENANT = Allowance("tenant", 6, 60)


def admitted(limiter: Limiter) -> int:
    """How many requests pass at once."""
    for count in range(1000):
        try:
            limiter.admit([TENANT])
        except RateLimited:
            return count
    return 1000


def replica(records: Any) -> tuple[Limiter, SharedLimit]:
    limiter = Limiter("requests")
    return limiter, SharedLimit(limiter, records)


@pytest.fixture
async def records(space: Space) -> Collection:
    return connect(space.settings(ServiceSettings, "ingest"), "ingest")["allowances"]


async def test_what_one_replica_granted_the_others_do_not(records: Collection) -> None:
    (first, tells), (second, learns), (third, knows) = replica(records), replica(records), replica(records)
    await tells.prepare()
    for _ in range(4):
        first.admit([TENANT])
    await tells.exchange()
    second.admit([TENANT])
    await learns.exchange()
    assert admitted(second) == 1
    await learns.exchange()
    assert admitted(first) == 2  # by what it knew of
    await tells.exchange()
    with pytest.raises(RateLimited) as refused:
        first.admit([TENANT])
    assert refused.value.retry_after == pytest.approx(30, abs=3)  # the two too many are owed
    third.charge([TENANT], 1)
    await knows.exchange()
    assert admitted(third) == 0


async def test_nothing_is_told_twice_and_what_counts_differently_lies_apart(records: Collection) -> None:
    requests, tokens = Limiter("requests"), Limiter("tokens")
    for _ in range(2):
        requests.admit([TENANT])
        tokens.charge([TENANT], 20)
        for limiter in (requests, tokens, requests, tokens):
            await SharedLimit(limiter, records).exchange()
    left = {one["_id"]: round(one["level"]) async for one in records.find({})}
    assert left == {"requests/tenant": 4, "tokens/tenant": 20}


async def test_what_is_used_during_an_exchange_is_not_forgotten(records: Collection) -> None:
    limiter, _ = replica(records)

    class Meanwhile:
        async def bulk_write(self, *given: Any, **more: Any) -> None:
            await records.bulk_write(*given, **more)
            limiter.admit([TENANT])

        def find(self, *given: Any) -> Any:
            return records.find(*given)

    limiter.admit([TENANT])
    await SharedLimit(limiter, Meanwhile()).exchange()  # type: ignore[arg-type]
    assert admitted(limiter) == 4


async def test_while_the_database_is_away_each_replica_counts_for_itself(records: Collection) -> None:
    class Away:
        async def bulk_write(self, *_: Any, **__: Any) -> None:
            raise PyMongoError("away")

    limiter, shared = replica(Away())
    limiter.admit([TENANT])
    with pytest.raises(PyMongoError):
        await shared.exchange()
    assert admitted(limiter) == 5
    await SharedLimit(limiter, records).exchange()
    assert [round(one["level"]) async for one in records.find({})] == [1]  # the first may have been counted


def left(limiter: Limiter, allowance: Allowance) -> int:
    return int(limiter.headers([allowance])["x-ratelimit-remaining-requests"])


async def test_who_believes_a_lower_limit_takes_nothing_from_who_heard_of_the_higher(records: Collection) -> None:
    (believing, tells), (knowing, learns) = replica(records), replica(records)
    higher = Allowance("tenant", 1000, 60)
    for limiter, shared, allowance in ((believing, tells, TENANT), (knowing, learns, higher)) * 2:
        limiter.admit([allowance])
        await shared.exchange()
    await records.update_one({}, {"$inc": {"at_ms": -60_000}})  # a minute ago
    for limiter, shared, allowance in ((believing, tells, TENANT), (knowing, learns, higher)):
        limiter.admit([allowance])
        await shared.exchange()
    assert left(knowing, higher) > 990  # refilled by the higher
    assert left(believing, TENANT) == 6


async def test_a_lower_limit_holds_once_nobody_can_believe_the_higher(records: Collection) -> None:
    limiter, shared = replica(records)
    limiter.admit([Allowance("tenant", 1000, 60)])
    await shared.exchange()
    await records.update_one({}, {"$inc": {"limit_at_ms": -shared_limits.BELIEVED_MS}})
    limiter.admit([TENANT])
    await shared.exchange()
    assert [(one["limit"], round(one["level"])) async for one in records.find({})] == [(6, 5)]


def owed(limiter: Limiter) -> float:
    """Seconds until something is granted again."""
    with pytest.raises(RateLimited) as refused:
        limiter.admit([TENANT])
    return refused.value.retry_after or 0


class Slow:
    """The count, where each question waits until it is let through."""

    def __init__(self, records: Collection) -> None:
        self._records = records
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def bulk_write(self, *given: Any, **more: Any) -> None:
        self.asked.set()
        await self.may.wait()
        await self._records.bulk_write(*given, **more)

    def find(self, *given: Any) -> Any:
        return self._records.find(*given)


@contextmanager
def sharing(shared: SharedLimit) -> Iterator[None]:
    task = asyncio.create_task(shared.run())
    try:
        yield
    finally:
        task.cancel()


async def test_a_replica_that_knows_nothing_asks_at_its_first_use_and_grants_until_it_is_answered(
    records: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it can grant too much is what comes within that round trip, and no more than a limit."""
    monkeypatch.setattr(shared_limits, "FRESH_SECONDS", 3600)
    first, tells = replica(records)
    assert admitted(first) == 6
    await tells.exchange()
    slow = Slow(records)
    idle, shared = replica(slow)
    with sharing(shared):
        idle.admit([TENANT])
        await asyncio.wait_for(slow.asked.wait(), 30)
        assert admitted(idle) == 5  # nobody waits for the answer
        slow.may.set()
        await eventually(lambda: owed(idle) > 50)
