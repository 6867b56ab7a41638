"""A simulated Kafka for `testkit.simulation`: partitions, consumer groups that rebalance, acks that get lost.

It stands where FastStream's broker object stands, so that the bus's own code decides everything else.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import KafkaConnectionError, KafkaError
from faststream import AckPolicy

from testkit.history import Delivery, Entry, History
from testkit.simulation import PROCESS, Network, Process, SimulatedLoop

PARTITIONS = 3
SESSION_SECONDS = 6.0

Place = tuple[str, int]


@dataclass
class Group:
    """One consumer group at its coordinator."""

    name: str
    topics: tuple[str, ...]
    latest: bool
    generation: int = 0
    members: list[str] = field(default_factory=list)
    assignment: dict[str, list[Place]] = field(default_factory=dict)
    committed: dict[Place, int] = field(default_factory=dict)


@dataclass
class Fetch:
    """A member's open request for its next message."""

    group: Group
    member: str
    generation: int
    positions: dict[Place, int]
    answer: asyncio.Future[Entry | None]


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

    def join(self, group: Group, member: str) -> tuple[int, dict[Place, int]]:
        """Take part in a group; returns its generation and where to read from."""
        if member not in group.members:
            group.members.append(member)
            self.rebalance(group)
        mine = group.assignment[member]
        return group.generation, {place: self._start(group, place) for place in mine}

    def leave(self, member: str) -> None:
        """It said goodbye, or was silent too long."""
        for group in self.groups.values():
            if member in group.members:
                group.members.remove(member)
                self.rebalance(group)

    def silent(self, process: Process) -> None:
        """Nothing is heard of a process from now on: its groups go on without it after the session's timeout."""

        def check() -> None:
            cut = (process.machine, "kafka") in self.network.cut
            if not process.alive or process.stopped or cut:
                self.leave(process.name)

        self.loop.call_later(SESSION_SECONDS, check, context=self.loop.world_context)

    def rebalance(self, group: Group) -> None:
        """Deal the partitions anew; whoever works on a message goes on, unaware."""
        group.generation += 1
        group.assignment = {member: [] for member in group.members}
        places = [(topic, number) for topic in group.topics for number in range(PARTITIONS)]
        shift = self.loop.random.randrange(max(1, len(group.members)))
        for index, place in enumerate(places):
            if group.members:
                group.assignment[group.members[(index + shift) % len(group.members)]].append(place)
        self._answer()

    def commit(self, group: Group, member: str, generation: int, place: Place, offset: int) -> None:
        """Remember how far a group is; refused from a member of an older generation."""
        if generation != group.generation or member not in group.members:
            raise KafkaError("illegal generation")
        group.committed[place] = offset

    def fetch(self, fetch: Fetch) -> asyncio.Future[Entry | None]:
        """The member's next message, once there is one; None when it has to join again."""
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

    def _start(self, group: Group, place: Place) -> int:
        default = len(self._entries(place)) if group.latest else 0
        return group.committed.setdefault(place, default)

    def _entries(self, place: Place) -> list[Entry]:
        partitions = self.topics.get(place[0])
        return partitions[place[1]] if partitions else []

    def _answer(self) -> None:
        waiting, self._fetches = self._fetches, []
        for fetch in waiting:
            if fetch.generation != fetch.group.generation or fetch.member not in fetch.group.members:
                fetch.answer.set_result(None)
                continue
            due = [place for place, at in fetch.positions.items() if at < len(self._entries(place))]
            if due:
                place = due[int(self.loop.random.random() * len(due))]
                fetch.answer.set_result(self._entries(place)[fetch.positions[place]])
            else:
                self._fetches.append(fetch)


class SimulatedBroker:
    """What the bus takes for FastStream's `KafkaBroker`, with its acknowledgement policies."""

    def __init__(self, log: SimulatedLog, *_: Any, **__: Any) -> None:
        self._log = log
        self._subscriptions: list[tuple[tuple[str, ...], dict[str, Any], Callable[[Any], Awaitable[None]]]] = []

    def subscriber(self, *topics: str, **options: Any) -> Callable[[Any], Any]:
        """See FastStream."""

        def keep(handler: Callable[[Any], Awaitable[None]]) -> None:
            self._subscriptions.append((topics, options, handler))

        return keep

    async def start(self) -> None:
        """See FastStream."""
        for topics, options, handler in self._subscriptions:
            asyncio.get_running_loop().create_task(self._consume(topics, options, handler))

    async def publish(self, value: bytes, *, topic: str, key: bytes | None, headers: dict[str, str]) -> None:
        """See FastStream."""
        await self._log.network.call("kafka", lambda: self._log.append(topic, key, value, headers))

    async def _consume(self, topics: tuple[str, ...], options: dict[str, Any], handler: Any) -> None:
        log, member = self._log, PROCESS.get().name
        name = options["group_id"] or f"alone-{member}"
        latest = options["auto_offset_reset"] == "latest"
        group = log.groups.setdefault(name, Group(name, topics, latest))
        process = PROCESS.get()
        process.on_death.append(lambda: log.silent(process))
        while True:
            try:
                generation, positions = await log.network.call("kafka", lambda: log.join(group, member))
                await self._read(group, generation, positions, options["ack_policy"], handler)
            except KafkaError:
                await asyncio.sleep(0.5)

    async def _read(
        self, group: Group, generation: int, positions: dict[Place, int], policy: AckPolicy, handler: Any
    ) -> None:
        log, member = self._log, PROCESS.get().name

        async def commit(place: Place, offset: int) -> None:
            while True:  # as aiokafka does, until the coordinator answers
                try:
                    await log.network.call("kafka", lambda: log.commit(group, member, generation, place, offset))
                except KafkaConnectionError:
                    await asyncio.sleep(0.1)
                except KafkaError:  # FastStream logs it; the message comes again after the rebalance
                    return
                else:
                    return

        while True:
            fetch = Fetch(group, member, generation, dict(positions), log.loop.create_future())
            entry: Entry | None = await log.network.call("kafka", lambda fetch=fetch: log.fetch(fetch))  # type: ignore[misc]
            if entry is None:
                return
            place = (entry.topic, entry.partition)
            if policy is AckPolicy.ACK_FIRST:
                await commit(place, entry.offset + 1)
            delivery = Delivery(group.name, member, entry, log.loop.time())
            log.history.deliveries.append(delivery)
            try:
                await handler(SimpleNamespace(raw_message=entry, headers=entry.headers))
                delivery.ended, delivery.done = log.loop.time(), True
            except Exception as error:  # what FastStream does with it depends on the policy
                delivery.ended, delivery.error = log.loop.time(), f"{type(error).__name__}: {error}"
                if policy is AckPolicy.NACK_ON_ERROR:
                    await asyncio.sleep(0.1)
                    continue
            positions[place] = entry.offset + 1
            if policy not in (AckPolicy.ACK_FIRST, AckPolicy.MANUAL):
                await commit(place, entry.offset + 1)
