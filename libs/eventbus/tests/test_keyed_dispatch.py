"""Keyed dispatch: order within a key, no waiting between keys, and commits that never pass an unfinished message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError

from eventbus.consume import keyed_dispatch as module
from eventbus.consume.keyed_dispatch import Deferred, KeyedDispatch
from eventbus.messages.message import Message
from testkit import eventually

HERE = TopicPartition("files", 0)


class Consumer:
    """What the dispatch asks of a Kafka consumer."""

    def __init__(self) -> None:
        self.committed: list[dict[TopicPartition, int]] = []
        self.paused: tuple[TopicPartition, ...] = ()
        self.refuse = False

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.refuse:
            raise CommitFailedError
        self.committed.append(offsets)

    def assignment(self) -> set[TopicPartition]:
        return {HERE}

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused = partitions


class Handler:
    """Holds each message until it is let go."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.later: set[int] = set()

    async def settle(self, message: Message) -> Deferred | None:
        self.begun.append(message.offset)
        gate = self.gates.setdefault(message.offset, asyncio.Event())
        if message.offset in self.later:
            return self.finish(gate)
        await gate.wait()
        return None

    async def finish(self, gate: asyncio.Event) -> None:
        await gate.wait()

    def let(self, *offsets: int) -> None:
        for offset in offsets:
            self.gates.setdefault(offset, asyncio.Event()).set()


@pytest.fixture
def parts() -> tuple[KeyedDispatch, Handler, Consumer, Callable[..., Awaitable[None]]]:
    handler, consumer = Handler(), Consumer()
    dispatch = KeyedDispatch(handler.settle)

    async def take(key: str, *offsets: int) -> None:
        for offset in offsets:
            message = Message("files", 0, offset, key.encode(), b"", {})
            await dispatch.take(cast(AIOKafkaConsumer, consumer), HERE, message)

    return dispatch, handler, consumer, take


async def test_one_key_is_in_order_and_another_does_not_wait(parts: Any) -> None:
    _, handler, _, take = parts
    await take("a", 0, 1)
    await take("b", 2)
    await eventually(lambda: handler.begun == [0, 2])
    handler.let(0)
    await eventually(lambda: handler.begun == [0, 2, 1])


async def test_nothing_is_committed_past_an_unfinished_message(parts: Any) -> None:
    dispatch, handler, consumer, take = parts
    committing = asyncio.create_task(dispatch.run_commits())
    await take("a", 5)
    await take("b", 6)
    await take("c", 7)
    handler.let(6, 7)
    await asyncio.sleep(0.3)
    assert consumer.committed == []
    handler.let(5)
    await eventually(lambda: consumer.committed == [{HERE: 8}])
    committing.cancel()


async def test_what_is_left_to_do_holds_the_commit_and_its_room_but_not_the_key(parts: Any) -> None:
    dispatch, handler, consumer, take = parts
    dispatch._room = asyncio.Semaphore(2)
    committing = asyncio.create_task(dispatch.run_commits())
    handler.later.add(5)
    await take("a", 5, 6)
    await eventually(lambda: handler.begun == [5, 6])
    handler.let(6)
    waiting = asyncio.create_task(take("b", 7, 8))
    await eventually(lambda: handler.begun == [5, 6, 7])
    await asyncio.sleep(0.2)
    assert consumer.committed == []
    assert handler.begun == [5, 6, 7]
    handler.let(5, 7, 8)
    await waiting
    await eventually(lambda: consumer.committed[-1:] == [{HERE: 9}])
    committing.cancel()


async def test_a_rebalance_waits_for_what_is_left_to_do(parts: Any) -> None:
    dispatch, handler, consumer, take = parts
    handler.later.add(0)
    await take("a", 0)
    leaving = asyncio.create_task(dispatch.on_partitions_revoked([HERE]))
    await eventually(lambda: handler.begun == [0])
    await asyncio.sleep(0.05)
    handler.let(0)
    await leaving
    assert consumer.committed == [{HERE: 1}]


