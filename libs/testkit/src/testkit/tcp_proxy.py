"""A TCP proxy that goes wrong on demand: slow, cut, half-open, black hole, reset, or answering for the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

CHUNK = 64 * 1024
TICK = 0.02


@dataclass(frozen=True)
class Fault:
    """What happens to connections; the default is nothing. Directions are seen from the client.

    Attributes:
        latency: seconds every chunk is late, in both directions.
        bytes_per_second: the most that is sent to the client.
        cut_after: a connection is closed once the client got so many bytes on it since the fault began.
        drop_reply_to: a request holding these bytes reaches the server, then the connection is closed: whether it
            was carried out is not known to the client.
        answer: the proxy answers each request with these bytes itself, then closes.
        black_hole: nothing moves, nothing is closed; what was sent arrives once the fault ends.
        reset: every connection is reset, and every new one.
    """

    latency: float = 0.0
    bytes_per_second: float | None = None
    cut_after: int | None = None
    drop_reply_to: bytes | None = None
    answer: bytes | None = None
    black_hole: bool = False
    reset: bool = False


HEALTHY = Fault()
BLACK_HOLE = Fault(black_hole=True)
RESET = Fault(reset=True)
UNAVAILABLE = Fault(
    answer=b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\nretry-after: 1\r\n\r\n"
)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client = (reader, writer)
        self.server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.to_client = 0
        self.dead = False

    def close(self, *, reset: bool = False) -> None:
        for side in (self.client, self.server):
            if side is None:
                continue
            if reset and (sock := side[1].get_extra_info("socket")) is not None:
                with contextlib.suppress(OSError):  # closed already
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            side[1].close()


class TcpProxy:
    """Stands between clients and one server; `set` changes what goes wrong, also for connections that are open.

    Use `tcp_proxy`.

    Args:
        host: of the server.
        port: of the server.

    Attributes:
        port: the proxy's own.
        connections: how many were made so far.
        dropped: how many replies to `drop_reply_to` were dropped so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._fault = HEALTHY
        self._moving = asyncio.Event()
        self._moving.set()
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        self.dropped = 0

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    def set(self, fault: Fault) -> None:
        """Let this go wrong from now on."""
        self._fault = fault
        if fault.black_hole:
            self._moving.clear()
        else:
            self._moving.set()
        for connection in list(self._open):
            connection.to_client = 0
            if fault.reset:
                connection.close(reset=True)

    def heal(self) -> None:
        """Nothing goes wrong any more; connections that are half open stay so."""
        self.set(HEALTHY)

    def half_open(self) -> None:
        """The server forgets the connections that are open and the clients are not told; new ones work."""
        for connection in list(self._open):
            connection.dead = True
            if connection.server is not None:
                connection.server[1].close()

    async def start(self, port: int = 0) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close everything."""
        self._listener.close()
        for connection in list(self._open):
            connection.close(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = _Connection(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._open.add(connection)
        self._tasks.add(task)
        try:
            await self._carry(connection)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            connection.close()
            self._open.discard(connection)
            self._tasks.discard(task)

    async def _carry(self, connection: _Connection) -> None:
        await self._moving.wait()
        if self._fault.reset:
            connection.close(reset=True)
            return
        if self._fault.answer is None:
            connection.server = await asyncio.open_connection(*self._target)
        async with asyncio.TaskGroup() as group:
            up = group.create_task(self._upwards(connection))
            if connection.server is not None:
                down = group.create_task(self._downwards(connection, connection.server[0]))
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                if not connection.dead:
                    up.cancel()
                    down.cancel()

    async def _upwards(self, connection: _Connection) -> None:
        reader, writer = connection.client
        while data := await self._read(reader):
            await self._moving.wait()
            fault = self._fault
            await asyncio.sleep(fault.latency)
            if connection.dead:
                continue
            if fault.answer is not None or connection.server is None:
                writer.write(fault.answer or b"")
                await writer.drain()
                return
            connection.server[1].write(data)
            await connection.server[1].drain()
            if fault.drop_reply_to is not None and fault.drop_reply_to in data:
                self.dropped += 1
                await asyncio.sleep(TICK * 5)
                return

    async def _downwards(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        writer = connection.client[1]
        while data := await self._read(reader):
            await self._moving.wait()
            fault = self._fault
            await asyncio.sleep(fault.latency)
            if connection.dead:
                return
            if fault.cut_after is not None:
                data = data[: max(0, fault.cut_after - connection.to_client)]
            connection.to_client += len(data)
            if fault.bytes_per_second is None:
                writer.write(data)
            else:
                await self._trickle(writer, data, fault.bytes_per_second)
            await writer.drain()
            if fault.cut_after is not None and connection.to_client >= fault.cut_after:
                return

    async def _trickle(self, writer: asyncio.StreamWriter, data: bytes, rate: float) -> None:
        step = max(1, int(rate * TICK))
        for start in range(0, len(data), step):
            if self._fault.bytes_per_second is None:
                writer.write(data[start:])
                return
            writer.write(data[start : start + step])
            await writer.drain()
            await asyncio.sleep(step / rate)

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> bytes:
        with contextlib.suppress(ConnectionError):
            return await reader.read(CHUNK)
        return b""


@asynccontextmanager
async def tcp_proxy(address: str, *, port: int = 0) -> AsyncIterator[TcpProxy]:
    """A proxy in front of `address`, such as `127.0.0.1:9000` or `mongodb://127.0.0.1:27017/?option=value`.

    Args:
        address: of the server.
        port: to listen on; a free one if 0.
    """
    host, _, server_port = address.rpartition("//")[2].partition("/")[0].rpartition(":")
    proxy = TcpProxy(host, int(server_port))
    await proxy.start(port)
    try:
        yield proxy
    finally:
        await proxy.stop()
