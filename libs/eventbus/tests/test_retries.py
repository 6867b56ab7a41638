"""Retries: a failed claim costs nobody an attempt, a stop lets what has begun end, and new messages go first."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from eventbus import retries as module
from eventbus.letter import Letter, Outcome
from eventbus.parking import Held, Record
from eventbus.patience import LONGEST_PAUSE_SECONDS, Patience
from eventbus.retries import Retries
from stores.mongo import PyMongoError
from testkit import eventually


class Parking:
    """Hands out keys; the database may be away at a claim."""

    def __init__(self, *claims: str | PyMongoError) -> None:
        self._claims = list(claims)
        self.done_with: list[tuple[str, float]] = []

    async def claim(self) -> Held | None:
        claimed = self._claims.pop(0) if self._claims else None
        if isinstance(claimed, PyMongoError):
            raise claimed
        return Held(claimed, 1, Record("files", 0, 1, b"k", b"", {}), 3, math.inf, 0) if claimed else None

    async def done(self, held: Held, seconds: float) -> None:
        self.done_with.append((held.id, seconds))


class Attempts:
    """Each attempt lasts until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = asyncio.Event()

    async def attempt(self, held: Held) -> Outcome:
        self.begun.append(held.id)
        await self.gate.wait()
        return Outcome.HANDLED


def retries(parking: Parking, lanes: Any, attempts: Attempts) -> Retries:
    async def dead_letter(_record: Record, _letter: Letter) -> None:
        raise AssertionError("nothing is given up here")

    return Retries(parking, lanes, attempts.attempt, dead_letter, Patience().pause)  # type: ignore[arg-type]


@pytest.fixture
def lanes() -> SimpleNamespace:
    return SimpleNamespace(closed=False, are_pressed=lambda: False)


async def test_a_claim_that_fails_leaves_the_attempts_under_way_alone(
    lanes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.02)
    parking, attempts = Parking("one", PyMongoError("away"), "two"), Attempts()
    running = asyncio.create_task(retries(parking, lanes, attempts).run(38.0, 1.0))
    await eventually(lambda: attempts.begun == ["one", "two"])
    attempts.gate.set()
    await eventually(lambda: parking.done_with == [("one", 38.0), ("two", 38.0)])
    running.cancel()


async def test_a_stop_lets_an_attempt_end_and_goes_on_with_no_other(lanes: Any) -> None:
    parking, attempts = Parking("one"), Attempts()
    running = asyncio.create_task(retries(parking, lanes, attempts).run(38.0, 5.0))
    await eventually(lambda: attempts.begun == ["one"])
    lanes.closed = True
    running.cancel()
    await asyncio.sleep(0.05)
    assert not running.done()
    attempts.gate.set()
    with suppress(asyncio.CancelledError):
        await running
    assert parking.done_with == [("one", math.inf)]


async def test_keys_are_begun_slowly_while_new_messages_press(lanes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "YIELD_SECONDS", 3600.0)
    lanes.are_pressed = lambda: True
    attempts = Attempts()
    running = asyncio.create_task(retries(Parking("one", "two"), lanes, attempts).run(38.0, 0.1))
    await eventually(lambda: attempts.begun == ["one"])
    await asyncio.sleep(0.1)
    assert attempts.begun == ["one"]
    running.cancel()


def test_a_pause_is_bounded_however_many_attempts_failed() -> None:
    assert 0 < Patience().pause(5000) <= 1.5 * LONGEST_PAUSE_SECONDS
