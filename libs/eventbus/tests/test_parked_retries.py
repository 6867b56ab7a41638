"""Parked retries: a failed claim costs nobody an attempt, a stop lets what has begun end, and new messages go first."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from eventbus.consume import parked_retries as module
from eventbus.consume.parked_retries import ParkedRetries
from eventbus.consume.parking import ParkedClaim
from eventbus.consume.retry_policy import LONGEST_PAUSE_SECONDS, RetryPolicy
from eventbus.messages.message import Message
from eventbus.messages.outcome import GiveUp, Outcome
from stores.mongo import PyMongoError
from testkit import eventually


class Parking:
    """Hands out keys; the database may be away at a claim."""

    def __init__(self, *claims: str | PyMongoError) -> None:
        self._claims = list(claims)
        self.done_with: list[tuple[str, float]] = []

    async def claim(self) -> ParkedClaim | None:
        claimed = self._claims.pop(0) if self._claims else None
        if isinstance(claimed, PyMongoError):
            raise claimed
        if claimed is None:
            return None
        return ParkedClaim(claimed, 1, Message("files", 0, 1, b"k", b"", {}), 3, math.inf, 0)

    async def done(self, claim: ParkedClaim, seconds: float) -> None:
        self.done_with.append((claim.id, seconds))


class Attempts:
    """Each attempt lasts until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = asyncio.Event()

    async def attempt(self, claim: ParkedClaim) -> Outcome:
        self.begun.append(claim.id)
        await self.gate.wait()
        return Outcome.HANDLED


def retries(parking: Parking, dispatch: Any, attempts: Attempts) -> ParkedRetries:
    async def dead_letter(_message: Message, _why: GiveUp) -> None:
        raise AssertionError("nothing is given up here")

    return ParkedRetries(parking, dispatch, attempts.attempt, dead_letter, RetryPolicy().pause)  # type: ignore[arg-type]


@pytest.fixture
def dispatch() -> SimpleNamespace:
    return SimpleNamespace(closed=False, are_pressed=lambda: False)


async def test_a_claim_that_fails_leaves_the_attempts_under_way_alone(
    dispatch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.02)
    parking, attempts = Parking("one", PyMongoError("away"), "two"), Attempts()
    running = asyncio.create_task(retries(parking, dispatch, attempts).run(38.0, 1.0))
    await eventually(lambda: attempts.begun == ["one", "two"])
    attempts.gate.set()
    await eventually(lambda: parking.done_with == [("one", 38.0), ("two", 38.0)])
    running.cancel()


async def test_a_stop_lets_an_attempt_end_and_goes_on_with_no_other(dispatch: Any) -> None:
    parking, attempts = Parking("one"), Attempts()
    running = asyncio.create_task(retries(parking, dispatch, attempts).run(38.0, 5.0))
    await eventually(lambda: attempts.begun == ["one"])
    dispatch.closed = True
    running.cancel()
    await asyncio.sleep(0.05)
    assert not running.done()
    attempts.gate.set()
    with suppress(asyncio.CancelledError):
        await running
    assert parking.done_with == [("one", math.inf)]


async def test_keys_are_begun_slowly_while_new_messages_press(dispatch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "YIELD_SECONDS", 3600.0)
    dispatch.are_pressed = lambda: True
    attempts = Attempts()
    running = asyncio.create_task(retries(Parking("one", "two"), dispatch, attempts).run(38.0, 0.1))
    await eventually(lambda: attempts.begun == ["one"])
    await asyncio.sleep(0.1)
    assert attempts.begun == ["one"]
    running.cancel()


def test_a_pause_is_bounded_however_many_attempts_failed() -> None:
    assert 0 < RetryPolicy().pause(5000) <= 1.5 * LONGEST_PAUSE_SECONDS
