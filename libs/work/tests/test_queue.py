"""Claims in fair turns, what a lease counts, and the process that renews one, on the real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chassis.clock import CLOCK
from chassis.settings import ServiceSettings
from eventbus import Aggregate, AggregateStore
from runtime import Service
from stores.leases import FREE
from stores.mongo import PyMongoError
from testkit import Space
from work import Held, Policy, WorkQueue
from work.queue import tenants_with_work

STATES = ("waiting", "begun")


class Parcel(Aggregate):
    """Work that is found by its state."""

    created_at: int = 0
    state: str = "waiting"


class Shelf:
    """A queue on the real database."""

    def __init__(self, space: Space) -> None:
        self.settings = space.settings(ServiceSettings, "ingest")
        self.store: AggregateStore[Parcel] = Service("ingest", self.settings).aggregates("parcels", Parcel)
        self.collection = self.store.collection
        self.queue = self.made()

    def made(self, **facts: Any) -> WorkQueue[Parcel]:
        return WorkQueue(self.store, STATES, self.collection.database["turns"], **facts)

    async def fill(self, *tenants: str) -> None:
        await self.store.prepare()
        await self.queue.prepare()
        for number, tenant_id in enumerate(tenants):
            await self.store.add(Parcel(id=f"p-{number}", tenant_id=tenant_id, created_at=number))

    async def claim(self, seconds: float = 60) -> Parcel:
        one = await self.queue.claim("w", seconds)
        assert one is not None
        return one

    async def end_leases(self) -> None:
        await self.collection.update_many({}, {"$set": {"lease.until_ms": 0}})


@pytest.fixture
def shelf(space: Space) -> Shelf:
    return Shelf(space)


async def test_the_many_of_one_tenant_do_not_hold_up_the_few_of_another(shelf: Shelf) -> None:
    await shelf.fill("many", "many", "many", "few", "few")
    claimed = [await shelf.queue.claim("w", 60) for _ in range(6)]
    assert [(it.tenant_id, it.id) if it else None for it in claimed] == [
        ("few", "p-3"),
        ("many", "p-0"),
        ("few", "p-4"),
        ("many", "p-1"),
        ("many", "p-2"),
        None,
    ]


async def test_turns_come_in_their_order_whatever_the_clocks_of_workers_say(shelf: Shelf) -> None:
    await shelf.fill("a", "b", "c", "a", "b", "c")
    claimed = []
    for ahead in (0, 7200, -7200, 0, 0, 0):
        token = CLOCK.set(lambda ahead=ahead: time.time() + ahead)  # type: ignore[misc]
        claimed.append((await shelf.claim()).tenant_id)
        CLOCK.reset(token)
    assert claimed == ["a", "b", "c", "a", "b", "c"]


async def test_who_has_enough_under_way_and_what_is_not_meant_are_passed_over(shelf: Shelf) -> None:
    await shelf.fill("a", "a", "b")
    one = await shelf.queue.claim("w", 60, where={"_id": {"$nin": ["p-0"]}}, but_of=["b"])
    assert one is not None
    assert one.id == "p-1"
    assert await shelf.queue.claim("w", 60, where={"_id": {"$nin": ["p-0"]}}, but_of=["b"]) is None


async def test_what_goes_first_waits_for_no_turn(shelf: Shelf) -> None:
    await shelf.fill("a", "b", "c")
    await shelf.collection.update_one({"_id": "p-2"}, {"$set": {"state": "begun"}})
    first = shelf.made(first={"state": "begun"})
    assert [(await first.claim("w", 60) or Parcel(id="", tenant_id="")).id for _ in range(4)] == [
        "p-2",
        "p-0",
        "p-1",
        "",
    ]


async def test_who_has_nothing_free_is_not_asked_for_work(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each poll of an idle worker costs a search for each tenant whose work is only under way or put off."""
    await shelf.fill(*(f"tenant_{number}" for number in range(20)))
    for _ in range(20):
        await shelf.claim()
    asked: list[Any] = []

    async def claim(query: dict[str, Any], *_: object) -> None:
        asked.append(query["tenant_id"])

    monkeypatch.setattr(shelf.store, "claim", claim)
    assert await shelf.queue.claim("w", 60) is None
    assert asked == []
    await shelf.store.leases.release("p-7", 1)
    await shelf.queue.claim("w", 60)
    assert asked == ["tenant_7"]


