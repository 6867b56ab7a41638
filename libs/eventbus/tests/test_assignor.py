"""A group is formed by all that its topics are, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
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


@contextmanager
def untold(monkeypatch: pytest.MonkeyPatch, topic: str) -> Iterator[None]:
    """When a group is formed the broker answers for all topics but one, as it does while its storage comes back."""
    update, form = ClusterMetadata.update_metadata, GroupCoordinator._perform_assignment
    forming: set[ClusterMetadata] = set()

    def tell(self: ClusterMetadata, metadata: Any) -> None:
        if self in forming:
            metadata.topics = [
                (-1, name, *rest[:-1], []) if name == topic else (code, name, *rest)
                for code, name, *rest in metadata.topics
            ]
        update(self, metadata)

    async def told_anew(self: GroupCoordinator, response: Any) -> Any:
        forming.add(self._cluster)
        await self._client.force_metadata_update()
        return await form(self, response)

    with monkeypatch.context() as patched:
        patched.setattr(ClusterMetadata, "update_metadata", tell)
        patched.setattr(GroupCoordinator, "_perform_assignment", told_anew)
        yield


async def test_no_service_starts_that_would_be_deaf_to_a_topic(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Event] = []

    async def keep(event: Event) -> None:
        got.append(event)

    @asynccontextmanager
    async def started() -> AsyncIterator[None]:
        service = Service("registry", space.settings(ServiceSettings, "registry"))
        service.bus.subscribe({FileDeleted: keep, DatasetRejected: keep})
        app = service.app([])
        async with app.router.lifespan_context(app):
            yield

    async with space.publisher("ingest") as publish:
        with untold(monkeypatch, f"{space.prefix}-datasets"), pytest.raises(KafkaError, match="no partitions of"):
            async with started():
                pass
        async with started():
            for event in (DELETED, REJECTED):
                await publish(event)
            await eventually(lambda: {type(event) for event in got} == {FileDeleted, DatasetRejected})


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
