"""A simulated Kafka for `testkit.simulated_loop`: partitions, consumer groups that rebalance, acks that get lost.

It stands where FastStream's broker object and aiokafka's consumer stand, so that the bus's own code decides everything
else.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaError

from testkit.simulated_loop import PROCESS, Network, Process, SimulatedLoop
from tests.simulation.history import Delivery, Entry, History

PARTITIONS = 3
SESSION_SECONDS = 6.0
HEARTBEAT_SECONDS = 1.0
AGAIN_SECONDS = 0.5

Place = tuple[str, int]


@dataclass
class Group:
    """One consumer group at its coordinator.

    While it is `preparing`, members hand over and join again; commits of the last generation still count.
    """

    name: str
    topics: tuple[str, ...]
    latest: bool
    generation: int = 0
    preparing: bool = False
    members: list[str] = field(default_factory=list)
    joined: dict[str, asyncio.Future[int]] = field(default_factory=dict)
    assignment: dict[str, list[Place]] = field(default_factory=dict)
    committed: dict[Place, int] = field(default_factory=dict)


@dataclass
class Fetch:
    """A consumer's open request for its next message."""

    positions: dict[Place, int]
    answer: asyncio.Future[Entry | None]

    def end(self, entry: Entry | None = None) -> None:
        """Answer it."""
        if not self.answer.done():
            self.answer.set_result(entry)


class SimulatedLog:
    """The topics and the groups' coordinators.

    Attributes:
        duplicate: probability that a producer's own retry stores a message twice.
    """

    def __init__(self, loop: SimulatedLoop, network: Network, history: History) -> None:
        self.loop, self.network, self.history = loop, network, history
        self.topics: dict[str, list[list[Entry]]] = {}
        self.groups: dict[str, Group] = {}
        self.duplicate = 0.0
        self._fetches: list[Fetch] = []

    def append(self, topic: str, key: bytes | None, value: bytes, headers: dict[str, str]) -> None:
        """Store a message."""
        count = 1 if topic.endswith("-dlq") else PARTITIONS
        partitions = self.topics.setdefault(topic, [[] for _ in range(count)])
        number = zlib.crc32(key or b"") % count
        copies = 2 if self.duplicate and self.loop.random.random() < self.duplicate else 1
        for _ in range(copies):
            entry = Entry(topic, number, len(partitions[number]), key, value, dict(headers), self.loop.time())
            partitions[number].append(entry)
            self.history.entries.append(entry)
        self._answer()

    def join(self, group: Group, process: Process) -> asyncio.Future[int]:
        """Take part in the group's next generation; answered with its number once all members have joined."""
        member = process.name
        if member not in group.members:
            group.members.append(member)
        self.silent(process)  # what it sent may come after its death
        self.rebalance(group)
        joined: asyncio.Future[int] = self.loop.create_future()
        group.joined[member] = joined
        self._complete(group)
        return joined

    def leave(self, member: str) -> None:
        """It said goodbye, or was silent too long."""
        for group in self.groups.values():
            if member in group.members:
                self.rebalance(group)
                group.members.remove(member)
                group.joined.pop(member, None)
                self._complete(group)

    def silent(self, process: Process) -> None:
        """Nothing is heard of a process from now on: its groups go on without it after the session's timeout."""

        def check() -> None:
            cut = (process.machine, "kafka") in self.network.cut
            if not process.alive or process.stopped or cut:
                self.leave(process.name)

        self.loop.call_later(SESSION_SECONDS, check, context=self.loop.world_context)

    def rebalance(self, group: Group) -> None:
        """Have all members join again, as they learn with their next heartbeats."""
        if not group.preparing:
            group.preparing, group.joined = True, {}

    def is_current(self, group: Group, member: str, generation: int) -> bool:
        """What a heartbeat asks; False when the member has to join again."""
        return member in group.members and generation == group.generation and not group.preparing

    def commit(self, group: Group, member: str, generation: int, offsets: dict[Place, int]) -> None:
        """Remember how far a group is; refused from a member of an older generation."""
        if generation != group.generation or member not in group.members:
            raise KafkaError("illegal generation")
        group.committed |= offsets

    def positions(self, group: Group, places: list[Place]) -> dict[Place, int]:
        """Where to read on."""
        return {
            place: group.committed.setdefault(place, len(self.entries(place)) if group.latest else 0)
            for place in places
        }

    def fetch(self, fetch: Fetch) -> asyncio.Future[Entry | None]:
        """The next message, once there is one; None when nobody waits for it any more."""
        self._fetches.append(fetch)
        self._answer()
        return fetch.answer

    def behind(self, group: Group) -> int:
        """Messages of its topics that it has not committed."""
        return sum(
            len(entries) - group.committed.get((topic, number), 0)
            for topic in group.topics
            for number, entries in enumerate(self.topics.get(topic, []))
        )

    def entries(self, place: Place) -> list[Entry]:
        """The messages of a partition."""
        partitions = self.topics.get(place[0])
        return partitions[place[1]] if partitions else []

    def _complete(self, group: Group) -> None:
        """Deal the partitions anew, once all have joined."""
        if any(member not in group.joined for member in group.members):
            return
        group.preparing = False
        group.generation += 1
        group.assignment = {member: [] for member in group.members}
        places = [(topic, number) for topic in group.topics for number in range(PARTITIONS)]
        shift = self.loop.random.randrange(max(1, len(group.members)))
        for index, place in enumerate(places):
            if group.members:
                group.assignment[group.members[(index + shift) % len(group.members)]].append(place)
        for joined in group.joined.values():
            joined.set_result(group.generation)

    def _answer(self) -> None:
        waiting, self._fetches = self._fetches, []
        for fetch in waiting:
            due = [place for place, at in fetch.positions.items() if at < len(self.entries(place))]
            if due:
                place = due[int(self.loop.random.random() * len(due))]
                fetch.end(self.entries(place)[fetch.positions[place]])
            elif not fetch.answer.done():
                self._fetches.append(fetch)