@pytest.mark.parametrize("odd", [{"tenant_id": None}, {"tenant_id": "a", "created_at": "long ago"}], ids=str)
async def test_work_that_cannot_be_read_holds_up_nobody(shelf: Shelf, odd: dict[str, Any]) -> None:
    await shelf.fill("a", "a", "b")
    await shelf.collection.update_one({"_id": "p-0"}, {"$set": odd})
    assert {(await shelf.claim()).id for _ in range(2)} == {"p-1", "p-2"}
    assert await shelf.queue.claim("w", 60) is None, "it is put off"


def stages(plan: Any) -> Iterator[str]:
    """The names of all stages of an explained query."""
    if isinstance(plan, list):
        for one in plan:
            yield from stages(one)
    elif isinstance(plan, dict):
        if isinstance(plan.get("stage"), str):
            yield plan["stage"]
        for one in plan.values():
            yield from stages(one)


async def explained(shelf: Shelf, command: dict[str, Any]) -> Any:
    return await shelf.collection.database.command("explain", command, verbosity="executionStats")


async def indexes(shelf: Shelf) -> list[list[str]]:
    return [[name for name, _ in index["key"]] for index in (await shelf.collection.index_information()).values()]


async def test_looking_for_work_is_a_walk_along_an_index(shelf: Shelf) -> None:
    """The shape in which MongoDB skips from tenant to tenant; the local database reads all of the state, by index."""
    await shelf.fill(*(f"tenant_{number % 5}" for number in range(50)))
    match, sort, group, free = tenants_with_work("waiting")
    assert [*match["$match"]] == ["state"]
    assert [*sort["$sort"]] in await indexes(shelf)
    assert {*group["$group"]} == {"_id", "free"}
    assert [*group["$group"]["free"]] == ["$first"]
    plan = await explained(shelf, {"aggregate": "parcels", "pipeline": [match, sort, group], "cursor": {}})
    assert "COLLSCAN" not in stages(plan)
    assert [*free["$match"]] == ["$expr"]


async def test_a_queue_of_some_work_looks_for_that_alone_and_gives_its_tenants_fair_turns(shelf: Shelf) -> None:
    await shelf.fill("a", "a", "a", "b")
    await shelf.collection.update_one({"_id": "p-0"}, {"$set": {"created_at": 9}})
    some = shelf.made(only={"created_at": {"$gt": 0}})
    claimed = [await some.claim("w", 60) for _ in range(3)]
    assert [one and one.id for one in claimed] == ["p-1", "p-3", "p-2"]
    young = shelf.made(only={"created_at": {"$gt": 9}})
    assert await young.claim("w", 60) is None
    assert claimed[0] is not None
    assert not await young.renew(claimed[0], 60)
    assert await some.renew(claimed[0], 60)


