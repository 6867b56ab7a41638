"""Forks training runs from a process that has loaded torch, so that a short run is not mostly the start of one.

The worker holds a `ForkServer`; its process is `python -m trainer.run.fork_server PARENT_PID NICENESS`, which takes
orders from the socket that is its standard input. It has none of the service's credentials, and a run shares nothing
with the runs before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from asyncio.subprocess import Process
from dataclasses import dataclass
from pathlib import Path

from chassis.children import die_with_parent
from chassis.exhaustion import exhaustion_named
from trainer.run.config import RunConfig
from trainer.run.main import ENVIRONMENT, train

IDLE_SECONDS = 120.0
"""How long it keeps its memory, about 300 MiB, when nothing is trained."""

RUN_NAME = "sartor-train"
"""Name of a run among the machine's processes."""

START_SECONDS = 180.0
"""Within which a run is to be forked, the loading of torch included."""

LONGEST_MESSAGE = 65_536
LONGEST_LINE = 2**20


class Run:
    """One forked run, as `asyncio.subprocess.Process` shows a process.

    Attributes:
        pid: its number, and that of its process group.
        stdout: what it says.
        stderr: its last words.
    """

    def __init__(self, pid: int, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        """Once it has ended; negative for a signal."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Its end."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """Ask it to save itself and end."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, with whatever it started."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self, code: int) -> None:
        """Note that it has ended."""
        if not self._ended.done():
            self._ended.set_result(code)


@dataclass(frozen=True)
class _Order:
    """The run that was ordered last."""

    forked: asyncio.Future[Run]
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader


class ForkServer:
    """The worker's side: starts the process when a run needs it, and again when it is gone.

    Args:
        niceness: how far it, and every run, gives way to whatever else wants the cores (nice(2)).
    """

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness
        self._socket: socket.socket | None = None
        self._listening: asyncio.Task[None] | None = None
        self._order: _Order | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self, folder: Path) -> Run:
        """Start the run described by `folder / "run.json"`; seconds where torch is to be loaded first.

        Raises:
            RuntimeError: no process could be forked.
            TimeoutError: not within `START_SECONDS`.
        """
        async with self._one_at_a_time, asyncio.timeout(START_SECONDS):
            try:
                for _ in range(2):  # the first may have just gone to rest
                    with contextlib.suppress(ConnectionError):
                        return await self._fork(folder)
            except asyncio.CancelledError:  # nobody would know of a run that is forked now
                await self.close()
                raise
        raise RuntimeError(
            "the process that training runs are forked from ended at once; its last words are in the log"
        )

    async def close(self) -> None:
        """End it, and whatever it still trains."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._listening is not None:
            await asyncio.gather(self._listening, return_exceptions=True)

    async def _fork(self, folder: Path) -> Run:
        if self._socket is None:
            await self._wake()
        with contextlib.ExitStack() as said:
            readers = []
            for _ in range(2):
                reading, writing = os.pipe()
                said.callback(os.close, writing)
                readers.append((await _reader(reading), writing))
            (stdout, out), (stderr, err) = readers
            if self._socket is None:
                raise ConnectionError
            self._order = _Order(asyncio.get_running_loop().create_future(), stdout, stderr)
            socket.send_fds(self._socket, [str(folder).encode()], [out, err])
        return await self._order.forked

    async def _wake(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                with exhaustion_named(always=True):
                    process = await asyncio.create_subprocess_exec(
                        sys.executable,
                        "-m",
                        "trainer.run.fork_server",
                        str(os.getpid()),
                        str(self._niceness),
                        stdin=its.fileno(),
                        stdout=asyncio.subprocess.DEVNULL,
                        env=_environment(),
                        start_new_session=True,
                    )
            except BaseException:  # also where it was cancelled
                ours.close()
                raise
        ours.setblocking(False)
        self._socket = ours
        self._listening = asyncio.create_task(self._listen(ours, process))

    async def _listen(self, orders: socket.socket, process: Process) -> None:
        """Until it is gone; with it go its runs."""
        loop = asyncio.get_running_loop()
        runs: dict[int, Run] = {}
        try:
            with orders, contextlib.suppress(ConnectionError):
                while message := await loop.sock_recv(orders, LONGEST_MESSAGE):
                    pid, code = json.loads(message)
                    if code is not None:
                        runs.pop(pid).end(code)
                    elif self._order is not None:
                        runs[pid] = Run(pid, self._order.stdout, self._order.stderr)
                        if not self._order.forked.done():
                            self._order.forked.set_result(runs[pid])
        finally:
            if self._socket is orders:
                self._socket = None
                if self._order is not None and not self._order.forked.done():
                    self._order.forked.set_exception(ConnectionError())
            if process.returncode is None:  # asyncio's own kill() may take the exit code from those who wait for it
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            for run in runs.values():
                run.end(-signal.SIGKILL)


async def _reader(pipe: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(pipe, "rb", buffering=0))
    return reader


def _environment() -> dict[str, str]:
    """None of this service's credentials."""
    return ENVIRONMENT | {name: value for name, value in os.environ.items() if not name.startswith("SARTOR_")}


def main() -> None:
    """Fork a run for each order, and tell how it ended, until the worker hangs up or is gone."""
    die_with_parent(int(sys.argv[1]))
    _give_way(int(sys.argv[2]))
    orders = socket.socket(fileno=0)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    import trainer.run.recipe  # noqa: F401

    living: set[int] = set()
    while True:
        ready, _, _ = select.select([orders.fileno(), woken], [], [], None if living else IDLE_SECONDS)
        if not ready:
            return
        if woken in ready:
            os.read(woken, LONGEST_MESSAGE)
            _tell_ends(orders, living)
        if orders.fileno() in ready:
            folder, pipes, _, _ = socket.recv_fds(orders, LONGEST_MESSAGE, 2)
            if not folder:
                return
            living.add(_fork(Path(folder.decode()), orders, pipes))


def _give_way(niceness: int) -> None:
    """Leave the cores to others where they want them.

    A session of its own, as this is, may be a group whose processes' niceness counts among themselves only: it has one
    too (sched(7), "The autogroup feature").
    """
    os.nice(niceness)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))


def _fork(folder: Path, orders: socket.socket, pipes: list[int]) -> int:
    _load_architecture(folder)
    gc.freeze()  # a collection in a run would copy every page it looks at
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        os._exit(_run(folder, own, orders, pipes))
    with contextlib.suppress(OSError):  # it may be over
        os.setpgid(pid, pid)  # here as well as there: whoever is told of it may kill the group
    for pipe in pipes:
        os.close(pipe)
    orders.send(json.dumps([pid, None]).encode())
    return pid


def _run(folder: Path, parent: int, orders: socket.socket, pipes: list[int]) -> int:
    """A run's whole life; its exit code."""
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(RUN_NAME)
        os.close(signal.set_wakeup_fd(-1))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pipe, number in zip(pipes, (1, 2), strict=True):
            os.dup2(pipe, number)
            os.close(pipe)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, orders.detach())
        return train(folder)
    except BaseException:  # what would end an interpreter, told as an interpreter tells it
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()


def _tell_ends(orders: socket.socket, living: set[int]) -> None:
    for pid in sorted(living):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            living.remove(pid)
            orders.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())


def _load_architecture(folder: Path) -> None:
    """Load the code of the run's base model; a run whose base is not as it should be says so itself."""
    import transformers

    with contextlib.suppress(Exception):
        base_dir = Path(RunConfig.read(folder / "run.json").base_dir)
        config = json.loads((base_dir / "config.json").read_text())
        for name in config["architectures"]:
            getattr(transformers, name)


if __name__ == "__main__":
    main()
