"""The watch over consumers: one that stands still is told from a slow or idle one, on the local stack's broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from chassis.settings import ServiceSettings
from eventbus.consume import lag as module
from eventbus.consume.lag import LAG, STALLED, Lag
from runtime import Service
from schemas import Event, FileDeleted
from testkit import Space, eventually

TENANT = "tenant_a"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURE_SECONDS", 0.1)


@asynccontextmanager
async def consumer(space: Space, handler: Any) -> AsyncIterator[Service]:
    service = Service("registry", space.settings(ServiceSettings, "registry"))
    service.bus.subscribe({FileDeleted: handler})
    app = service.app([])
    async with app.router.lifespan_context(app):
        yield service


def deleted(number: int) -> FileDeleted:
    return FileDeleted(tenant_id=TENANT, file_id=f"file-{number}")


def lag() -> float:
    return float(LAG._value.get())


def stalled() -> float:
    return float(STALLED._value.get())


async def found_well() -> None:
    """Wait until it is measured anew that nothing is left and nothing stands."""
    LAG.set(-1)
    await eventually(lambda: (lag(), stalled()) == (0, 0))


async def test_a_consumer_that_is_behind_and_does_not_move_is_told(space: Space) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def wait(_: Event) -> None:
        begun.set()
        await gate.wait()

    async with consumer(space, wait), space.publisher("ingest") as publish:
        await found_well()
        for _ in range(3):
            await publish(deleted(1))
        await begun.wait()
        await eventually(lambda: lag() == 3 and stalled() > 1)
        gate.set()
        await found_well()


async def test_a_consumer_that_moves_is_not_stalled_however_much_is_left(space: Space) -> None:
    stalls, moved = [], [time.monotonic()]

    async def be_slow(_: Event) -> None:
        await asyncio.sleep(0.3)
        stalls.append(stalled())
        moved.append(time.monotonic())

    async with consumer(space, be_slow), space.publisher("ingest") as publish:
        for _ in range(10):
            await publish(deleted(1))
        await eventually(lambda: lag() > 3)
        await eventually(lambda: (lag(), stalled()) == (0, 0))
        assert len(stalls) == 10
        since = [moved[place] - moved[max(0, place - 3)] for place in range(1, len(moved))]
        assert all(stall < lately + 0.5 for stall, lately in zip(stalls, since, strict=True))


async def test_a_parked_key_is_no_stall(space: Space) -> None:
    async def fail(_: Event) -> None:
        raise RuntimeError("not yet")

    async with consumer(space, fail) as service, space.publisher("ingest") as publish:
        attempting = service.bus.consumer.attempts
        attempting.policy = replace(attempting.policy, attempts_in_place=1, attempts=100)
        await publish(deleted(1))
        parked = service.collection("parked")
        await eventually(lambda: parked.count_documents({}))
        await found_well()


async def test_a_consumer_whose_fetches_have_stopped_is_told(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in aiokafka #625: it keeps its partitions and hears of nothing, new messages included."""
    monkeypatch.setattr(module, "UNHEARD_SECONDS", 3.0)
    handled: list[Event] = []

    async def keep(event: Event) -> None:
        handled.append(event)

    async with consumer(space, keep) as service, space.publisher("ingest") as publish:
        await publish(deleted(1))
        await eventually(lambda: handled)
        await found_well()
        service.bus.consumer._subscriber.consumer._fetcher._fetch_task.cancel()
        await eventually(lambda: stalled() > 1)


async def test_what_is_done_and_cannot_be_committed_is_a_stall(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pass_(_: Event) -> None:
        return None

    async def refuse(_: dict[TopicPartition, int]) -> None:
        raise CommitFailedError

    async with consumer(space, pass_) as service, space.publisher("ingest") as publish:
        reader = service.bus.consumer._subscriber.consumer
        commit = reader.commit
        monkeypatch.setattr(reader, "commit", refuse)
        await publish(deleted(1))
        await eventually(lambda: lag() == 1 and stalled() > 1)
        monkeypatch.setattr(reader, "commit", commit)
        await found_well()


class Rebalancing:
    """A consumer that loses its one partition again and again and never reads on."""

    def __init__(self) -> None:
        self.at: int | None = 3

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("files", 0)}

    def last_poll_timestamp(self, _: TopicPartition) -> int:
        return int(time.time() * 1000)

    def highwater(self, _: TopicPartition) -> int:
        return 5

    async def position(self, _: TopicPartition) -> int:
        if self.at is None:
            raise IllegalStateError
        return self.at


async def test_a_partition_that_comes_back_where_it_was_has_not_moved() -> None:
    watch, reader = Lag(lambda _: None), Rebalancing()
    began = time.monotonic()
    for at in (3, None, 3, None, 3):
        reader.at = at
        await watch.measure(reader)
        await asyncio.sleep(0.02)
    await watch.measure(reader)
    assert (lag(), stalled()) == (2, pytest.approx(time.monotonic() - began, abs=0.05))
    assert stalled() > 0.09
    reader.at = 4
    await watch.measure(reader)
    assert (lag(), stalled()) == (1, 0)
