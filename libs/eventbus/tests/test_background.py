"""Work that cannot run is no secret of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from chassis.errors import Transient
from chassis.settings import ServiceSettings
from eventbus import background
from eventbus.background import FAILURES, MANY, Background
from eventbus.service import Service
from testkit import Space, eventually


@asynccontextmanager
async def running(work: background.Work) -> AsyncIterator[Background]:
    keeper = Background()
    task = asyncio.create_task(keeper.keep_running("worker", work))
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(background, "SETTLED_SECONDS", 0.2)


def failures() -> float:
    return float(FAILURES.labels("worker")._value.get())


async def test_work_that_never_ran_is_told_after_some_tries() -> None:
    async def work() -> None:
        raise PermissionError("the work folder is another user's")

    async with running(work) as keeper:
        await keeper.check_started()
        await eventually(lambda: failures() >= MANY)
        for check in (keeper.check_started, keeper.check_running):
            with pytest.raises(Transient, match="worker: PermissionError: the work folder is another user's"):
                await check()


async def test_work_that_ran_and_fails_now_is_told_beside_readiness() -> None:
    broken = asyncio.Event()

    async def work() -> None:
        await broken.wait()
        raise RuntimeError("the disk went away")

    async with running(work) as keeper:
        await asyncio.sleep(0.25)
        broken.set()
        await eventually(lambda: failures() >= MANY)
        await keeper.check_started()
        with pytest.raises(Transient, match="the disk went away"):
            await keeper.check_running()
        broken.clear()
        await eventually(lambda: failures() == 0)
        await keeper.check_running()


async def test_a_service_whose_worker_cannot_start_is_not_ready(space: Space) -> None:
    async def work() -> None:
        raise PermissionError("the work folder is another user's")

    service = Service("ingest", space.settings(ServiceSettings, "ingest"))
    service.background("worker", work)
    app = service.app([])
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as http,
    ):

        async def told() -> bool:
            answer = await http.get("/readyz")
            return answer.status_code == 503 and "another user's" in answer.json()["started"]

        await eventually(told)
