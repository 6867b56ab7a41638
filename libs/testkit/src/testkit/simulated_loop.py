"""A deterministic machine room: processes, clocks and a network on an event loop whose time is virtual.

This simulates the network and the operating system so that a seed chooses the schedule: which process runs next, how
long a call takes, which acknowledgement is lost, who is killed or stopped at which await. It runs the real code of the
services. It is not an in-memory twin of Kafka, MongoDB or the object store on which to prove delivery: that they do
what is assumed here is shown by the tests on the local stack.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_800_000_000.0
"""Unix time at which every simulation begins."""

STUCK_STEPS = 2_000_000

FIRST_PID = 1 << 30
"""Above every number a real process can have, so that no signal meant for a simulated one can reach a real one."""


class Process:
    """One operating-system process: what runs in it can be killed or stopped between any two awaits.

    Attributes:
        name: for people, unique for each start.
        machine: processes of one machine are cut off, and stopped, together.
        wall_offset: seconds by which its clock is wrong.
        tied: whether it dies with its parent.
    """

    def __init__(self, loop: SimulatedLoop, name: str, machine: str, pid: int, parent: Process | None = None) -> None:
        self.name, self.machine, self.pid = name, machine, pid
        self.alive, self.stopped, self.tied = True, False, False
        self.parent = parent
        self.wall_offset: float = parent.wall_offset if parent else 0.0
        self.ready: deque[asyncio.Handle] = deque()
        self.children: list[Process] = []
        self.exit: asyncio.Future[int] = loop.create_future()
        self.on_death: list[Callable[[], None]] = []
        self._loop = loop
        if parent:
            parent.children.append(self)

    def context(self) -> contextvars.Context:
        """A context in which tasks belong to this process."""
        context = contextvars.Context()
        context.run(PROCESS.set, self)
        return context

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in this process."""
        return self._loop.create_task(work, context=self.context())

    def kill(self, code: int = -9) -> None:
        """End it at once, with the children tied to it: no `finally` runs, no callback comes back (SIGKILL)."""
        if not self.alive:
            return
        self.alive = False
        self.ready.clear()
        self._loop.not_runnable(self)
        for child in self.children:
            if child.tied:
                child.kill()
        for told in self.on_death:
            told()
        if not self.exit.done():
            self.exit.set_result(code)

    def stop(self) -> None:
        """Stand still (SIGSTOP) until `go_on`; what it waits for goes on."""
        self.stopped = True
        self._loop.not_runnable(self)

    def go_on(self) -> None:
        """SIGCONT: all that came meanwhile is there at once."""
        self.stopped = False
        if self.alive and self.ready:
            self._loop.is_runnable(self)


PROCESS: ContextVar[Process] = ContextVar("simulated_process")


class SimulatedLoop(asyncio.AbstractEventLoop):
    """An event loop with virtual time; among the processes that can run, the seed chooses.

    Within a process callbacks run in the order they were scheduled, as asyncio promises.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.steps = 0
        self._now = 0.0
        self._count = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._runnable: list[Process] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._pids = FIRST_PID
        self.errors: list[dict[str, Any]] = []
        self.network: Network | None = None
        self.world = Process(self, "world", "world", 1)
        self.world_context = self.world.context()

    def process(self, name: str, machine: str, parent: Process | None = None) -> Process:
        """Start a process."""
        self._pids += 1
        return Process(self, name, machine, self._pids, parent)

    def is_runnable(self, process: Process) -> None:
        """It has something to run."""
        if process not in self._runnable:
            self._runnable.append(process)

    def not_runnable(self, process: Process) -> None:
        """It was killed or stopped."""
        if process in self._runnable:
            self._runnable.remove(process)

    def run_until(self, over: Callable[[], bool]) -> None:
        """Run until `over()`, or nothing is left to do."""
        asyncio._set_running_loop(self)
        try:
            while not over():
                if not self._runnable:
                    if not self._timers:
                        return
                    self._advance()
                    continue
                if self.steps > STUCK_STEPS:
                    raise AssertionError("the simulation does not come to an end")
                self._step()
        finally:
            asyncio._set_running_loop(None)

    def _step(self) -> None:
        ready = self._runnable
        index = int(self.random.random() * len(ready)) if len(ready) > 1 else 0
        process = ready[index]
        handle = process.ready.popleft()
        if not process.ready:
            ready.pop(index)
        if not handle.cancelled():
            self.steps += 1
            handle._run()

    def _advance(self) -> None:
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            _, _, handle = heapq.heappop(self._timers)
            if not handle.cancelled():
                self._enqueue(handle)

    def _enqueue(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(PROCESS, self.world)  # type: ignore[attr-defined]
        if not process.alive:
            return
        process.ready.append(handle)
        if not process.stopped and len(process.ready) == 1:
            self.is_runnable(process)

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by asyncio; a cancelled timer is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """See asyncio."""
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        """See asyncio; tasks are kept, as those of a killed process must not be closed by the garbage collector."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 - asyncio gives it
        func: Any,
        *args: Any,
    ) -> Any:
        """What a thread would do is a call to the object store here."""
        assert self.network is not None
        return self.network.call("objects", lambda: func(*args))

    def get_debug(self) -> bool:
        """See asyncio."""
        return False

    def is_running(self) -> bool:
        """See asyncio."""
        return True

    def is_closed(self) -> bool:
        """See asyncio."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody caught."""
        self.errors.append(context)

    def discard(self) -> None:
        """Let go of everything, quietly, while the simulation still stands in for the machine.

        Coroutines that are not over are closed here, not by the garbage collector at some later time: their `finally`
        blocks must find nothing real.
        """
        for process in self._runnable:
            process.alive = False
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        self._timers.clear()
        for process in self._runnable:
            process.ready.clear()
        self._runnable.clear()
        self._tasks.clear()


