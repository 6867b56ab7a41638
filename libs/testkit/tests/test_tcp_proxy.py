"""Each fault of the proxy does what its name says, and healing ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from testkit.tcp_proxy import BLACK_HOLE, RESET, UNAVAILABLE, Fault, TcpProxy, tcp_proxy

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that says everything back, and keeps what it was told."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            self.heard += data
            writer.write(data)
        writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest_asyncio.fixture
async def proxy(echo: Echo) -> AsyncIterator[TcpProxy]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with tcp_proxy(f"{host}:{port}") as made:
        yield made
    server.close()


async def connect(proxy: TcpProxy) -> Stream:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def ask(stream: Stream, data: bytes, *, within: float = 1.0) -> bytes:
    stream[1].write(data)
    return await asyncio.wait_for(stream[0].read(1000), within)


async def test_healthy(proxy: TcpProxy) -> None:
    stream = await connect(proxy)
    assert [await ask(stream, word) for word in (b"one", b"two")] == [b"one", b"two"]


async def test_late(proxy: TcpProxy) -> None:
    stream = await connect(proxy)
    proxy.set(Fault(latency=0.2))
    began = time.monotonic()
    assert await ask(stream, b"one") == b"one"
    assert time.monotonic() - began >= 0.4


async def test_slow(proxy: TcpProxy) -> None:
    proxy.set(Fault(bytes_per_second=1000))
    stream = await connect(proxy)
    began = time.monotonic()
    stream[1].write(b"x" * 300)
    await stream[0].readexactly(300)
    assert time.monotonic() - began >= 0.25


async def test_cut_after_some_bytes(proxy: TcpProxy) -> None:
    proxy.set(Fault(cut_after=4))
    stream = await connect(proxy)
    assert await ask(stream, b"123456789") == b"1234"
    with suppress(ConnectionError):
        assert await ask(stream, b"more") == b""


async def test_the_reply_is_dropped_but_the_request_arrives(proxy: TcpProxy, echo: Echo) -> None:
    stream = await connect(proxy)
    proxy.set(Fault(drop_reply_to=b"commit"))
    assert await ask(stream, b"begin") == b"begin"
    stream[1].write(b"commit")
    await asyncio.wait_for(stream[0].read(), 2)
    assert (echo.heard, proxy.dropped) == (b"begincommit", 1)


async def test_black_hole_and_what_was_sent_arrives_later(proxy: TcpProxy) -> None:
    stream = await connect(proxy)
    proxy.set(BLACK_HOLE)
    fresh = await connect(proxy)
    for one in (stream, fresh):
        with pytest.raises(TimeoutError):
            await ask(one, b"held", within=0.2)
    proxy.heal()
    for one in (stream, fresh):
        assert await asyncio.wait_for(one[0].read(1000), 1) == b"held"


async def test_reset(proxy: TcpProxy) -> None:
    stream = await connect(proxy)
    await ask(stream, b"one")
    proxy.set(RESET)
    for one in (stream, await connect(proxy)):
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(one[0].readexactly(1), 1)
    proxy.heal()
    assert await ask(await connect(proxy), b"again") == b"again"


async def test_half_open_is_silent_and_new_connections_work(proxy: TcpProxy, echo: Echo) -> None:
    stream = await connect(proxy)
    await ask(stream, b"one")
    proxy.half_open()
    with pytest.raises(TimeoutError):
        await ask(stream, b"lost", within=0.3)
    assert await ask(await connect(proxy), b"two") == b"two"
    assert echo.heard == b"onetwo"


async def test_answers_in_the_servers_place(proxy: TcpProxy, echo: Echo) -> None:
    stream = await connect(proxy)
    proxy.set(UNAVAILABLE)
    for one in (stream, await connect(proxy)):
        assert (await ask(one, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503")
    assert echo.heard == b""
