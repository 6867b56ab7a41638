"""Two trainers, two registries and two serving agents, each built by its one door, on the simulated machine room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import structlog
from aiokafka.errors import KafkaConnectionError

import registry.app
import registry.settings
import serving_agent.app
import serving_agent.settings
import trainer.app
import trainer.settings
from chassis.auth import Principal
from chassis.errors import Invalid, SartorError, Transient
from chassis.roles import ROLES
from chassis.settings import ServiceSettings
from eventbus import Handlers
from eventbus.consume.retry_policy import RetryPolicy
from eventbus.messages.envelopes import envelope_of
from schemas import Event, TenantPolicy, to_message
from schemas.artifacts import BASE_FILE
from schemas.services import SERVICES
from stores.mongo import PyMongoError
from testkit.alone import NOWHERE
from testkit.base_models import base_spec
from testkit.simulated_documents import Documents
from testkit.simulated_loop import EPOCH, Network, Process, SimulatedLoop
from testkit.space import Space
from testkit.stub_peer import StubPeer
from tests.simulation.history import Document, Fault, Handled, History, Write
from tests.simulation.http import Application, Routes
from tests.simulation.log import SimulatedBroker, SimulatedLog
from tests.simulation.machine import Machines, ObjectServer, patched
from tests.simulation.programs import SAVE_EVERY, SimulatedFitter, SimulatedHost, heartbeat, training, vectors

BASE = "base"
LEASE_SECONDS = 6.0
HANDLER_SECONDS = 4.0
SILENT_SECONDS = 10.0
REPLICAS = ("trainer-a", "trainer-b", "registry-a", "registry-b", "serving_agent-a", "serving_agent-b")
KEYS = "keys"

DURATIONS = {
    "eventbus.consume.consumer.PUBLISH_SECONDS": 4,
    "eventbus.consume.parking.CALL_SECONDS": 2.0,
    "eventbus.consume.parking.LEASE_SECONDS": 14.0,
    "eventbus.consume.retry_policy.LONGEST_PAUSE_SECONDS": 6.0,
    "eventbus.publish.producer.PUBLISH_SECONDS": 4,
    "eventbus.publish.relay.PUBLISH_SECONDS": 4,
    "eventbus.publish.relay.RELAY_LEASE_SECONDS": 10,
    "serving.announcing.AGAIN_SECONDS": 8.0,
    "trainer.worker.RETRY_SECONDS": 3.0,
    "trainer.arms.lane.RETRY_SECONDS": 3.0,
    "trainer.arms.lane.UNREADY_SECONDS": 1.0,
    "trainer.arms.lane.MOST_QUESTIONS": 4,  # so that few rows are more than one portion
    "trainer.sweep.SWEEP_SECONDS": 6.0,
    "runtime.service.LOOK_SECONDS": 60.0,  # nobody is told to stop
}
"""Of the product, changed in proportion, so that a run is about a minute of virtual time."""

BUILDS: dict[str, tuple[Callable[..., Any], type[ServiceSettings], dict[str, Any]]] = {
    "trainer": (
        trainer.app.build,
        trainer.settings.Settings,
        {
            "trainer_lease_seconds": LEASE_SECONDS,
            "trainer_slice_seconds": 0.5,
            "trainer_save_every_steps": SAVE_EVERY,
            "trainer_threads": 1,
        },
    ),
    "registry": (registry.app.build, registry.settings.Settings, {"registry_replica_seconds": SILENT_SECONDS}),
    "serving_agent": (
        serving_agent.app.build,
        serving_agent.settings.Settings,
        {"serving_agent_sync_seconds": 4.0, "serving_agent_adapters": 32},
    ),
}
"""The services under test: door, settings, and which of these are other than an installation's."""


@dataclass
class Replica:
    """A place where one process of a service runs; `api` answers what its HTTP routes would."""

    name: str
    process: Process | None = None
    api: Application | None = None

    @property
    def service(self) -> str:
        return self.name.rpartition("-")[0]

    @property
    def living(self) -> bool:
        return self.process is not None and self.process.alive and self.api is not None


