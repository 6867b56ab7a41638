"""The loop of every kind of work, without a database: how attempts end, what counts, what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog

from chassis.errors import BY_STATUS, NotFound, SartorError, TooLarge, Transient, WriteRefused
from chassis.exhaustion import DiskFull
from eventbus import Aggregate
from stores.mongo import PyMongoError
from testkit import eventually
from work import End, Failed, GiveUp, Held, Kind, LeasedWorker, OutOfAttempts, Policy, PutOff
from work import worker as worker_module

LEASE_SECONDS = 0.2


class Parcel(Aggregate):
    """A piece of work."""


class Shelf:
    """A queue as a worker sees it; `words` is what was said of the lease."""

    def __init__(self, *parcels: Parcel) -> None:
        self.waiting = list(parcels)
        self.words: list[tuple[str, float]] = []
        self.renewed = 0
        self.ours = True
        self.away = False

    async def claim(self, owner: str, seconds: float) -> Parcel | None:
        if not self.waiting:
            return None
        one = self.waiting.pop(0)
        one.lease.unfinished += 1
        return one

    async def renew(self, one: Parcel, seconds: float) -> bool:
        self.renewed += 1
        if self.away:
            raise PyMongoError("away")
        return self.ours

    async def release(self, one: Parcel) -> None:
        self._give_back(one, "released")

    async def put_off(self, one: Parcel, seconds: float) -> None:
        self._give_back(one, "put off", seconds)

    async def finish(self, one: Parcel) -> None:
        self._give_back(one, "finished")
        one.lease.failures = 0

    async def count_failure(self, one: Parcel) -> int | None:
        if not self.ours:
            return None
        one.lease.failures += 1
        return one.lease.failures

    async def next_turn(self, one: Parcel) -> str:
        return "another"

    def _give_back(self, one: Parcel, word: str, seconds: float = 0.0) -> None:
        one.lease.unfinished = 0
        self.words.append((word, seconds))


class Carrying(Kind[Parcel]):
    """A kind whose attempts do what a test says."""

    name = "parcel"

    def __init__(self, attempt: Callable[[Parcel, Held[Parcel]], Awaitable[Any]]) -> None:
        self._attempt = attempt
        self.ends: list[End] = []
        self.begun = 0

    async def attempt(self, one: Parcel, held: Held[Parcel]) -> None:
        self.begun += 1
        await self._attempt(one, held)

    async def ended(self, one: Parcel, end: End) -> None:
        self.ends.append(end)


def parcel(**lease: int) -> Parcel:
    made = Parcel(id="p-1", tenant_id="t")
    for name, value in lease.items():
        setattr(made.lease, name, value)
    return made


def raising(error: BaseException | None) -> Carrying:
    async def attempt(*_: Any) -> None:
        if error is not None:
            raise error

    return Carrying(attempt)


def worker(shelf: Shelf, kind: Kind[Parcel], **policy: Any) -> LeasedWorker[Parcel]:
    facts = {"most_failures": 3, "most_deaths": 5, "retry_seconds": 7.0, "idle_seconds": 60.0, **policy}
    return LeasedWorker(shelf, kind, Policy(lease_seconds=LEASE_SECONDS, **facts), "w")  # type: ignore[arg-type]


def elsewhere(code: str) -> SartorError:
    """What another service's 409 becomes here."""
    return BY_STATUS[409]("It is being tested.", code=code)


AWAY = Transient("Milvus is away.")
FULL = DiskFull("full")