async def test_a_claim_reads_what_is_a_tenants_and_waits_by_age(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the claim itself sends: its equalities and then its order are the keys of one index.

    All but the clock is explained: the local database has none in a plan.
    """
    await shelf.fill(*(f"tenant_{number % 5}" for number in range(50)))
    sent: list[dict[str, Any]] = []

    async def send(query: dict[str, Any], _change: Any, *, sort: list[tuple[str, int]], **_: Any) -> None:
        sent.append({"filter": query, "sort": dict(sort)})

    monkeypatch.setattr(shelf.collection, "find_one_and_update", send)
    one_tenants = WorkQueue(shelf.store, ["waiting"], shelf.collection.database["turns"])
    assert await one_tenants.claim("w", 60) is None
    command = sent[0]
    meant, free = command["filter"]["$and"]
    assert free == FREE
    assert {name: type(value) for name, value in meant.items()} == {"state": str, "tenant_id": str}
    assert [*meant, *command["sort"]] in await indexes(shelf)
    plan = await explained(shelf, {"find": "parcels", **command, "filter": meant, "limit": 1})
    assert "COLLSCAN" not in stages(plan)


async def test_a_worker_that_dies_counts_by_itself_and_one_that_gives_back_does_not(shelf: Shelf) -> None:
    await shelf.fill("a")
    for deaths in range(3):
        one = await shelf.claim()
        assert (one.lease.deaths, one.lease.attempts) == (deaths, deaths + 1)
        await shelf.end_leases()
    for give_back in (shelf.queue.release, lambda it: shelf.queue.put_off(it, 0)):
        await give_back(await shelf.claim())
        again = await shelf.claim()
        assert again.lease.deaths == 0
        await shelf.queue.release(again)


async def test_failures_count_until_the_work_gets_further_than_ever(shelf: Shelf) -> None:
    await shelf.fill("a")
    one = await shelf.claim()
    await shelf.queue.progress(one, 5)
    assert [await shelf.queue.count_failure(one) for _ in range(2)] == [1, 2]
    for mark, left in ((5, 2), (4, 2), (6, 0)):
        await shelf.queue.progress(one, mark)
        assert (await shelf.store.get("a", "p-0")).lease.failures == left
    await shelf.queue.count_failure(one)
    await shelf.queue.finish(one)
    begun_anew = await shelf.claim()
    assert (begun_anew.lease.failures, begun_anew.lease.progress, begun_anew.lease.fence) == (0, 0, 2)


async def test_nothing_is_counted_of_work_that_another_has(shelf: Shelf) -> None:
    await shelf.fill("a")
    late = await shelf.claim()
    await shelf.end_leases()
    one = await shelf.claim()
    assert await shelf.queue.count_failure(late) is None
    await shelf.queue.progress(late, 9)
    await shelf.queue.finish(late)
    assert not await shelf.queue.renew(late, 60)
    assert await shelf.queue.renew(one, 60)
    assert (await shelf.store.get("a", "p-0")).lease == one.lease.model_copy(
        update={"until_ms": (await shelf.store.get("a", "p-0")).lease.until_ms}
    )


async def test_work_that_nobody_wants_any_more_is_not_ours(shelf: Shelf) -> None:
    await shelf.fill("a")
    one = await shelf.claim()
    await shelf.collection.update_one({"_id": "p-0"}, {"$set": {"state": "deleted"}})
    assert not await shelf.queue.renew(one, 60)


async def test_who_goes_first_has_had_its_turn(shelf: Shelf) -> None:
    await shelf.fill("a", "a", "b")
    await shelf.collection.update_one({"_id": "p-0"}, {"$set": {"state": "begun"}})
    first = shelf.made(first={"state": "begun"})
    assert [(await first.claim("w", 60) or Parcel(id="", tenant_id="")).id for _ in range(3)] == ["p-0", "p-2", "p-1"]


def one_slice_after_another(shelf: Shelf, one: Parcel) -> Held[Parcel]:
    """A lease of work that has had its slice whenever it asks."""
    return Held(shelf.queue, one, Policy(60, 3, 3, 1, slice_seconds=0))


async def test_others_wait_if_they_have_something_that_is_free(shelf: Shelf) -> None:
    await shelf.fill("a", "a", "b")
    ours = one_slice_after_another(shelf, await shelf.claim())
    assert await ours.others_wait()
    await shelf.claim()
    assert not await ours.others_wait(), "the other's is under way, and of our own there is more"


async def test_a_place_is_given_only_where_it_goes_to_another_tenant(shelf: Shelf) -> None:
    """Who had a later turn than one's own gains nothing by it: whoever gave the place would be claimed at once."""
    await shelf.fill("a", "b", "b")
    first, second = await shelf.claim(), await shelf.claim()
    assert [first.tenant_id, second.tenant_id] == ["a", "b"]
    ours, theirs = one_slice_after_another(shelf, first), one_slice_after_another(shelf, second)
    assert not await ours.others_wait()
    assert not await theirs.others_wait(), "of its own tenant alone there is more"
    assert await ours.others_wait(), "it had a further slice, and with that a later turn"
    await shelf.queue.release(first)
    assert (await shelf.claim()).tenant_id == "b"


async def test_who_had_a_turn_long_ago_has_the_next_when_a_long_one_ends_its_slice(shelf: Shelf) -> None:
    """With one worker left of two, else the later turn of who has none now would keep it waiting for the whole job."""
    await shelf.fill("a", "b", "b")
    ours = one_slice_after_another(shelf, await shelf.claim())
    await shelf.queue.finish(done := await shelf.claim())
    await shelf.collection.update_one({"_id": done.id}, {"$set": {"state": "done"}})
    assert [await ours.others_wait() for _ in range(2)] == [False, True]


async def test_who_stops_while_it_claims_gives_back_what_it_claimed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelf.fill("a")
    claim, claimed, answered = shelf.store.claim, asyncio.Event(), asyncio.Event()

    async def slow(*asked: Any) -> Parcel | None:
        one = await claim(*asked)
        claimed.set()
        await answered.wait()
        return one

    monkeypatch.setattr(shelf.store, "claim", slow)
    claiming = asyncio.create_task(shelf.queue.claim("w", 60))
    await claimed.wait()
    claiming.cancel()
    answered.set()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    lease = (await shelf.store.get("a", "p-0")).lease
    assert (lease.owner, lease.unfinished, lease.fence) == ("", 0, 1)


async def test_a_turn_that_cannot_be_noted_loses_no_claim(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise PyMongoError("connection closed")

    await shelf.fill("a")
    turns = shelf.collection.database["turns"]
    monkeypatch.setattr(turns, "update_one", away)
    assert (await WorkQueue(shelf.store, STATES, turns).claim("w", 60) or Parcel(id="", tenant_id="")).id == "p-0"


async def test_work_that_begins_anew_counts_anew_though_nobody_noted_that_it_had_ended(shelf: Shelf) -> None:
    await shelf.fill("a")
    one = await shelf.claim()
    await shelf.queue.progress(one, 5)
    await shelf.queue.count_failure(one)
    asked = await shelf.store.get("a", "p-0")
    asked.begin_anew()
    await shelf.store.save(asked)
    await shelf.store.save(asked)
    lease = (await shelf.store.get("a", "p-0")).lease
    assert (lease.failures, lease.unfinished, lease.progress) == (0, 0, 0)
    assert (lease.owner, lease.fence) == ("w", 1), "it is held still"
    await shelf.queue.count_failure(one)
    await shelf.store.save(asked)
    assert (await shelf.store.get("a", "p-0")).lease.failures == 1, "and once it has begun, counts stay"


async def test_documents_of_earlier_releases_are_claimed_counted_and_renewed(shelf: Shelf) -> None:
    await shelf.fill("a")
    old = {"owner": "dead", "fence": 4, "until_ms": 1}
    await shelf.collection.update_one({"_id": "p-0"}, {"$set": {"lease": old, "attempts": 2, "unfinished": 3}})
    one = await shelf.claim()
    assert (one.lease.fence, one.lease.deaths, one.lease.failures) == (5, 0, 0)
    await shelf.collection.update_one({"_id": "p-0"}, {"$unset": {"lease.failures": "", "lease.progress": ""}})
    await shelf.queue.progress(one, 1)
    assert await shelf.queue.count_failure(one) == 1
    assert await shelf.queue.renew(one, 60)


async def test_the_heartbeat_keeps_the_lease_and_kills_the_work_when_it_is_lost(shelf: Shelf) -> None:
    await shelf.fill("a")
    one = await shelf.claim(2)
    work = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    async with Held(shelf.queue, one, Policy(2, 3, 3, 1)).heartbeat(shelf.settings, "ingest", work.pid):
        await asyncio.sleep(4)
        assert work.returncode is None
        assert await shelf.queue.claim("thief", 2) is None
        await shelf.collection.update_one({"_id": one.id}, {"$inc": {"lease.fence": 1}})
        assert await asyncio.wait_for(work.wait(), 10) == -9
