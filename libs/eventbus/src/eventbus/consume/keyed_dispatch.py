"""Messages of different keys side by side, those of one key one after the other, and commits of what is done only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from eventbus.messages.message import Message

log = structlog.get_logger()

MOST_AT_A_TIME = 256
"""Messages taken and not done; with so many, the consumer waits. Enough that those being tried again leave room."""

COMMIT_SECONDS = 0.1
"""Between commits: what is done since is done again after a kill."""

AGAIN_SECONDS = 1.0
"""Before a commit that failed is made again."""

COMMIT_DEADLINE_SECONDS = 5.0
LET_GO_SECONDS = 5.0
"""How long a rebalance waits for what is under way."""


Deferred = Coroutine[Any, Any, None]
"""Work on a message that is still to be done, for which its key need not wait."""


@dataclass
class PartitionProgress:
    """How far a partition is done, since it was assigned.

    Attributes:
        done_until: the offset to commit; everything before it is done.
        committed: the one committed last.
        current: whether the partition is still ours by the assignment it was read under.
    """

    done_until: int | None = None
    committed: int | None = None
    current: bool = True
    _first: int | None = None
    _taken: deque[int] = field(default_factory=deque)
    _done: set[int] = field(default_factory=set)

    def take(self, offset: int) -> None:
        """A message was read."""
        if self._first is None:
            self._first = offset
        self._taken.append(offset)

    def finish(self, offset: int) -> None:
        """It is done."""
        self._done.add(offset)
        while self._taken and self._taken[0] in self._done:
            first = self._taken.popleft()
            self._done.discard(first)
            self.done_until = first + 1

    @property
    def uncommitted(self) -> int | None:
        """The offset from which on messages were read and are not committed; None where there are none."""
        if not self._taken and self.done_until == self.committed:
            return None
        return self._first if self.committed is None else self.committed


Queue = deque[tuple[PartitionProgress, Message]]
"""The messages of one key, each with the progress of its partition."""


class KeyedDispatch(ConsumerRebalanceListener):  # type: ignore[misc]
    """One queue for each key that has messages.

    A partition is committed up to its first message that is not done, so a kill repeats messages and loses none. When
    partitions are taken away, what has begun is finished and committed, what has not is left to the next owner.

    Args:
        settle: brings one message to its end. What it returns, if anything, is done before the message is committed,
            and does not hold up those of its key.
        assigned: called when partitions were given out anew.
    """

    def __init__(
        self, settle: Callable[[Message], Awaitable[Deferred | None]], assigned: Callable[[], None] = lambda: None
    ) -> None:
        self._settle = settle
        self._assigned = assigned
        self._room = asyncio.Semaphore(MOST_AT_A_TIME)
        self._queues: dict[str, Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deferred: dict[asyncio.Task[None], PartitionProgress] = {}
        self._ended_since_asked = False
        self._progress: dict[TopicPartition, PartitionProgress] = {}
        self._assignment = 0
        self._closed = False
        self._consumer: AIOKafkaConsumer | None = None
        self._news = asyncio.Event()

    async def take(self, consumer: AIOKafkaConsumer, partition: TopicPartition, message: Message) -> None:
        """Put a message behind those of its key; waits while too many are under way.

        Args:
            consumer: that read it.
            partition: where it is committed.
            message: the message.
        """
        self._consumer = consumer
        assignment = self._assignment
        await self._room.acquire()
        if self._closed or assignment != self._assignment:  # not begun: whoever owns the partition now reads it
            self._room.release()
            return
        progress = self._progress.setdefault(partition, PartitionProgress())
        progress.take(message.offset)
        queue = self._queues.setdefault(message.order_key, deque())
        queue.append((progress, message))
        if len(queue) == 1:
            self._start(self._run(message.order_key, queue))

    def _start(self, work: Deferred) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, key: str, queue: Queue) -> None:
        try:
            while queue:
                progress, message = queue[0]
                if not progress.current or self._closed:
                    self._room.release()
                elif deferred := await self._settle(message):
                    task = self._start(self._finish_after(deferred, progress, message.offset))
                    self._deferred[task] = progress
                    task.add_done_callback(self._end_deferred)
                else:
                    self._finish(progress, message.offset)
                    self._room.release()
                queue.popleft()
        finally:
            del self._queues[key]
            for _ in queue:
                self._room.release()

    async def _finish_after(self, deferred: Deferred, progress: PartitionProgress, offset: int) -> None:
        await deferred
        self._finish(progress, offset)

    def _finish(self, progress: PartitionProgress, offset: int) -> None:
        progress.finish(offset)
        self._news.set()
        self._ended_since_asked = True

    def _end_deferred(self, task: asyncio.Task[None]) -> None:
        del self._deferred[task]
        self._room.release()

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken."""
        return self._closed

    def are_pressed(self) -> bool:
        """Whether new messages wait for room while others are done; they do not where all under way are stuck."""
        moving, self._ended_since_asked = self._ended_since_asked, False
        return moving and self._room.locked()

    def uncommitted(self, partition: TopicPartition) -> int | None:
        """See `PartitionProgress.uncommitted`."""
        progress = self._progress.get(partition)
        return progress.uncommitted if progress else None

    async def run_commits(self) -> None:
        """Commit as messages are done, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            if await self._commit():
                await asyncio.sleep(COMMIT_SECONDS)
            else:
                self._news.set()
                await asyncio.sleep(AGAIN_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Take nothing more, let what has begun end, and commit."""
        self._closed = True
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())
        await self._let_end(seconds)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - the interface
        """Finish what has begun and commit it; the rest is not ours any more."""
        before, self._progress = self._progress, {}
        self._assignment += 1
        for progress in before.values():
            progress.current = False
        await self._let_end(LET_GO_SECONDS, before)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - the interface
        """Count anew: the partitions are read from what is committed."""
        self._assignment += 1
        for progress in self._progress.values():
            progress.current = False
        self._progress = {}
        self._assigned()

    async def _let_end(self, seconds: float, partitions: dict[TopicPartition, PartitionProgress] | None = None) -> None:
        clock = asyncio.get_running_loop().time
        ends_at = clock() + seconds
        while self._tasks and clock() < ends_at:  # a key that is done may leave something to do
            await asyncio.wait(set(self._tasks), timeout=ends_at - clock())
        for task, progress in self._deferred.items():
            if self._closed or not progress.current:  # the next owner reads the message again
                task.cancel()
        await self._commit(partitions)

    async def _commit(self, partitions: dict[TopicPartition, PartitionProgress] | None = None) -> bool:
        """Commit what is done; False when that failed, and it is read again after a kill or a rebalance."""
        known = self._progress if partitions is None else partitions
        due = {
            partition: progress.done_until
            for partition, progress in known.items()
            if progress.done_until is not None and progress.done_until != progress.committed
        }
        if not due or self._consumer is None:
            return True
        try:
            async with asyncio.timeout(COMMIT_DEADLINE_SECONDS):
                await self._consumer.commit(due)
        except (KafkaError, TimeoutError) as error:
            log.warning("commit_failed", error=f"{type(error).__name__}: {error}")
            return False
        for partition, offset in due.items():
            known[partition].committed = offset
        return True