@pytest.mark.parametrize(
    ("raised", "end", "word", "counted"),
    [
        (None, "done", ("finished", 0), 0),
        (GiveUp("no rows", "empty"), "given_up", ("finished", 0), 0),
        (PutOff(3, "not yet"), "put_off", ("put off", 3), 0),
        (PutOff(0, "others wait"), "put_off", ("released", 0), 0),
        (AWAY, "put_off", ("put off", 7), 0),
        (PyMongoError("away"), "put_off", ("put off", 7), 0),
        (FULL, "put_off", ("put off", 10), 0),
        (WriteRefused("claimed by another", code="stale_fence"), "lost", ("released", 0), 0),
        (WriteRefused("kept changing", code="stale_write"), "lost", ("released", 0), 0),
        (WriteRefused("is over", code="wrong_state"), "lost", ("released", 0), 0),
        (elsewhere("conflict"), "failed", ("put off", 7), 1),
        (elsewhere("stale_fence"), "failed", ("put off", 7), 1),
        (elsewhere("stale_write"), "failed", ("put off", 7), 1),
        (elsewhere("wrong_state"), "failed", ("put off", 7), 1),
        (MemoryError(), "failed", ("put off", 7), 1),
        (TooLarge("of our own, and not meant"), "failed", ("put off", 7), 1),
        (Failed(AWAY), "failed", ("put off", 7), 1),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else str(one),
)
async def test_an_attempt_ends_in_one_way_and_is_counted_once(
    raised: Exception | None, end: str, word: tuple[str, float], counted: int
) -> None:
    one = parcel()
    shelf, kind = Shelf(one), raising(raised)
    claimed = await shelf.claim("w", 1)
    assert claimed is one
    assert (await worker(shelf, kind).work(one)).name == end
    assert [it.name for it in kind.ends] == [end]
    assert shelf.words == [word]
    assert (one.lease.failures, one.lease.unfinished) == (counted, 0)


async def test_work_that_fails_again_and_again_is_given_up() -> None:
    one = parcel()
    shelf, kind = Shelf(), raising(TooLarge("It grew."))
    it = worker(shelf, kind, retry_growth=2)
    ends = [await it.work(one) for _ in range(3)]
    assert [end.name for end in ends] == ["failed", "failed", "given_up"]
    assert shelf.words == [("put off", 7), ("put off", 14), ("finished", 0)]
    assert isinstance(ends[2], OutOfAttempts)
    assert (ends[2].failures, ends[2].reason, ends[2].error) == (3, "It grew. (3 attempts).", ends[1].error)  # type: ignore[attr-defined]
    assert one.lease.failures == 0, "asked for again, it begins anew"


@pytest.mark.parametrize(("unfinished", "end"), [(5, "done"), (6, "given_up")])
async def test_work_of_which_workers_die_is_given_up_untried(unfinished: int, end: str) -> None:
    one = parcel(unfinished=unfinished)
    kind = raising(None)
    found = await worker(Shelf(), kind).work(one)
    assert found.name == end
    assert kind.begun == (end == "done")
    assert not isinstance(found, OutOfAttempts) or "5 workers in a row died" in found.reason


async def test_an_end_that_cannot_be_recorded_is_come_to_again_without_another_attempt() -> None:
    one = parcel(failures=2)
    shelf, kind = Shelf(), raising(MemoryError())
    it = worker(shelf, kind)
    recorded = kind.ended

    async def away(*_: Any) -> None:
        raise Transient("The object store is away.")

    kind.ended = away  # type: ignore[method-assign]
    assert (await it.work(one)).name == "put_off"
    assert shelf.words == [("put off", 7)]
    kind.ended = recorded  # type: ignore[method-assign]
    assert isinstance(await it.work(one), OutOfAttempts)
    assert kind.begun == 1


@pytest.mark.parametrize("error", [WriteRefused("claimed", code="stale_fence"), NotFound("gone")])
async def test_a_word_about_work_that_is_anothers_or_gone_is_none(error: Exception) -> None:
    shelf, kind = Shelf(), raising(None)

    async def refuse(*_: Any) -> None:
        raise error

    kind.ended = refuse  # type: ignore[method-assign]
    assert (await worker(shelf, kind).work(parcel())).name == "lost"


@pytest.mark.parametrize("code", ["conflict", "stale_fence", "stale_write", "wrong_state"])
async def test_a_conflict_that_is_no_refusal_of_the_store_is_come_to_again_after_a_pause(code: str) -> None:
    """Else the work is given back at once, and claimed again at once, for as long as somebody says so."""
    shelf, kind = Shelf(), raising(None)

    async def refuse(*_: Any) -> None:
        raise elsewhere(code)

    kind.ended = refuse  # type: ignore[method-assign]
    assert (await worker(shelf, kind).work(parcel())).name == "put_off"
    assert shelf.words == [("put off", 7)]


async def test_a_failure_of_work_that_another_has_by_now_counts_for_nothing() -> None:
    shelf, kind = Shelf(), raising(MemoryError())
    shelf.ours = False
    assert (await worker(shelf, kind).work(parcel())).name == "lost"


async def test_a_worker_that_stops_gives_its_work_back_uncounted() -> None:
    begun = asyncio.Event()

    async def attempt(*_: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    one = parcel()
    shelf, kind = Shelf(one), Carrying(attempt)
    task = asyncio.create_task(worker(shelf, kind).run())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shelf.words == [("released", 0)]
    assert (one.lease.failures, one.lease.unfinished, kind.ends) == (0, 0, [])


async def test_the_lease_is_renewed_for_as_long_as_the_work_takes() -> None:
    shelf = Shelf()

    async def attempt(*_: Any) -> None:
        await eventually(lambda: shelf.renewed >= 3)

    assert (await worker(shelf, Carrying(attempt)).work(parcel())).name == "done"
    renewed = shelf.renewed
    await asyncio.sleep(LEASE_SECONDS / 2)
    assert shelf.renewed == renewed, "and no longer"


async def test_what_may_be_broken_off_is_when_the_lease_is_lost() -> None:
    broken, shelf = asyncio.Event(), Shelf()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            broken.set()

    async def attempt(_: Parcel, held: Held[Parcel]) -> None:
        shelf.ours = False
        await held.while_ours(endless())

    end = await asyncio.wait_for(worker(shelf, Carrying(attempt)).work(parcel()), 10)
    assert end.name == "lost"
    assert broken.is_set()


async def test_what_must_not_be_left_half_way_is_done_to_its_end() -> None:
    shelf, written = Shelf(), []

    async def attempt(_: Parcel, held: Held[Parcel]) -> None:
        shelf.ours = False
        await eventually(lambda: shelf.renewed)
        await asyncio.sleep(LEASE_SECONDS)
        written.append("all")
        assert not await held.renew()

    await worker(shelf, Carrying(attempt)).work(parcel())
    assert written == ["all"]


@pytest.mark.parametrize(("slice_seconds", "may"), [(0.0, True), (60.0, False)])
async def test_work_gives_its_place_to_others_once_it_had_its_slice(slice_seconds: float, may: bool) -> None:
    asked: list[bool] = []

    async def attempt(_: Parcel, held: Held[Parcel]) -> None:
        asked.append(await held.others_wait())

    await worker(Shelf(), Carrying(attempt), slice_seconds=slice_seconds).work(parcel())
    assert asked == [may]


@pytest.mark.parametrize("back", [True, False])
async def test_a_lease_that_cannot_be_renewed_is_lost_when_it_is_over_and_not_before(back: bool) -> None:
    shelf = Shelf()

    async def come_back() -> None:
        await eventually(lambda: shelf.renewed >= 2)
        shelf.away = not back
        await eventually(lambda: shelf.renewed >= 8)

    async def attempt(_: Parcel, held: Held[Parcel]) -> None:
        shelf.away = True
        await held.while_ours(come_back())

    end = await asyncio.wait_for(worker(shelf, Carrying(attempt)).work(parcel()), 20)
    assert end.name == ("done" if back else "lost")


async def test_what_broken_off_work_returns_or_raises_first_counts() -> None:
    async def attempt(_: Parcel, held: Held[Parcel]) -> None:
        assert await held.while_ours(asyncio.sleep(0, "result")) == "result"
        await held.while_ours(_raise(GiveUp("no")))

    assert (await worker(Shelf(), Carrying(attempt)).work(parcel())).name == "given_up"


async def _raise(error: Exception) -> None:
    raise error


async def test_a_machine_that_lacks_something_rests_and_others_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, kind = Shelf(parcel(), parcel()), raising(FULL)
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(worker_module.asyncio, "sleep", rest)
        with pytest.raises(asyncio.CancelledError):
            await worker(shelf, kind).run()
    assert rests[-1] == worker_module.EXHAUSTED_SECONDS
    assert (kind.begun, len(shelf.waiting)) == (1, 1)


async def test_a_worker_that_is_woken_looks_at_once() -> None:
    shelf, done = Shelf(), asyncio.Event()

    async def attempt(*_: Any) -> None:
        done.set()

    it = worker(shelf, Carrying(attempt))
    task = asyncio.create_task(it.run())
    await asyncio.sleep(0.05)
    shelf.waiting.append(parcel())
    it.wake()
    await asyncio.wait_for(done.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_an_attempt_logs_names_its_work() -> None:
    seen: list[dict[str, Any]] = []

    async def attempt(_: Parcel, held: Held[Parcel]) -> None:
        seen.append(structlog.contextvars.get_contextvars())
        await held.while_ours(look())

    async def look() -> None:
        seen.append(structlog.contextvars.get_contextvars())

    await worker(Shelf(), Carrying(attempt)).work(parcel())
    assert all(one["tenant_id"] == "t" and one["parcel_id"] == "p-1" for one in seen)
    assert len(seen) == 2
    assert "parcel_id" not in structlog.contextvars.get_contextvars()
