"""Two trainers, two registries and two model servers, wired as their `app.py` does, on the simulated machine room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import structlog
from aiokafka.errors import KafkaConnectionError

from chassis.errors import Invalid, SartorError, Transient
from eventbus.background import Background
from eventbus.bus import Bus, Handlers
from eventbus.envelopes import envelope_of
from eventbus.given_up import GivenUp
from eventbus.outbox import AggregateStore
from eventbus.parking import Parking
from eventbus.patience import Patience
from eventbus.relay import Relay
from model_server.events import watched as model_server_watched
from registry.alias import Alias
from registry.catalogue import Catalogue
from registry.domain import Model
from registry.events import subscriptions as registry_subscriptions
from registry.store import Aliases, Models, Replicas, Tenants
from registry.use_cases import Gate, Naming, Serving
from registry.views import adapter_to_load
from schemas import Event, TenantPolicy, to_message
from schemas.artifacts import BASE_FILE
from serving import Downloads, Residency, announcer
from stores.mongo import PyMongoError
from stores.objects import Objects
from testkit.base_models import base_spec
from testkit.simulated_documents import Documents
from testkit.simulated_history import Document, Fault, Handled, History, Write
from testkit.simulated_log import SimulatedBroker, SimulatedLog
from testkit.simulated_machine import Machines, ObjectServer, patched
from testkit.simulation import PROCESS, Network, Process, SimulatedLoop
from testkit.stub_peer import StubPeer
from tests.sim.programs import SimulatedHost, heartbeat, training
from trainer.domain import CLAIMABLE, Job
from trainer.events import subscriptions as trainer_subscriptions
from trainer.job_objects import JobObjects
from trainer.settings import Settings
from trainer.store import INTERRUPTED, Jobs
from trainer.sweep import Sweep
from trainer.use_cases import Datasets, Outcomes, Requests, TuneOnUpload
from trainer.worker import Training, policy
from work import LeasedWorker, WorkQueue

BASE = "base"
LEASE_SECONDS = 6.0
HANDLER_SECONDS = 4.0
SILENT_SECONDS = 10.0
REPLICAS = ("trainer-a", "trainer-b", "registry-a", "registry-b", "model_server-a", "model_server-b")

SHORTER = {
    "eventbus.parking.LEASE_SECONDS": 14.0,
    "eventbus.parking.CALL_SECONDS": 2.0,
    "eventbus.bus.PUBLISH_SECONDS": 4,
    "eventbus.relay.PUBLISH_SECONDS": 4,
    "eventbus.relay.RELAY_LEASE_SECONDS": 10,
    "eventbus.patience.LONGEST_PAUSE_SECONDS": 6.0,
    "trainer.worker.RETRY_SECONDS": 3.0,
}
"""Durations of the product, shortened in proportion, so that a run is about a minute of virtual time."""


@dataclass
class Replica:
    """A place where one process of a service runs; `api` is what its HTTP routes would call."""

    name: str
    process: Process | None = None
    api: Any = None

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
            name: Documents(self.loop, self.network, self.journal(name)) for name in ("trainer", "registry", "accounts")
        }
        self.machines = Machines(
            self.loop,
            {
                "trainer.nursery": lambda child, command: training(self, child, Path(command[-2]), int(command[-1])),
                "eventbus.heartbeat": lambda child, _: heartbeat(child),
            },
        )
        self.replicas = [Replica(name) for name in REPLICAS]
        self.settings = Settings(
            models_dir=self.folder,
            base_model=BASE,
            trainer_work_dir=self.folder / "work",
            trainer_lease_seconds=LEASE_SECONDS,
            trainer_slice_seconds=1.5,
            trainer_threads=1,
        )

    def journal(self, database: str) -> Callable[[str, str, Document | None, Document | None], None]:
        def keep(collection: str, key: str, before: Document | None, after: Document | None) -> None:
            if collection in ("jobs", "models", "aliases", "parked"):
                now = self.databases[database].now_ms()
                self.history.writes.append(
                    Write(self.loop.time(), now, database, collection, key, before, after, self.network.caller)
                )

        return keep

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the services' code meets the simulation wherever it would meet the machine."""
        with ExitStack() as stack:
            stack.enter_context(patched(self.loop, self.machines, self.seed))
            for name, value in SHORTER.items():
                stack.enter_context(patch(name, value))
            stack.enter_context(patch("eventbus.bus.KafkaBroker", lambda *_, **__: SimulatedBroker(self.log)))
            stack.enter_context(patch("eventbus.bus.ensure_topics", _nothing))
            stack.enter_context(patch("eventbus.heartbeat.connect", lambda _, name: self.databases[name]))
            stack.enter_context(patch("eventbus.heartbeat.print", lambda *_, **__: None, create=True))
            stack.enter_context(patch("tempfile.tempdir", str(self.folder)))
            stack.enter_context(patch("stores.objects.Minio", lambda **_: self.objects))
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
        boot = {"trainer": boot_trainer, "registry": boot_registry, "model_server": boot_model_server}[replica.service]

        async def main() -> None:
            api = None
            while api is None:
                try:
                    api = await boot(self, replica, process)
                except (PyMongoError, SartorError):
                    await asyncio.sleep(1)
            replica.api = api

        process.spawn(main())

    async def request(self, service: str, call: Callable[[Any], Awaitable[Any]], within: float = 6.0) -> Any:
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
            return await call(replica.api)

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


async def _nothing(*_: object) -> None:
    """Topics need no making here."""


class SimulatedNursery:
    """Starts each run as a child of the worker."""

    async def start(self, folder: Path) -> Any:
        """See `trainer.nursery`."""
        command = ("python", "-m", "trainer.nursery", str(folder), str(os.getpid()))
        return await asyncio.create_subprocess_exec(*command)


