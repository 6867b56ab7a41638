"""A service's stores, bus, peers and background work, which are wired alike and started and stopped in one order."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import Any, TypeVar, Unpack

import httpx2
import structlog
from fastapi import FastAPI
from prometheus_client import Gauge
from starlette.middleware import Middleware

from chassis.auth import Authenticator
from chassis.clock import CLOCK
from chassis.http import Check, create_app
from chassis.limits import Limiter
from chassis.peers import Peer
from chassis.routes import Router
from chassis.settings import ServiceSettings
from chassis.tokens import Tokens
from eventbus import Aggregate, AggregateStore, Bus, Relay
from runtime.background import Background
from runtime.by_clock import ByClock
from runtime.idempotency import Idempotency
from runtime.overrides import Overrides
from schemas import KeyRevoked, KeyRotated
from stores import mongo
from stores.objects import Objects
from stores.orphans import Judge, OrphanSweep
from stores.shared_limits import SharedLimit
from stores.waiting import watch_waiting

log = structlog.get_logger()

LOOP_LAG = Gauge("event_loop_lag_seconds", "How late the event loop woke a timer.")

LOOK_SECONDS = 0.1
"""Between looks at whether the service is to stop."""

MOST_CONNECTIONS = 1000
"""To other services at a time: a bound on open files where a service asks without counting."""

LEAST_SECONDS = 1.0
"""What flushing and closing each have at least when a stop runs late."""

A = TypeVar("A", bound=Aggregate)
Hook = Callable[[], Awaitable[None]]


class Service:
    """What `app.build` assembles a service from. Nothing connects before the application starts.

    Args:
        name: the service's package name.
        settings: its settings.
        aggregates: whether it owns any; without them it has no outbox, and answers are not kept to be repeated.
        overrides: what it is built with in place of what production has.
    """

    def __init__(
        self, name: str, settings: ServiceSettings, *, aggregates: bool = True, **overrides: Unpack[Overrides]
    ) -> None:
        self.name = name
        self.settings = settings
        self.replica_id = settings.replica_id or f"{name}-{socket.gethostname()}-{os.getpid()}"
        self._overrides = overrides
        self._peers = overrides.get("peers", {})
        self._clock = overrides.get("clock")
        self.tokens = Tokens.from_files(name, settings.token_private_key_file, settings.token_public_keys_file)
        self.objects = Objects(settings, client=overrides.get("objects"))
        self.authenticator = Authenticator(
            self.tokens,
            self.peer("accounts"),
            cache_seconds=settings.key_cache_seconds,
            stale_seconds=settings.key_stale_seconds,
        )
        self.limiters = [Limiter("requests")]
        self._owns_aggregates = aggregates
        parked = self.collection("parked") if aggregates else None
        self.bus = Bus(settings, name, parked, self.replica_id, overrides.get("broker"))
        self._stores: list[AggregateStore[Any]] = []
        self._relay: Relay | None = None
        if aggregates:
            leases, given_up = self.collection("leases"), self.collection("given_up")
            self._relay = Relay(self.bus.producer, self._stores, leases, given_up, self.replica_id)
        self._starting: list[Hook] = []
        self._stopping: list[Hook] = []
        self._background: dict[str, Hook] = {}
        self._running = Background()

    @cached_property
    def http(self) -> httpx2.AsyncClient:
        """The client by which other services are asked; places are counted elsewhere, far below its connections."""
        limits = httpx2.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=20)
        return httpx2.AsyncClient(timeout=self.settings.http_timeout, limits=limits)

    @cached_property
    def database(self) -> mongo.Database:
        """The service's own."""
        return self._overrides.get("database") or mongo.connect(self.settings, self.name)

    def peer(self, name: str) -> Peer:
        """Another service, by its package name."""
        if name in self._peers:
            return self._peers[name]
        return Peer(name, getattr(self.settings, f"{name}_url"), self.tokens, self.http)

    def collection(self, name: str) -> mongo.Collection:
        """One of the service's own collections."""
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
        """Keep `work` running; it is started again should it fail, and `/readyz` says so where it cannot run."""
        self._background[name] = work

    def watch_leases(self, store: AggregateStore[A], *work: mongo.Query) -> None:
        """Tell of work that a worker began and nobody goes on with.

        Args:
            store: where it lies.
            work: the queries it is claimed by.
        """
        self.background(f"leases-{store.collection.name}", partial(store.leases.watch, {"$or": list(work)}))

    def watch_waiting(self, store: AggregateStore[A], states: Mapping[str, mongo.Query], since: str) -> None:
        """Tell how long the oldest of each waiting state waits.

        Args:
            store: where they lie.
            states: name -> query of the aggregates in that state.
            since: the field that says since when.
        """
        self.background(f"waiting-{store.collection.name}", partial(watch_waiting, store.collection, states, since))

    def sweep_orphans(self, folders: Mapping[str, Judge]) -> None:
        """Look now and then for objects of the service that no document points at; see `OrphanSweep`."""
        every, age = self.settings.orphan_sweep_seconds, self.settings.orphan_age_seconds
        self.background("orphans", OrphanSweep(self.objects, self.name, folders, every=every, age=age).run)

    def app(
        self,
        routers: Sequence[Router],
        *,
        checks: dict[str, Check] | None = None,
        lives_without: Sequence[str] = (),
        streamed: Sequence[str] = (),
    ) -> FastAPI:
        """The HTTP application, with this service's lifecycle as its lifespan.

        Args:
            routers: the service's own routes.
            checks: further dependencies, for `/readyz`.
            lives_without: dependencies whose absence leaves the service of use: `/readyz` shows them, and is ready.
            streamed: paths of routes that read their body in pieces, under limits of their own.
        """
        self.bus.watch({KeyRevoked: self._on_key_revoked, KeyRotated: self._on_key_rotated})
        every: dict[str, Check] = {
            "kafka": self.bus.ping,
            "objects": self.objects.ping,
            "started": self._running.check_started,
            **(checks or {}),
        }
        middleware = [Middleware(ByClock, clock=self._clock)] if self._clock else []
        if self._owns_aggregates:
            records = self.collection("idempotency")
            every["mongodb"] = lambda: mongo.ping(records)
            middleware.append(Middleware(Idempotency, records=records))
            for limiter in self.limiters:
                shared = SharedLimit(limiter, self.collection("allowances"))
                self.on_start(shared.prepare)
                self.background(f"limit-{limiter.what}", shared.run)
        app = create_app(
            self.name,
            routers=routers,
            checks={name: check for name, check in every.items() if name not in lives_without},
            reports={
                **{name: every[name] for name in lives_without},
                "consumer": self.bus.check_consumer,
                "background": self._running.check_running,
            },
            lifespan=self._lifespan,
            away=mongo.is_away,
            middleware=middleware,
            streamed=streamed,
        )
        app.state.authenticator = self.authenticator
        app.state.limiters = self.limiters
        app.state.service = self
        return app

    async def _on_key_revoked(self, event: KeyRevoked) -> None:
        self.authenticator.forget(event.key_hash)

    async def _on_key_rotated(self, event: KeyRotated) -> None:
        self.authenticator.end(event.key_hash, event.ends_at)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        before = CLOCK.set(self._clock)
        try:
            async with self._at_work(app):
                yield
        finally:
            CLOCK.reset(before)

    @asynccontextmanager
    async def _at_work(self, app: FastAPI) -> AsyncIterator[None]:
        app.state.stopping = False
        await self._prepare()
        await self.bus.start()
        names: dict[str, Hook] = {"loop_lag": _measure_loop_lag, **self._background}
        if self._relay:
            names["relay"] = self._relay.run
            names["given_up"] = self._relay.watch_given_up
        names |= self.bus.background
        relay = asyncio.create_task(self._running.keep_running("relay", names.pop("relay"))) if self._relay else None
        tasks = [asyncio.create_task(self._running.keep_running(name, work), name=name) for name, work in names.items()]
        stopping = asyncio.create_task(self._stop_work_when_asked(app, tasks))
        log.info("service_started", replica=self.replica_id)
        try:
            yield
        finally:
            app.state.stopping = True
            ends_at = await stopping
            await self._drain_bus(relay, ends_at)
            for hook in self._stopping:
                await hook()
            if "http" in vars(self):  # somebody was asked
                await self.http.aclose()
            self.objects.close()
            log.info("service_stopped")

    async def _stop_work_when_asked(self, app: FastAPI, tasks: Sequence[asyncio.Task[None]]) -> float:
        """Stop claiming and consuming as soon as the service is told to stop, while its last requests are answered.

        Returns:
            When it has to be over, by the loop's clock.
        """
        while not app.state.stopping:  # noqa: ASYNC110 - set by a signal handler
            await asyncio.sleep(LOOK_SECONDS)
        ends_at = asyncio.get_running_loop().time() + self.settings.stop_timeout
        log.info("service_stopping")
        for task in tasks:
            task.cancel()
        consuming = asyncio.create_task(self.bus.stop_consuming(self.settings.stop_timeout / 2))
        _, late = await asyncio.wait({*tasks, consuming}, timeout=self.settings.stop_timeout * 2 / 3)
        if late:
            log.warning("work_not_stopped", tasks=sorted(task.get_name() for task in late))
        return ends_at

    async def _prepare(self) -> None:
        await self.objects.prepare()
        for store in self._stores:
            await store.prepare()
        if self._owns_aggregates:
            await mongo.ensure_index(self.collection("idempotency"), "expires_at", expireAfterSeconds=0)
        await self.bus.prepare()
        for hook in self._starting:
            await hook()

    async def _drain_bus(self, relay_task: asyncio.Task[None] | None, ends_at: float) -> None:
        """Publish what the last requests left in the outbox, then close the connection to Kafka."""
        loop = asyncio.get_running_loop()
        if self._relay and relay_task:
            relay_task.cancel()
            await asyncio.gather(relay_task, return_exceptions=True)
            try:
                async with asyncio.timeout(max(LEAST_SECONDS, (ends_at - loop.time()) * 2 / 3)):
                    await self._relay.drain()
                    await self._relay.release()
            except Exception as error:  # what stays in the outbox is published after the next start
                log.warning("outbox_not_drained", error=f"{type(error).__name__}: {error}")
        await self.bus.stop(max(LEAST_SECONDS, ends_at - loop.time()))


async def _measure_loop_lag() -> None:
    while True:
        asleep = time.monotonic()
        await asyncio.sleep(5)
        LOOP_LAG.set(max(0.0, time.monotonic() - asleep - 5))
