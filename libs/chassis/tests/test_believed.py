"""Answers that are believed while their source is away."""

from __future__ import annotations

import asyncio

import pytest

from chassis.believed import REST_SECONDS, Believed
from chassis.errors import NotFound, SartorError, Transient

FRESH, STALE = 30.0, 600.0


class Source:
    """Answers with its value, or fails, and counts how often it is asked."""

    def __init__(self) -> None:
        self.value = "one"
        self.error: SartorError | None = None
        self.asked = 0
        self.deadline: float | None = None
        self.now = 0.0
        self.answers_when = asyncio.Event()
        self.answers_when.set()
        self.believed: Believed[str, str] = Believed(FRESH, STALE, lambda: self.now)

    async def ask(self, deadline: float | None) -> str:
        self.asked += 1
        self.deadline = deadline
        said, error = self.value, self.error
        await self.answers_when.wait()
        if error:
            raise error
        return said

    async def get(self) -> str:
        return await self.believed.get("key", self.ask)

    async def settled(self) -> str:
        """The answer after what goes on beside callers."""
        await self.get()
        for _ in range(5):
            await asyncio.sleep(0)
        return await self.get()


async def test_an_old_answer_holds_for_minutes_while_the_source_is_away_and_no_longer() -> None:
    source = Source()
    await source.get()
    source.error, source.value = Transient("away"), "two"
    for source.now in (FRESH - 1, FRESH, 120.0, STALE - 1):
        assert await source.get() == "one"
    source.now = STALE
    with pytest.raises(Transient):
        await source.get()
    source.error = None
    assert await source.get() == "two"


async def test_a_source_that_is_away_is_asked_now_and_then_and_not_waited_for_long() -> None:
    source = Source()
    await source.get()
    assert source.deadline is None
    source.error = Transient("away")
    for source.now in (FRESH, FRESH + 1, FRESH + REST_SECONDS - 1):
        await source.get()
    assert source.asked == 2
    assert source.deadline is not None
    source.now = FRESH + REST_SECONDS
    source.answers_when.clear()
    assert await asyncio.wait_for(source.get(), 1) == "one"  # it hangs, and nobody waits for it any more
    source.error, source.value = None, "two"
    source.answers_when.set()
    source.now += REST_SECONDS
    await source.settled()
    source.now += REST_SECONDS
    assert await source.settled() == "two"


async def test_what_was_never_answered_is_not_made_up() -> None:
    source = Source()
    source.error = Transient("away")
    with pytest.raises(Transient):
        await source.get()


async def test_a_refusal_ends_an_answer() -> None:
    source = Source()
    await source.get()
    source.now, source.error = FRESH, NotFound("gone")
    with pytest.raises(NotFound):
        await source.get()
    source.error = Transient("away")
    with pytest.raises(Transient):
        await source.get()


async def test_a_forgotten_answer_is_not_believed_though_the_source_is_away() -> None:
    source = Source()
    await source.get()
    source.error = Transient("away")
    source.believed.forget("key")
    with pytest.raises(Transient):
        await source.get()


async def test_a_shortened_answer_is_asked_for_soon_and_not_more_often_while_nobody_can_be_asked() -> None:
    source = Source()
    await source.get()
    for source.now, asked in ((0.5, 1), (1.0, 1), (1.5, 2)):
        source.believed.shorten("key", 1.5)
        await source.get()
        assert source.asked == asked
    source.error = Transient("away")
    for source.now, asked in ((3.0, 3), (3.5, 3), (4.0, 3), (3.0 + REST_SECONDS, 4)):
        source.believed.shorten("key", 1.5)
        assert await source.settled() == "one"
        assert source.asked == asked


async def test_a_doubted_answer_is_asked_for_and_holds_while_nobody_can_be_asked() -> None:
    source = Source()
    await source.get()
    source.error, source.value = Transient("away"), "two"
    source.believed.doubt(lambda _key, value: value == "one")
    assert await source.get() == "one"
    assert source.asked == 2
    source.error, source.now = None, REST_SECONDS
    assert await source.settled() == "two"


async def test_all_who_wait_share_one_question_and_its_failure() -> None:
    source = Source()
    source.error = Transient("away")
    source.answers_when.clear()
    waiting = [asyncio.create_task(source.get()) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    source.answers_when.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, *[Transient] * 4]
    assert source.asked == 1


@pytest.mark.parametrize("change", ["forget", "doubt", "revise"])
async def test_an_answer_overtaken_by_a_change_is_asked_for_again(change: str) -> None:
    source = Source()
    source.answers_when.clear()
    first = asyncio.create_task(source.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert source.asked
    match change:
        case "forget":
            source.believed.forget("key")
        case "doubt":
            source.believed.doubt(lambda _key, value: value == "one")
        case "revise":
            source.believed.revise(lambda _key, value: None if value == "one" else value)
    source.value = "two"
    source.answers_when.set()
    assert await first == "one"
    assert await source.get() == "two"


@pytest.mark.parametrize("change", ["forget", "doubt", "revise"])
async def test_what_changes_elsewhere_leaves_an_answer_fresh(change: str) -> None:
    source = Source()
    source.answers_when.clear()
    first = asyncio.create_task(source.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert source.asked == 1
    match change:
        case "forget":
            source.believed.forget("another key")
        case "doubt":
            source.believed.doubt(lambda _key, value: value == "another")
        case "revise":
            source.believed.revise(lambda _key, value: None if value == "another" else value)
    source.answers_when.set()
    assert [await first, await source.get()] == ["one", "one"]
    assert source.asked == 1


async def test_a_revised_answer_holds_as_long_as_it_did_and_an_ended_one_no_more() -> None:
    source = Source()
    await source.get()
    source.believed.revise(lambda _key, value: value + " half")
    assert (await source.get(), source.asked) == ("one half", 1)
    source.now, source.error = FRESH, Transient("away")
    assert (await source.get(), source.asked) == ("one half", 2)
    source.believed.revise(lambda *_: None)
    with pytest.raises(Transient):
        await source.get()