class Elsewhere(StubPeer):
    """The peers of the services under test: ingest, registry and accounts as HTTP shows them."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, path: str, *ids: str, **options: Any) -> Any:
        if path == "/internal/adapters":
            found = await self._world.request(
                "registry", lambda api: api.serving.to_load("", BASE, options["params"]["replica_id"])
            )
            return [adapter_to_load(model).model_dump(mode="json") for model in found]
        return await self._world.network.call("peer", lambda: self._answer(path, ids))

    def _answer(self, path: str, ids: tuple[str, ...]) -> Any:
        if path.startswith("/internal/tenants"):
            policy = TenantPolicy().model_dump()
            return {"tenant_id": ids[0], "name": ids[0], "slug": "acme", "policy": policy}
        if path.startswith("/v1/files"):
            return {"purpose": "fine-tune", "status": "processed", "status_details": None}
        return base_spec(BASE).model_dump()


def _keep(work: dict[str, Callable[[], Awaitable[None]]]) -> None:
    process, background = PROCESS.get(), Background()
    for name, task in work.items():
        process.spawn(background.keep_running(name, task))


def _bus(world: World, service: str, parking: Parking) -> Bus:
    bus = Bus(world.settings, service, parking)
    bus.patience = Patience(handler_seconds=HANDLER_SECONDS)
    return bus


async def boot_trainer(world: World, replica: Replica, process: Process) -> Any:
    database, owner, elsewhere = world.databases["trainer"], process.name, Elsewhere(world)
    parking = Parking(database["parked"], owner)  # type: ignore[arg-type]
    bus = _bus(world, "trainer", parking)
    stores: list[AggregateStore[Any]] = []
    given_up = GivenUp(database["given_up"])  # type: ignore[arg-type]
    relay = Relay(bus, stores, database["leases"], given_up, owner)  # type: ignore[arg-type]
    store = AggregateStore(database["jobs"], Job, "trainer", relay.wake)  # type: ignore[arg-type]
    stores.append(store)
    names = ("job_events", "checkpoints", "datasets")
    jobs = Jobs(store, *(database[name] for name in names))  # type: ignore[arg-type]
    requests = Requests(jobs, elsewhere, elsewhere, 20)  # type: ignore[arg-type]
    tune = TuneOnUpload(requests, elsewhere, BASE)  # type: ignore[arg-type]
    objects = JobObjects(Objects(world.settings))
    queue = WorkQueue(store, CLAIMABLE, database["turns"], first=INTERRUPTED)  # type: ignore[arg-type]
    training = Training(jobs, objects, SimulatedNursery(), world.settings)  # type: ignore[arg-type]
    worker = LeasedWorker(queue, training, policy(world.settings), owner)
    sweep = Sweep(jobs, objects, owner, LEASE_SECONDS)
    bus.subscribe(world.recorded("trainer", trainer_subscriptions(Datasets(jobs), tune, Outcomes(jobs))))
    await store.prepare()
    await jobs.prepare()
    await queue.prepare()
    await bus.start()
    _keep({"relay": relay.run, "parked": bus.run_parked, "worker": worker.run, "sweep": sweep.run})
    return SimpleNamespace(requests=requests, jobs=jobs)


async def boot_registry(world: World, replica: Replica, process: Process) -> Any:
    database, owner = world.databases["registry"], process.name
    parking = Parking(database["parked"], owner)  # type: ignore[arg-type]
    bus = _bus(world, "registry", parking)
    stores: list[AggregateStore[Any]] = []
    given_up = GivenUp(database["given_up"])  # type: ignore[arg-type]
    relay = Relay(bus, stores, database["leases"], given_up, owner)  # type: ignore[arg-type]
    for name, kind in (("models", Model), ("aliases", Alias)):
        stores.append(AggregateStore(database[name], kind, "registry", relay.wake))  # type: ignore[arg-type,type-var]
    models = Models(stores[0], database["cancelled_jobs"], database["deleted_datasets"])  # type: ignore[arg-type]
    aliases = Aliases(stores[1])  # type: ignore[arg-type]
    tenants = Tenants(database["tenants"], Elsewhere(world))  # type: ignore[arg-type]
    catalogue = Catalogue(world.folder, default=BASE)
    replicas = Replicas(database["replicas"], SILENT_SECONDS)  # type: ignore[arg-type]
    gate = Gate(models, tenants, replicas)
    serving = Serving(models, aliases, replicas, catalogue)
    bus.subscribe(world.recorded("registry", registry_subscriptions(gate, tenants, replicas)))
    await models.prepare()
    await bus.start()
    _keep({"relay": relay.run, "parked": bus.run_parked})
    return SimpleNamespace(gate=gate, naming=Naming(aliases, models, catalogue), serving=serving)


async def boot_model_server(world: World, replica: Replica, process: Process) -> Any:
    bus = Bus(world.settings, "model_server")
    residency = Residency(
        SimulatedHost(world, replica.name),
        Elsewhere(world),  # type: ignore[arg-type]
        Downloads(Objects(world.settings), "model_server"),
        announcer(bus, "model_server"),
        replica_id=replica.name,
        replica_url=f"http://{replica.name}",
        every=4.0,
        capacity=32,
    )
    bus.watch(model_server_watched(residency))
    await bus.start()
    _keep({"residency": residency.run})
    return SimpleNamespace()


def write_base(folder: Path) -> None:
    """The base model's folder, as far as the trainer's worker and the catalogue look."""
    (folder / BASE).mkdir(parents=True)
    (folder / BASE / BASE_FILE).write_text(base_spec(BASE).model_dump_json())