async def test_what_is_left_to_do_too_late_is_left_to_the_next_owner_and_gives_its_room_back(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch, handler, consumer, take = parts
    monkeypatch.setattr(module, "LET_GO_SECONDS", 0.05)
    dispatch._room = asyncio.Semaphore(1)
    handler.later.add(0)
    await take("a", 0)
    await eventually(lambda: dispatch._deferred)
    await dispatch.on_partitions_revoked([HERE])
    await dispatch.on_partitions_assigned([HERE])
    await asyncio.wait_for(take("a", 0), 1)
    handler.let(0)
    await dispatch.drain(1)
    assert consumer.committed == [{HERE: 1}]


async def test_new_messages_press_only_while_others_are_done(parts: Any) -> None:
    dispatch, handler, _, take = parts
    dispatch._room = asyncio.Semaphore(1)
    await take("a", 0)
    waiting = asyncio.create_task(take("b", 1))
    await asyncio.sleep(0.05)
    assert not dispatch.are_pressed()
    handler.let(0)
    await waiting
    assert dispatch.are_pressed()
    assert not dispatch.are_pressed()


async def test_a_commit_that_failed_is_made_again(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch, handler, consumer, take = parts
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)
    consumer.refuse = True
    committing = asyncio.create_task(dispatch.run_commits())
    await take("a", 0)
    handler.let(0)
    await asyncio.sleep(0.2)
    consumer.refuse = False
    await eventually(lambda: consumer.committed == [{HERE: 1}])
    committing.cancel()


async def test_a_rebalance_finishes_what_began_and_leaves_the_rest(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch, handler, consumer, take = parts
    await take("a", 0, 1)
    await eventually(lambda: handler.begun == [0])
    leaving = asyncio.create_task(dispatch.on_partitions_revoked([HERE]))
    await asyncio.sleep(0.05)
    handler.let(0, 1)
    await leaving
    assert handler.begun == [0]
    assert consumer.committed == [{HERE: 1}]
    await dispatch.on_partitions_assigned([HERE])
    await take("a", 1)
    await eventually(lambda: handler.begun == [0, 1])
    await dispatch.drain(1)
    assert consumer.committed == [{HERE: 1}, {HERE: 2}]


async def test_what_outlasts_a_rebalance_is_not_committed_by_it(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next owner reads it again; here that is the same consumer, and the key's order holds between the two."""
    dispatch, handler, consumer, take = parts
    monkeypatch.setattr(module, "LET_GO_SECONDS", 0.05)
    await take("a", 0)
    await eventually(lambda: handler.begun == [0])
    await dispatch.on_partitions_revoked([HERE])
    await dispatch.on_partitions_assigned([HERE])
    await take("a", 0, 1)
    await asyncio.sleep(0.05)
    assert handler.begun == [0]
    handler.let(0)
    await eventually(lambda: handler.begun == [0, 0, 1])
    await dispatch.drain(0.05)
    assert consumer.committed == [{HERE: 1}]


async def test_a_message_that_waited_for_room_through_a_rebalance_is_not_begun(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch, handler, _, take = parts
    monkeypatch.setattr(module, "LET_GO_SECONDS", 0.05)
    dispatch._room = asyncio.Semaphore(1)
    await take("a", 0)
    waiting = asyncio.create_task(take("b", 1))
    await asyncio.sleep(0.05)
    await dispatch.on_partitions_revoked([HERE])
    handler.let(0, 1)
    await waiting
    assert handler.begun == [0]


async def test_a_drained_dispatch_takes_nothing_more(parts: Any) -> None:
    dispatch, handler, consumer, take = parts
    await take("a", 0, 1)
    await eventually(lambda: handler.begun == [0])
    draining = asyncio.create_task(dispatch.drain(2))
    await asyncio.sleep(0.05)
    handler.let(0, 1)
    await draining
    await take("a", 2)
    assert handler.begun == [0]
    assert consumer.committed == [{HERE: 1}]
    assert consumer.paused == (HERE,)