def _close(work: Any) -> None:
    for _ in range(9):  # once more for each `await` in its `finally` blocks
        try:
            work.close()
        except BaseException:  # noqa: S112 - a dying coroutine has nobody to tell; a group of GeneratorExit is no Exception
            continue
        return


def _no_answer(error: Exception) -> bool:
    """Whether a server's simulation lacks something: what a server says is an error of its client or the system."""
    return type(error).__module__ == "builtins" and not isinstance(error, OSError)


class Network:
    """Calls between processes and the servers: each takes its time, and may get lost on either way.

    Attributes:
        away: servers that answer nobody.
        cut: (machine, server) pairs that cannot reach each other.
        lose_request: probability that a call never arrives.
        lose_answer: probability that it has its effect and the caller is not told.
        slow: probability that it takes seconds.
        caller: name of the process whose call the server is carrying out.
        unanswered: what was asked of a server that the simulation has no answer to; the product may well hide it.
    """

    def __init__(
        self, loop: SimulatedLoop, errors: dict[str, Callable[[], BaseException]], unanswered: list[str]
    ) -> None:
        self._loop = loop
        self._errors = errors
        self.away: set[str] = set()
        self.cut: set[tuple[str, str]] = set()
        self.lose_request = self.lose_answer = self.slow = 0.0
        self.lost = 0
        self.caller = ""
        self.unanswered = unanswered
        loop.network = self

    def call(self, server: str, operation: Callable[[], Any]) -> asyncio.Future[Any]:
        """Have `operation` done at a server, whatever becomes of the caller meanwhile."""
        loop, random = self._loop, self._loop.random
        answer = loop.create_future()
        world = loop.world_context

        def settle(set_it: Callable[[Any], None], value: Any) -> None:
            if not answer.done():
                set_it(value)

        def give_up(after: float) -> None:
            self.lost += 1
            loop.call_later(after, settle, answer.set_exception, self._errors[server](), context=world)

        def arrive() -> None:
            self.caller = caller.name
            try:
                value, set_it = operation(), answer.set_result
            except Exception as error:  # whatever the server says is for the caller
                value, set_it = error, answer.set_exception
                if _no_answer(error):
                    self.unanswered.append(f"{server}: {type(error).__name__}: {error}")
            if self.lose_answer and random.random() < self.lose_answer:
                give_up(random.uniform(0.1, 3.0))
            elif isinstance(value, asyncio.Future):
                value.add_done_callback(lambda done: settle(answer.set_result, done.result()), context=world)
            else:
                loop.call_later(self._takes(), settle, set_it, value, context=world)

        caller = PROCESS.get(loop.world)
        unreachable = server in self.away or (caller.machine, server) in self.cut
        if unreachable or (self.lose_request and random.random() < self.lose_request):
            give_up(random.uniform(0.1, 3.0))
        else:
            loop.call_later(self._takes(), arrive, context=world)
        return answer

    def _takes(self) -> float:
        random = self._loop.random
        if self.slow and random.random() < self.slow:
            return random.uniform(0.5, 12.0)
        return 0.0005 + random.random() * 0.004