class SimulatedConsumer:
    """What the bus takes for aiokafka's consumer: one task keeps it in its group, another reads what it was dealt.

    As in aiokafka, the listener is told before it joins again and may still commit; nothing is handed out from then on
    until the partitions are dealt anew.
    """

    def __init__(self, log: SimulatedLog, group: Group, grouped: bool, listener: Any, handler: Any) -> None:
        self._log, self._group, self._grouped = log, group, grouped
        self._listener, self._handler = listener, handler
        self._process = PROCESS.get()
        self._member = self._process.name
        self._generation = 0
        self._dealt: list[Place] = []
        self._ours = asyncio.Event()
        self._positions: dict[Place, int] | None = None
        self._fetch: Fetch | None = None
        self._paused = False
        self._open: list[Delivery] = []
        self._asked = self._answered = 0

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to take part, and to read."""
        if not self._grouped:
            self._dealt = [(topic, number) for topic in self._group.topics for number in range(PARTITIONS)]
            self._ours.set()
        work = (self._take_part(), self._read()) if self._grouped else (self._read(),)
        return [asyncio.get_running_loop().create_task(one) for one in work]

    def assignment(self) -> frozenset[TopicPartition]:
        """See aiokafka."""
        return frozenset(TopicPartition(*place) for place in self._dealt)

    def pause(self, *_: TopicPartition) -> None:
        """See aiokafka; all of them here."""
        self._paused = True

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """See aiokafka: it asks until the coordinator answers.

        Raises:
            KafkaError: the coordinator refuses, or the partitions are not ours.
        """
        places = {(place.topic, place.partition): offset for place, offset in offsets.items()}
        self._asked += 1
        number = self._asked

        def commit(generation: int) -> None:
            if number >= self._answered:  # a connection keeps its order: an earlier request was done before
                self._answered = number
                self._log.commit(self._group, self._member, generation, places)

        while True:
            if any(place not in self._dealt for place in places):
                raise IllegalStateError("not assigned")
            try:
                await self._call(partial(commit, self._generation))
            except KafkaConnectionError:
                await asyncio.sleep(0.1)
            else:
                self._end_deliveries(places)
                return

    def _call(self, operation: Callable[[], Any]) -> Any:
        return self._log.network.call("kafka", operation)

    async def _take_part(self) -> None:
        while True:
            self._ours.clear()
            if self._fetch is not None:
                self._fetch.end()
            if self._generation:
                await self._listener.on_partitions_revoked(self.assignment())
            await self._join()
            self._end_deliveries({})
            self._positions = None
            self._ours.set()
            await self._listener.on_partitions_assigned(self.assignment())
            current = True
            while current:
                await asyncio.sleep(HEARTBEAT_SECONDS)
                try:
                    current = await self._call(
                        lambda: self._log.is_current(self._group, self._member, self._generation)
                    )
                except KafkaConnectionError:
                    continue

    async def _join(self) -> None:
        def dealt() -> list[Place] | None:
            current = self._log.is_current(self._group, self._member, self._generation)
            return list(self._group.assignment[self._member]) if current else None

        while True:
            try:
                self._generation = await self._call(lambda: self._log.join(self._group, self._process))
                places = await self._call(dealt)
            except KafkaConnectionError:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if places is not None:
                self._dealt = places
                return

    async def _read(self) -> None:
        while True:
            await self._ours.wait()
            generation = self._generation
            try:
                if self._positions is None:
                    places = self._dealt
                    found = await self._call(lambda: self._log.positions(self._group, places))  # noqa: B023
                    if generation == self._generation and self._ours.is_set():
                        self._positions = found
                    continue
                self._fetch = Fetch(dict(self._positions), self._log.loop.create_future())
                entry = await self._call(lambda: self._log.fetch(self._fetch))  # type: ignore[arg-type]
            except KafkaConnectionError:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if entry is None or generation != self._generation or not self._ours.is_set():
                continue
            if self._paused:
                return
            self._positions[entry.topic, entry.partition] = entry.offset + 1
            await self._deliver(entry)

    async def _deliver(self, entry: Entry) -> None:
        delivery = Delivery(self._group.name, self._member, entry, self._log.loop.time())
        self._log.history.deliveries.append(delivery)
        self._open.append(delivery)
        await self._handler(SimpleNamespace(raw_message=entry, headers=entry.headers, consumer=self))
        if not self._grouped:
            self._end_deliveries({(entry.topic, entry.partition): entry.offset + 1})

    def _end_deliveries(self, committed: dict[Place, int]) -> None:
        """Note which messages are committed; without any, that the others are not ours any more."""
        for one in self._open:
            one.done = one.entry.offset < committed.get((one.entry.topic, one.entry.partition), 0)
            if one.done or not committed:
                one.ended = self._log.loop.time()
        self._open = [one for one in self._open if one.ended is None]


@dataclass
class Subscription:
    """What the bus takes for FastStream's subscriber; without a `consumer` that could be measured."""

    topics: tuple[str, ...]
    options: dict[str, Any]
    handler: Callable[[Any], Awaitable[None]] | None = None
    consumer: None = None

    def __call__(self, handler: Callable[[Any], Awaitable[None]]) -> None:
        """See FastStream."""
        self.handler = handler


