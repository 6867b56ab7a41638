"""What a simulated process finds around it: clocks, child processes, signals, the object store's client."""

from __future__ import annotations

import hashlib
import secrets
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from testkit.simulated_loop import EPOCH, PROCESS, Process, SimulatedLoop
from testkit.simulated_objects import SimulatedObjects, stored
from tests.simulation.history import History

Program = Callable[["Subprocess", tuple[str, ...]], Awaitable[int]]


class Exited(BaseException):
    """The process that runs this code has ended itself."""


class Pipe:
    """Lines from one process to another; what was written is read even after the writer's death."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._lines: deque[bytes] = deque()
        self._closed = False
        self._news: Any = None

    def write(self, line: bytes) -> None:
        """Give a line to the reader."""
        self._lines.append(line)
        self._tell()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._tell()

    async def drain(self) -> None:
        """Like asyncio's."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The lines, as they come."""
        while True:
            while self._lines:
                yield self._lines.popleft()
            if self._closed:
                return
            self._news = self._loop.create_future()
            await self._news

    async def readline(self) -> bytes:
        """The next line; nothing at the end."""
        return await anext(aiter(self), b"")

    async def read(self) -> bytes:
        """All of it, at the end."""
        return b"".join([line async for line in self])

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class Subprocess:
    """What `asyncio.create_subprocess_exec` returns, of a simulated child."""

    def __init__(self, loop: SimulatedLoop, process: Process) -> None:
        self.process = process
        self.stdin, self.stdout, self.stderr = Pipe(loop), Pipe(loop), Pipe(loop)
        self.terminated = False
        process.exit.add_done_callback(lambda _: self._hang_up(), context=loop.world_context)

    @property
    def pid(self) -> int:
        """Its number, and that of its group."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, once it has one."""
        return self.process.exit.result() if self.process.exit.done() else None

    async def wait(self) -> int:
        """Wait for its end."""
        done: Any = self.process.exit
        if not done.done():
            waiter = done.get_loop().create_future()
            done.add_done_callback(lambda _: waiter.done() or waiter.set_result(None))
            await waiter
        return int(done.result())

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def terminate(self) -> None:
        """SIGTERM; the program looks for itself."""
        self.terminated = True

    def _hang_up(self) -> None:
        self.stdout.close()
        self.stderr.close()


class Machines:
    """Starts programs, and delivers signals.

    Args:
        loop: the simulation.
        programs: by module name, what `python -m` runs.
    """

    def __init__(self, loop: SimulatedLoop, programs: dict[str, Program]) -> None:
        self._loop = loop
        self._programs = programs
        self._children: dict[int, Process] = {}

    async def create_subprocess_exec(self, *command: str, **_: Any) -> Subprocess:
        """See asyncio."""
        module = command[command.index("-m") + 1]
        parent = PROCESS.get()
        process = self._loop.process(f"{parent.name}/{module}", parent.machine, parent)
        child = Subprocess(self._loop, process)
        self._children[process.pid] = process

        async def run() -> None:
            code = await self._programs[module](child, command)
            if process.alive:
                process.kill(code)

        process.spawn(run())
        return child

    def killpg(self, group: int, number: int) -> None:
        """See os."""
        process = self._children.get(group)
        if process is None or not process.alive:
            raise ProcessLookupError
        if number == signal.SIGKILL:
            process.kill()


class ObjectServer(SimulatedObjects):
    """The bucket, with its history; a read may be wrong.

    Attributes:
        garble: probability that a read returns a wrong byte.
    """

    def __init__(self, loop: SimulatedLoop, history: History) -> None:
        super().__init__()
        self._loop, self._history = loop, history
        self.garble = 0.0

    def put_object(self, *, object_name: str, data: Any, length: int, **_: Any) -> None:
        """See minio."""
        super().put_object(object_name=object_name, data=data, length=length)
        self._history.removed.discard(object_name)
        digest = hashlib.sha256(self.objects[object_name]).hexdigest()
        self._history.stored.setdefault(object_name, (self._loop.time(), digest))

    def remove_object(self, *, object_name: str, **_: Any) -> None:
        """See minio."""
        if object_name in self.objects:
            self._history.removed.add(object_name)
        super().remove_object(object_name=object_name)

    def get_object(self, *, object_name: str, **_: Any) -> Any:
        """See minio."""
        found = super().get_object(object_name=object_name)
        if self.garble and (body := self.objects[object_name]) and self._loop.random.random() < self.garble:
            place = self._loop.random.randrange(len(body))
            found = stored(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :])
        return found


@contextmanager
def patched(loop: SimulatedLoop, machines: Machines, seed: int) -> Iterator[None]:
    """Let code that asks for the time, chance or a child process ask the simulation."""
    chance = Random(seed)

    def wall() -> float:
        return EPOCH + loop.time() + PROCESS.get(loop.world).wall_offset

    def getppid() -> int:
        parent = PROCESS.get(loop.world).parent
        return parent.pid if parent and parent.alive else 1

    def tie(*_: int) -> None:
        PROCESS.get(loop.world).tied = True

    def leave(code: int) -> None:
        PROCESS.get(loop.world).kill(code)
        raise Exited

    with ExitStack() as stack:
        for target, name, value in (
            (time, "time", wall),
            (time, "time_ns", lambda: int(wall() * 1e9)),
            (time, "monotonic", lambda: 1000.0 + loop.time()),
            (secrets, "token_hex", lambda size: f"{chance.getrandbits(8 * size):0{2 * size}x}"),
        ):
            stack.enter_context(patch.object(target, name, value))
        stack.enter_context(patch("asyncio.create_subprocess_exec", machines.create_subprocess_exec))
        stack.enter_context(patch("os.killpg", machines.killpg))
        stack.enter_context(patch("os.getpid", lambda: PROCESS.get(loop.world).pid))
        stack.enter_context(patch("os.getppid", getppid))
        stack.enter_context(patch("os._exit", leave))
        stack.enter_context(patch("ctypes.CDLL", lambda *_, **__: SimpleNamespace(prctl=tie)))
        stack.enter_context(patch("random.uniform", chance.uniform))
        yield
