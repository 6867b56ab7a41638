"""One service: its stores, bus, peers and background work, wired alike and started and stopped in one order."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx2
import structlog
from fastapi import APIRouter, FastAPI
from prometheus_client import Gauge

from chassis.auth import Authenticator, Peer, Tokens
from chassis.http import Check, create_app
from chassis.idempotency import Idempotency
from chassis.idempotency import prepare as prepare_idempotency
from chassis.settings import ServiceSettings
from eventbus.aggregate import Aggregate
from eventbus.bus import Bus
from eventbus.outbox import AggregateStore, Relay
from eventbus.parking import Parking
from schemas import KeyRevoked
from stores import mongo
from stores.objects import Objects

log = structlog.get_logger()

LOOP_LAG = Gauge("event_loop_lag_seconds", "How late the event loop woke a timer.")

A = TypeVar("A", bound=Aggregate)
Hook = Callable[[], Awaitable[None]]


class Service:
    """What `app.build` assembles a service from. Nothing connects before the application starts.

    Args:
        name: the service's package name.
        settings: its settings.
        documents: whether it owns a database; without one it has no outbox either.
    """

    def __init__(self, name: str, settings: ServiceSettings, *, documents: bool = True) -> None:
        self.name = name
        self.settings = settings
        self.replica_id = settings.replica_id or f"{name}-{socket.gethostname()}-{os.getpid()}"
        self.tokens = Tokens.from_files(name, settings.token_private_key_file, settings.token_public_keys_file)
        self.http = httpx2.AsyncClient(timeout=settings.http_timeout)
        self.objects = Objects(settings)
        self.authenticator = Authenticator(self.tokens, self.peer("accounts"), cache_seconds=settings.key_cache_seconds)
        self.database = mongo.connect(settings, name) if documents else None
        self._parking = Parking(self.collection("parked"), self.replica_id) if documents else None
        self.bus = Bus(settings, name, self._parking)
        self._stores: list[AggregateStore[Any]] = []
        self._relay: Relay | None = None
        if documents:
            self._relay = Relay(self.bus, self._stores, self.collection("leases"), self.replica_id)
        self._starting: list[Hook] = []
        self._stopping: list[Hook] = []
        self._background: dict[str, Hook] = {}

    def peer(self, name: str) -> Peer:
        """A client for another service, by its package name."""
        return Peer(name, getattr(self.settings, f"{name}_url"), self.tokens, self.http)

    def collection(self, name: str) -> mongo.Collection:
        """One of the service's own collections."""
        if self.database is None:
            raise RuntimeError(f"{self.name} was built without a database")
        return self.database[name]

    def aggregates(self, name: str, kind: type[A]) -> AggregateStore[A]:
        """A collection of aggregates whose events the relay publishes."""
        store = AggregateStore(self.collection(name), kind, self.name, self.wake)
        self._stores.append(store)
        return store

    def wake(self) -> None:
        """Tell the relay that there is something to publish."""
        if self._relay:
            self._relay.wake()

    def on_start(self, hook: Hook) -> None:
        """Run before consumers start: indexes, first loads."""
        self._starting.append(hook)

    def on_stop(self, hook: Hook) -> None:
        """Run after consumers stopped."""
        self._stopping.append(hook)

    def background(self, name: str, work: Hook) -> None:
        """Keep `work` running; it is started again, with a log line, should it fail."""
        self._background[name] = work

    def app(self, routers: Sequence[APIRouter], *, checks: dict[str, Check] | None = None) -> FastAPI:
        """The HTTP application, with this service's lifecycle as its lifespan."""
        self.bus.watch({KeyRevoked: self._on_key_revoked})
        every: dict[str, Check] = {
            "kafka": self.bus.ping,
            "consumer": self.bus.check_consumer,
            "objects": self.objects.ping,
            **(checks or {}),
        }
        if self.database is not None:
            database = self.database
            every["mongodb"] = lambda: mongo.ping(database)
        app = create_app(self.name, routers=routers, checks=every, lifespan=self._lifespan)
        app.state.authenticator = self.authenticator
        app.state.service = self
        if self.database is not None:
            app.add_middleware(Idempotency, records=self.collection("idempotency"))
        return app

    async def _on_key_revoked(self, event: KeyRevoked) -> None:
        self.authenticator.forget(event.key_hash)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        await self._prepare()
        await self.bus.start()
        names = {"loop_lag": _measure_loop_lag, **self._background}
        if self._relay:
            names["relay"] = self._relay.run
        if self.bus.handles:
            names["parked"] = self.bus.run_parked
            names["parked_depth"] = self.bus.measure_parked
        tasks = {name: asyncio.create_task(_keep_running(name, work), name=name) for name, work in names.items()}
        log.info("service_started", replica=self.replica_id)
        try:
            yield
        finally:
            app.state.stopping = True
            for name, task in tasks.items():
                if name != "relay":
                    task.cancel()
            await asyncio.gather(*(task for name, task in tasks.items() if name != "relay"), return_exceptions=True)
            await self._drain_bus(tasks.get("relay"))
            for hook in self._stopping:
                await hook()
            await self.http.aclose()
            self.objects.close()
            log.info("service_stopped")

    async def _prepare(self) -> None:
        await self.objects.prepare()
        for store in self._stores:
            await store.prepare()
        if self.database is not None:
            await prepare_idempotency(self.collection("idempotency"))
        if self._parking is not None:
            await self._parking.prepare()
        for hook in self._starting:
            await hook()

    async def _drain_bus(self, relay_task: asyncio.Task[None] | None) -> None:
        """Publish what the last requests left in the outbox, then close the connection to Kafka."""
        if self._relay and relay_task:
            relay_task.cancel()
            await asyncio.gather(relay_task, return_exceptions=True)
            try:
                async with asyncio.timeout(self.settings.stop_timeout / 2):
                    await self._relay.drain()
                    await self._relay.release()
            except Exception as error:  # what stays in the outbox is published after the next start
                log.warning("outbox_not_drained", error=f"{type(error).__name__}: {error}")
        await self.bus.stop()


async def _keep_running(name: str, work: Hook) -> None:
    while True:
        structlog.contextvars.bind_contextvars(task=name)
        try:
            await work()
            return
        except Exception as error:  # the boundary of background work: say so, wait, go on
            log.error("background_failed", exc_info=error)
            await asyncio.sleep(1)


async def _measure_loop_lag() -> None:
    while True:
        asleep = time.monotonic()
        await asyncio.sleep(5)
        LOOP_LAG.set(max(0.0, time.monotonic() - asleep - 5))
