"""The sweep over objects: what is old and unowned is counted, and only what its owner lets go of is removed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from stores import orphans as module
from stores.objects import Objects
from stores.orphans import FOUND, Orphans, OrphanSweep
from testkit import Space, eventually

ALL = -60.0
"""An age at which even what was written just now is old."""


def sweep(objects: Objects, age: float, every: float = 3600) -> OrphanSweep:
    async def judge(_: str, folders: Mapping[str, list[str]]) -> Orphans:
        return Orphans(folders.get("over", []), folders.get("nobody", []))

    return OrphanSweep(objects, "trainer", {"jobs": judge}, every=every, age=age)


async def test_the_old_and_unowned_is_counted_and_what_is_let_go_of_removed(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OWNERS_AT_ONCE", 2)
    objects = space.objects()
    await objects.prepare()
    kept = [
        "tenants/a/jobs/going-on/attempt-1/x",
        "tenants/a/jobs/nobody/x",
        "tenants/a/jobs/nobody/y",
        "tenants/a/jobs2/over/x",
        "tenants/b/jobs/going-on/x",
    ]
    gone = ["tenants/a/jobs/over/attempt-1/x", "tenants/a/jobs/over/attempt-2/x", "tenants/b/jobs/over/x"]
    for key in (*kept, *gone):
        await objects.put_bytes(key, b"x")
    found = FOUND.labels("trainer", "jobs")
    await sweep(objects, age=3600).sweep()
    assert (found._value.get(), await objects.keys("")) == (0, sorted([*kept, *gone])), "it may be pointed at yet"
    await sweep(objects, ALL).sweep()
    assert (found._value.get(), await objects.keys("")) == (5, kept)
    await sweep(objects, ALL).sweep()
    assert (found._value.get(), await objects.keys("")) == (2, kept)


async def test_it_sweeps_again_and_again(space: Space) -> None:
    objects, found = space.objects(), FOUND.labels("trainer", "jobs")
    await objects.prepare()

    async def swept() -> bool:
        return found._value.get() == 1 and await objects.keys("") == ["tenants/a/jobs/nobody/x"]

    sweeping = asyncio.create_task(sweep(objects, ALL, every=0.05).run())
    try:
        for key in ("tenants/a/jobs/nobody/x", "tenants/c/jobs/over/x"):
            found.set(-1)
            await eventually(lambda: found._value.get() >= 0)
            await objects.put_bytes(key, b"x")
        await eventually(swept)
    finally:
        sweeping.cancel()