class SimulatedBroker:
    """What the bus takes for FastStream's `KafkaBroker`; its subscribers acknowledge by hand."""

    def __init__(self, log: SimulatedLog, *_: Any, **__: Any) -> None:
        self._log = log
        self._subscriptions: list[Subscription] = []
        self._tasks: list[asyncio.Task[None]] = []

    def subscriber(self, *topics: str, **options: Any) -> Subscription:
        """See FastStream."""
        self._subscriptions.append(Subscription(topics, options))
        return self._subscriptions[-1]

    async def start(self) -> None:
        """See FastStream."""
        process = PROCESS.get()
        for one in self._subscriptions:
            topics, options, handler = one.topics, one.options, one.handler
            latest, name = options["auto_offset_reset"] == "latest", options["group_id"]
            group = self._log.groups.setdefault(
                name or f"alone-{process.name}", Group(name or f"alone-{process.name}", topics, latest)
            )
            consumer = SimulatedConsumer(self._log, group, bool(name), options.get("listener"), handler)
            self._tasks += consumer.start()
        process.on_death.append(lambda: self._log.silent(process))

    async def publish(self, value: bytes, *, topic: str, key: bytes | None, headers: dict[str, str]) -> None:
        """See FastStream."""
        await self._log.network.call("kafka", lambda: self._log.append(topic, key, value, headers))

    async def stop(self) -> None:
        """See FastStream."""
        for task in self._tasks:
            task.cancel()
        self._log.leave(PROCESS.get().name)