@dataclass
class World:
    """Everything of one run.

    Attributes:
        folder: with the base model's `base.json`, and where training runs keep their files.
        poison: by (service, key), the error its handlers of these events raise until the operator mends it.
    """

    seed: int
    folder: Path
    loop: SimulatedLoop = field(init=False)
    history: History = field(default_factory=History)
    poison: dict[tuple[str, str], tuple[type[Exception], frozenset[str]]] = field(default_factory=dict)
    starts: int = 0

    def __post_init__(self) -> None:
        self.loop = SimulatedLoop(self.seed)
        errors: dict[str, Callable[[], BaseException]] = {
            "mongo": lambda: PyMongoError("away"),
            "kafka": lambda: KafkaConnectionError("away"),
            "objects": lambda: Transient("The object store cannot be reached."),
            "peer": lambda: Transient("A peer cannot be reached."),
        }
        self.network = Network(self.loop, errors, self.history.unanswered)
        self.log = SimulatedLog(self.loop, self.network, self.history)
        self.objects = ObjectServer(self.loop, self.history)
        self.databases = {
            name: Documents(self.now, partial(self.network.call, "mongo"), self.journal(name))
            for name in (*BUILDS, "accounts")
        }
        self.machines = Machines(
            self.loop,
            {
                "trainer.run.fork_server": lambda child, command: training(
                    self, child, Path(command[-2]), int(command[-1])
                ),
                "stores.heartbeat": lambda child, _: heartbeat(child),
            },
        )
        self.replicas = [Replica(name) for name in REPLICAS]
        self.settings = {name: self.settings_of(name) for name in BUILDS}

    def now(self) -> float:
        """The servers' time, which is the right one."""
        return EPOCH + self.loop.time()

    def settings_of(self, service: str) -> ServiceSettings:
        """Those of every process of a service."""
        _, kind, others = BUILDS[service]
        folders = {"models_dir": self.folder, "trainer_work_dir": self.folder / "work"}
        return kind(
            token_private_key_file=self.folder / KEYS / f"{service}.pem",
            token_public_keys_file=self.folder / KEYS / "services.jwks",
            base_model=BASE,
            orphan_sweep_seconds=1e9,  # looks at what is a day old
            **{name: folder for name, folder in folders.items() if name in kind.model_fields},
            **others,
        )

    def journal(self, database: str) -> Callable[[str, str, Document | None, Document | None], None]:
        def keep(collection: str, key: str, before: Document | None, after: Document | None) -> None:
            if collection in ("jobs", "job_events", "arm_fits", "models", "aliases", "parked", "turns"):
                now = self.databases[database].now_ms()
                self.history.writes.append(
                    Write(self.loop.time(), now, database, collection, key, before, after, self.network.caller)
                )

        return keep

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the services' code meets the simulation wherever it would meet the machine."""
        stands_for: dict[str, Any] = {
            **DURATIONS,
            "stores.heartbeat.connect": lambda _, name: self.databases[name],
            "tempfile.tempdir": str(self.folder),
            "trainer.app.ForkServer": SimulatedForkServer,
            "trainer.app.Fitter": lambda: SimulatedFitter(self),
            "serving_agent.app.TGIHost": lambda settings, *_: SimulatedHost(self, settings.own_id),
            "runtime.service.httpx2.AsyncClient": lambda **_: None,
            "runtime.service.create_app": Application,
            **{f"{module}.Router": Routes for module in ("trainer.api", "registry.api", "runtime.leftovers")},
        }
        with ExitStack() as stack:
            stack.enter_context(patched(self.loop, self.machines, self.seed))
            stack.enter_context(patch("stores.heartbeat.print", lambda *_, **__: None, create=True))
            for name, value in stands_for.items():
                stack.enter_context(patch(name, value))
            yield

    def fault(self, kind: str, target: str = "") -> None:
        self.history.faults.append(Fault(self.loop.time(), kind, target))

    def start(self, replica: Replica) -> None:
        """Start a replica's process; it tries until its dependencies answer, as a supervisor would."""
        self.starts += 1
        process = self.loop.process(f"{replica.name}#{self.starts}", replica.name)
        if replica.process is not None:
            process.wall_offset = replica.process.wall_offset
        replica.process, replica.api = process, None

        async def main() -> None:
            while True:
                try:
                    app = self.build(replica, process)
                    async with app.running():
                        replica.api = app
                        await self.loop.create_future()
                except (PyMongoError, SartorError):
                    await asyncio.sleep(1)

        process.spawn(main())

    def build(self, replica: Replica, process: Process) -> Application:
        """A replica's application, as its `__main__` builds it, but for what it meets outside."""
        service = replica.service
        door, _, _ = BUILDS[service]
        own = {"replica_id": process.name}
        if service == "serving_agent":  # it stays the same through its lives
            own = {"replica_id": replica.name, "replica_url": f"http://{replica.name}"}
        stub = StubPeers(self)
        app: Application = door(
            self.settings[service].model_copy(update=own),
            peers=dict.fromkeys(SERVICES, stub),
            database=self.databases[service],
            broker=SimulatedBroker(self.log),
            objects=self.objects,
            clock=lambda: self.now() + process.wall_offset,
        )
        bus = app.state.service.bus
        if bus.handles:
            bus.consumer.attempts.policy = RetryPolicy(handler_seconds=HANDLER_SECONDS)
            bus.subscribe(self.recorded(service, bus.handlers))
        return app

    async def request(self, service: str, ask: Callable[[Any], Awaitable[Any]], within: float = 6.0) -> Any:
        """What an HTTP request to one of the service's replicas comes to.

        Raises:
            Transient: no answer; it may or may not have been done.
        """
        living = [one for one in self.replicas if one.service == service and one.living]
        if not living:
            raise Transient(f"no {service} answers")
        replica = self.loop.random.choice(living)
        assert replica.process is not None
        answer = self.loop.create_future()

        def tell(task: asyncio.Task[Any]) -> None:
            if answer.done():
                return
            if self.network.lose_answer and self.loop.random.random() < self.network.lose_answer:
                answer.set_exception(Transient("the answer got lost"))
            elif error := task.exception():
                answer.set_exception(error if isinstance(error, SartorError) else Transient(str(error)))
            else:
                answer.set_result(task.result())

        async def run() -> Any:
            return await ask(replica.api)

        replica.process.spawn(run()).add_done_callback(tell, context=self.loop.world_context)
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise Transient(f"{service} does not answer") from None

    async def publish(self, event: Event, service: str) -> None:
        """Publish a fact of a service that is not simulated, until the log acknowledges it."""
        key, value, headers = to_message(envelope_of(event, service), event.model_dump(mode="json"))
        while True:
            try:
                await self.network.call("kafka", lambda: self.log.append(event.topic, key, value, headers))
                return
            except KafkaConnectionError:
                await asyncio.sleep(0.5)

    def recorded(self, service: str, handlers: Handlers) -> Handlers:
        """The handlers, with their effects noted, and poisoned where the seed says so."""
        known = self.history.subscribed.get(service, frozenset())
        self.history.subscribed[service] = known | {event.type for event in handlers}

        def wrap(handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
            async def handle(event: Event) -> None:
                error, kinds = self.poison.get((service, event.aggregate_id), (Exception, frozenset()))
                if event.type in kinds:
                    raise error(f"{event.type} is poison")
                await handler(event)
                event_id = structlog.contextvars.get_contextvars()["event_id"]
                self.history.handled.append(Handled(self.loop.time(), service, event_id))

            return handle

        return {event: wrap(handler) for event, handler in handlers.items()}


class Poisonous(Invalid):
    """A refusal that is final."""


class SimulatedForkServer:
    """Starts each run as a child of the worker."""

    def __init__(self, _niceness: int) -> None:
        """Virtual time gives way to nobody."""

    async def start(self, folder: Path) -> Any:
        """See `trainer.run.fork_server`."""
        command = ("python", "-m", "trainer.run.fork_server", str(folder), str(os.getpid()))
        return await asyncio.create_subprocess_exec(*command)

    async def close(self) -> None:
        """See `trainer.run.fork_server`."""


class StubPeers(StubPeer):
    """The peers of the services under test: ingest, registry, rag_indexer and accounts as HTTP shows them."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, path: str, *ids: str, **options: Any) -> Any:
        if path == "/internal/adapters":
            found = await self._world.request(
                "registry",
                lambda api: api.ask("GET /internal/adapters", principal=principal_of(""), **options["params"]),
            )
            return [one.model_dump(mode="json") for one in found]
        return await self._world.network.call("peer", lambda: self._answer(path, ids, options))

    def _answer(self, path: str, ids: tuple[str, ...], options: dict[str, Any]) -> Any:
        if path == "/internal/embeddings":
            return vectors(options["json"]["texts"])
        if path.startswith("/internal/tenants"):
            policy = TenantPolicy().model_dump()
            return {"tenant_id": ids[0], "name": ids[0], "slug": "acme", "policy": policy}
        if path.startswith("/v1/files"):
            return {"purpose": "fine-tune", "status": "processed", "status_details": None}
        return base_spec(BASE).model_dump()


def principal_of(tenant_id: str) -> Principal:
    """Who asks for a tenant, and may."""
    return Principal(tenant_id, user_id="user", role="admin", scopes=ROLES["admin"], organization="acme")


def write_base(folder: Path) -> None:
    """The base model's folder, as far as the trainer's worker and the catalogue look, and the services' keys."""
    (folder / BASE).mkdir(parents=True)
    (folder / BASE / BASE_FILE).write_text(base_spec(BASE).model_dump_json())
    (folder / KEYS).mkdir()
    Space(NOWHERE, folder / KEYS)
