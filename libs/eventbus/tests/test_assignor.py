"""A group is formed by all that its topics are, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError

from chassis.settings import ServiceSettings
from eventbus.consume.assignor import WholeRoundRobin
from runtime import Service
from schemas import DatasetRejected, Event, FileDeleted
from testkit import Space, eventually

FACTS: dict[str, Any] = {"tenant_id": "tenant_a", "file_id": "file-1"}
DELETED = FileDeleted(**FACTS)
REJECTED = DatasetRejected(**FACTS, purpose="user_data", code="empty", message="empty")

UNTOLD: list[str] = []
"""The members that were to form a group by half of what there is."""


@contextmanager
def untold(monkeypatch: pytest.MonkeyPatch, topic: str) -> Iterator[None]:
    """When a group is formed the broker answers for all topics but one, as it does while its storage comes back."""
    update, form = ClusterMetadata.update_metadata, GroupCoordinator._perform_assignment
    forming: set[ClusterMetadata] = set()
    UNTOLD.clear()

    def tell(self: ClusterMetadata, metadata: Any) -> None:
        if self in forming:
            metadata.topics = [
                (-1, name, *rest[:-1], []) if name == topic else (code, name, *rest)
                for code, name, *rest in metadata.topics
            ]
        update(self, metadata)

    async def told_anew(self: GroupCoordinator, response: Any) -> Any:
        forming.add(self._cluster)
        UNTOLD.append(self.member_id)
        await self._client.force_metadata_update()
        return await form(self, response)

    with monkeypatch.context() as patched:
        patched.setattr(ClusterMetadata, "update_metadata", tell)
        patched.setattr(GroupCoordinator, "_perform_assignment", told_anew)
        yield


@dataclass
class Group:
    """Replicas of one service, which keep the events that they handle."""

    space: Space
    got: list[Event] = field(default_factory=list)

    async def keep(self, event: Event) -> None:
        self.got.append(event)

    @asynccontextmanager
    async def started(self, replica: str = "one") -> AsyncIterator[None]:
        service = Service("registry", self.space.settings(ServiceSettings, "registry", replica_id=replica))
        service.bus.subscribe({FileDeleted: self.keep, DatasetRejected: self.keep})
        app = service.app([])
        async with app.router.lifespan_context(app):
            yield

    async def hears(self, publish: Callable[[Event], Awaitable[None]]) -> None:
        """Wait until it has handled an event of each of its topics."""
        for event in (DELETED, REJECTED):
            await publish(event)
        await eventually(lambda: {type(event) for event in self.got} == {FileDeleted, DatasetRejected}, within=40)


async def test_no_service_starts_that_would_be_deaf_to_a_topic(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(space)
    async with space.publisher("ingest") as publish:
        with untold(monkeypatch, f"{space.prefix}-datasets"), pytest.raises(KafkaError, match="no partitions of"):
            async with group.started():
                pass
        async with group.started():
            await group.hears(publish)


async def test_a_group_that_runs_is_formed_when_the_broker_tells_of_all_again(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, heard = Group(space), asyncio.Event()
    async with space.publisher("ingest") as publish, group.started():

        async def joins() -> None:
            with suppress(KafkaError):
                async with group.started("two"):
                    await heard.wait()

        with untold(monkeypatch, f"{space.prefix}-datasets"):
            joining = asyncio.create_task(joins())
            await eventually(lambda: bool(UNTOLD), within=20)
            await asyncio.sleep(1)
        try:
            await group.hears(publish)
        finally:
            heard.set()
            await joining


def test_each_member_gets_its_share_where_all_topics_are_told() -> None:
    cluster = ClusterMetadata()
    members = {name: ConsumerProtocolMemberMetadata(0, ["files", "models"], b"") for name in ("one", "two")}
    told = {"files": {0, 1}, "models": {0, 1}}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cluster, "partitions_for_topic", told.get)
        given = WholeRoundRobin.assign(cluster, members)
        assert {name: sum(len(places) for _, places in one.assignment) for name, one in given.items()} == {
            "one": 2,
            "two": 2,
        }
        for lacking in (None, set()):
            patched.setattr(cluster, "partitions_for_topic", {**told, "models": lacking}.get)
            with pytest.raises(KafkaError, match="no partitions of models"):
                WholeRoundRobin.assign(cluster, members)
