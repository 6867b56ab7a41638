"""Work for a client that hung up ends, and its place is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from fastapi import Request
from starlette.types import Message

from chassis.hang_ups import HungUp, unless_gone
from testkit import eventually


class Client:
    """Who asked, and may hang up."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.watchers = 0

    @property
    def request(self) -> Request:
        return Request({"type": "http"}, self.receive)

    async def receive(self) -> Message:
        self.watchers += 1
        try:
            await self.gone.wait()
        finally:
            self.watchers -= 1
        return {"type": "http.disconnect"}


class Work:
    """A stream of one token, which comes when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun = self.ended = False

    async def tokens(self) -> AsyncGenerator[str, None]:
        self.begun = True
        try:
            await self.go_on.wait()
            yield "token"
        finally:
            self.ended = True

    async def whole(self) -> str:
        return "".join([token async for token in self.tokens()])


@pytest.mark.parametrize("streamed", [True, False], ids=["a first token", "a whole answer"])
async def test_work_ends_where_the_client_hangs_up(streamed: bool) -> None:
    client, work = Client(), Work()
    asked = anext(work.tokens()) if streamed else work.whole()
    asking = asyncio.create_task(unless_gone(client.request, asked))
    await eventually(lambda: work.begun and client.watchers)
    client.gone.set()
    with pytest.raises(HungUp):
        await asyncio.wait_for(asking, 10)
    assert work.ended


async def test_a_client_that_stays_gets_the_outcome_and_nobody_watches_on() -> None:
    client, work = Client(), Work()
    work.go_on.set()
    tokens = work.tokens()
    assert await unless_gone(client.request, anext(tokens)) == "token"
    assert (work.ended, client.watchers) == (False, 0)
    with pytest.raises(StopAsyncIteration):
        await anext(tokens)


async def test_a_failure_of_the_work_is_told() -> None:
    async def fail() -> None:
        raise LookupError("no such thing")

    client = Client()
    with pytest.raises(LookupError, match="no such thing"):
        await unless_gone(client.request, fail())
    assert client.watchers == 0


async def test_work_ends_with_its_request() -> None:
    client, work = Client(), Work()
    asking = asyncio.create_task(unless_gone(client.request, work.whole()))
    await eventually(lambda: work.begun)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (work.ended, client.watchers) == (True, 0)
