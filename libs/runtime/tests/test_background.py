"""Work that cannot run is no secret of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from chassis.errors import Transient
from chassis.settings import ServiceSettings
from runtime import Service, background
from runtime.background import FAILURES, MANY, Background
from testkit import Space, eventually
from testkit.simulated_loop import SimulatedLoop


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
def no_failures_yet() -> None:
    FAILURES.clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0.01)


def failures() -> float:
    return float(FAILURES.labels("worker")._value.get())


@pytest.mark.usefixtures("quick")
async def test_work_that_never_ran_is_told_after_some_tries() -> None:
    async def work() -> None:
        raise PermissionError("the work folder is another user's")

    async with running(work) as keeper:
        await keeper.check_started()
        await eventually(lambda: failures() >= MANY)
        for check in (keeper.check_started, keeper.check_running):
            with pytest.raises(Transient, match="worker: PermissionError: the work folder is another user's"):
                await check()


def test_work_that_ran_and_fails_now_is_told_beside_readiness_until_it_runs_on() -> None:
    loop, keeper, broken = SimulatedLoop(0), Background(), asyncio.Event()

    async def work() -> None:
        await broken.wait()
        raise RuntimeError("the disk went away")

    loop.create_task(keeper.keep_running("worker", work))
    loop.call_later(2 * background.SETTLED_SECONDS, broken.set)
    loop.run_until(lambda: failures() >= MANY)
    asyncio.run(keeper.check_started())
    with pytest.raises(Transient, match="the disk went away"):
        asyncio.run(keeper.check_running())
    broken.clear()
    loop.run_until(lambda: failures() == 0)
    asyncio.run(keeper.check_running())


@pytest.mark.parametrize("seconds", [0.0, 10.0, 15.0, 30.0], ids=str)
def test_work_is_told_however_long_it_waits_before_it_fails(seconds: float) -> None:
    """The database's client gives up after 10 s, the object store's after 15."""
    loop, keeper = SimulatedLoop(0), Background()

    async def work() -> None:
        await asyncio.sleep(seconds)
        raise TimeoutError("the database does not answer")

    loop.create_task(keeper.keep_running("worker", work))
    loop.run_until(lambda: loop.time() > (MANY + 1) * (seconds + background.PAUSE_SECONDS))
    for check in (keeper.check_started, keeper.check_running):
        with pytest.raises(Transient, match="the database does not answer"):
            asyncio.run(check())


@pytest.mark.usefixtures("quick")
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
