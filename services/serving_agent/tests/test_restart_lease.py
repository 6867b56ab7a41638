"""The lease by which one replica at a time starts its TGI again."""

from __future__ import annotations

import time

import pytest
from tgi_harness import restart_lease

from serving_agent import restart_lease as lease_module
from serving_agent.restart_lease import RestartLease
from stores.mongo import PyMongoError
from testkit import Space, eventually


async def test_the_lease_outlasts_its_time_but_not_its_replica(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 3)
    other = restart_lease(space, "tgi-2")
    async with restart_lease(space, "tgi-1").held() as ours:
        assert ours
        began = time.monotonic()
        while time.monotonic() < began + 4:
            async with other.held() as theirs:
                assert not theirs
    async with other.held() as theirs:
        assert theirs
    assert await restart_lease(space, "tgi-1")._claim() is not None  # and then the replica is killed

    async def free() -> bool:
        async with other.held() as theirs:
            return theirs

    assert await eventually(free)


async def test_while_the_database_is_away_nobody_starts_again() -> None:
    class Away:
        async def update_one(self, *_: object, **__: object) -> None:
            raise PyMongoError("no server")

    async with RestartLease(Away(), "tiny-test", "tgi-1").held() as ours:  # type: ignore[arg-type]
        assert not ours
