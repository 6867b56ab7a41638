"""The course of one seed: a few jobs go from request to outcome while the seed's faults are done to the services."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from chassis.errors import Conflict, NotFound, Transient
from chassis.idempotency import seed as idempotency_seed
from chassis.ids import derived_id
from eventbus import Bus, DeadLetters
from registry.domain import model_name, version_id
from schemas import (
    DatasetDeleted,
    DatasetPrepared,
    DatasetRef,
    DatasetRejected,
    Event,
    ObjectRef,
    RowCounts,
)
from schemas.artifacts import ArmKind
from tests.simulation.history import History
from tests.simulation.http import Application
from tests.simulation.judges import Judges
from tests.simulation.log import SimulatedBroker
from tests.simulation.nemesis import Nemesis
from tests.simulation.programs import trained
from tests.simulation.retention import rows_held
from tests.simulation.world import BASE, Replica, World, principal_of
from trainer.api import JobAsked
from trainer.domain import ENDED

Ask = Callable[[Application], Awaitable[Any]]

TENANTS = ("tenant_a", "tenant_b")
ROWS = 6
ANSWERS = ("yes", "no")
PARTS = ("manifest", "train", "validation", "heldout")
CROWDED_EVERY = 8
"""One seed of so many is crowded: more jobs at once than there are trainers, so that long ones give their places."""

CROWD = ("tenant_a", "tenant_a", "tenant_b", "tenant_b", "tenant_b")
"""Whose jobs they are: of two tenants each has more that wait, and of two at work one had its turn first."""

DRAIN_SECONDS = 60.0
"""Two of the longest leases (10 s, the relay's), and what is left to train and to try again meanwhile."""

SETTLE_SECONDS = 3.0
"""How long nothing may be left to do until it is believed."""

UNDECIDED = ("candidate", "awaiting_approval")


@dataclass(frozen=True)
class Plan:
    """What one user does."""

    number: int
    tenant: str
    upload: bool
    rejected: bool
    cancel_at: float | None
    pause_at: float | None
    delete_at: float | None
    deletes_arm: bool
    lose_rows_at: float | None

    @property
    def file_id(self) -> str:
        return f"file-{self.number}"

    @property
    def dataset_id(self) -> str:
        return f"ds-{self.number}"


class Scenario:
    """The users, ingest, the judges and the operator around the services under test."""

    def __init__(self, seed: int, folder: Path, *, most_faults: int | None = None) -> None:
        self.world = World(seed, folder)
        self.history: History = self.world.history
        self.chance = Random(seed + 1)
        self.nemesis = Nemesis(self.world, Random(seed + 2), most_faults)
        self.crowded = seed % CROWDED_EVERY == CROWDED_EVERY - 1
        if self.crowded:
            self.plans = [self._plan(number, tenant) for number, tenant in enumerate(CROWD)]
        else:
            self.plans = [self._plan(number) for number in range(self.chance.choice((1, 2, 2, 3)))]
        self.busy = self.history.intents = len(self.plans)
        self._replayed: set[int] = set()
        self._judges = Judges(self.world, self.chance)
        self._pausing: list[tuple[str, str]] = []

    def run(self) -> History:
        """Play it to its end."""
        world = self.world
        with world.running():
            for replica in world.replicas:
                self._start_later(replica)
            for plan in self.plans:
                self._store_rows(plan)
                world.loop.world.spawn(self._use(plan))
            world.loop.world.spawn(self._judges.follow())
            directing = world.loop.world.spawn(self._direct())
            world.loop.run_until(directing.done)
            directing.result()
            world.loop.discard()
        return self.history

    def _start_later(self, replica: Replica) -> None:
        """Services come up in any order, some after the first events."""

        def start() -> None:
            if replica.process is None:
                self.world.start(replica)

        loop = self.world.loop
        loop.call_later(self.chance.choice((0.0, 1.0, 4.0)), start, context=loop.world_context)

    def left(self) -> str:
        """What is still to be done; empty when everything is."""
        world, history = self.world, self.history
        found = []
        trainer, registry = world.databases["trainer"], world.databases["registry"]
        jobs = trainer["jobs"].documents
        if self.busy or self._judges.busy:
            found.append(f"{self.busy} users or {self._judges.busy} peers are busy")
        for name, database in (("jobs", trainer), ("models", registry)):
            found += [f"{key} has an outbox" for key, one in database[name].documents.items() if one["outbox"]]
        found += [f"{name} is {world.log.behind(world.log.groups[name])} behind" for name in self._behind()]
        for name in ("trainer", "registry"):
            found += [f"{name} parks {key}" for key in world.databases[name]["parked"].documents]
        found += [f"{key} is {one['state']}" for key, one in jobs.items() if one["state"] not in ENDED]
        found += [f"the arm of {key} is to be removed" for key, it in jobs.items() if it["arm"]["files"] == "unwanted"]
        fits, models = trainer["arm_fits"].documents, registry["models"].documents
        found += [f"the arm of {key} is {it['state']}" for key, it in fits.items() if it["state"] != "done"]
        found += [f"{key} is {it['state']}" for key, it in models.items() if it["state"] in UNDECIDED]
        found += [f"{key} is not there" for key in history.accepted | history.expected if key not in jobs]
        if len(self._letters()) > len(self._replayed):
            found.append("there are dead letters")
        return "; ".join(found)

    async def _direct(self) -> None:
        world, history = self.world, self.history
        await self.nemesis.rage()
        await self.nemesis.calm()
        history.quiet_from = world.loop.time()
        while world.loop.time() < history.quiet_from + DRAIN_SECONDS:
            await self._replay()
            await self._resume()
            history.left = self.left()
            if history.left:
                history.drained_at = None
            elif history.drained_at is None:
                history.drained_at = world.loop.time()
            elif world.loop.time() > history.drained_at + SETTLE_SECONDS:
                await self._ask_routes()
                if not self.left():  # what replicas say every minute may have come meanwhile
                    break
            await asyncio.sleep(0.5)
        if history.drained_at is not None and not history.routes:
            await self._ask_routes()
        if history.drained_at is not None:
            history.rows = await rows_held(history, Random(world.seed + 3))
        for name in ("trainer", "registry"):
            history.parked[name] = list(world.databases[name]["parked"].documents.values())

    def _plan(self, number: int, tenant: str = "") -> Plan:
        chance = self.chance
        upload = chance.random() < 0.4
        return Plan(
            number,
            tenant or chance.choice(TENANTS),
            upload,
            not upload and chance.random() < 0.1,
            chance.uniform(1, 20) if chance.random() < 0.2 else None,
            chance.uniform(1, 10) if chance.random() < 0.2 else None,
            chance.uniform(2, 25) if chance.random() < 0.15 else None,
            chance.random() < 0.5,
            chance.uniform(2, 25) if not upload and chance.random() < 0.1 else None,
        )

    def _store_rows(self, plan: Plan) -> None:
        for part in PARTS:
            self.world.objects.objects[self._ref(plan, part).key] = self._body(plan, part)

    def _body(self, plan: Plan, part: str) -> bytes:
        if part != "train":
            return f"{plan.dataset_id} {part}\n".encode()
        lines = []
        for number in range(ROWS):
            question, answer = f"{number} of {plan.dataset_id}, seed {self.world.seed}?", ANSWERS[number % len(ANSWERS)]
            row = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            lines.append(json.dumps({"messages": row}) + "\n")
        return "".join(lines).encode()

    def _ref(self, plan: Plan, part: str) -> ObjectRef:
        body = self._body(plan, part)
        key = f"tenants/{plan.tenant}/datasets/{plan.dataset_id}/{part}"
        return ObjectRef(bucket="sartor", key=key, sha256=hashlib.sha256(body).hexdigest(), size=len(body))

    def _dataset(self, plan: Plan) -> Event:
        purpose: Any = "user_data" if plan.upload else "fine-tune"
        if plan.rejected:
            return DatasetRejected(
                tenant_id=plan.tenant, file_id=plan.file_id, purpose=purpose, code="empty", message="no rows"
            )
        return DatasetPrepared(
            tenant_id=plan.tenant,
            dataset=DatasetRef(
                dataset_id=plan.dataset_id,
                task="classification",
                **{part: self._ref(plan, part) for part in PARTS},
            ),
            file_id=plan.file_id,
            purpose=purpose,
            rows=RowCounts(train=80, validation=10, heldout=10),
        )

    async def _use(self, plan: Plan) -> None:
        """One user's doings; a request that is not answered is sent again with its key."""
        world = self.world
        await asyncio.sleep(self.chance.uniform(0, 1 if self.crowded else 6))
        if plan.upload:
            await world.publish(self._dataset(plan), "ingest")
            job_id = derived_id("ftjob-", plan.dataset_id)
            self.history.expected.add(job_id)
        else:
            first = self.chance.random() < 0.5
            if first:
                await world.publish(self._dataset(plan), "ingest")
            job = await self._until_answered(lambda: world.request("trainer", self._create(plan)))
            job_id = job.id
            self.history.accepted.add(job_id)
            self.history.weights[job_id] = trained(7)
            if not first:
                await asyncio.sleep(self.chance.uniform(0, 3))
                await world.publish(self._dataset(plan), "ingest")
        await self._steer(plan, job_id)
        self.busy -= 1

    def _create(self, plan: Plan) -> Ask:
        async def create(api: Application) -> Any:
            idempotency_seed.set(f"key-{plan.number}")
            asked = JobAsked(model=BASE, training_file=plan.file_id, seed=7)
            return await api.ask("POST /v1/fine_tuning/jobs", asked=asked, principal=principal_of(plan.tenant))

        return create

    async def _steer(self, plan: Plan, job_id: str) -> None:
        command = partial(_command, plan.tenant, job_id)
        if plan.pause_at is not None:
            self._pausing.append((plan.tenant, job_id))
            await asyncio.sleep(plan.pause_at)
            await self._until_answered(lambda: self.world.request("trainer", command("pause")), or_late=True)
            await asyncio.sleep(self.chance.uniform(0.5, 6))
            await self._until_answered(lambda: self.world.request("trainer", command("resume")), or_late=True)
        if plan.cancel_at is not None:
            await asyncio.sleep(plan.cancel_at)
            job = await self._until_answered(lambda: self.world.request("trainer", command("cancel")), or_late=True)
            if job is not None:
                self.history.cancelled.add(job_id)
        elif plan.delete_at is not None:
            await asyncio.sleep(plan.delete_at)
            delete = self._delete(plan, job_id)
            await self._until_answered(lambda: self.world.request("registry", delete), or_late=True)
        elif plan.lose_rows_at is not None:
            await asyncio.sleep(plan.lose_rows_at)
            gone = DatasetDeleted(
                tenant_id=plan.tenant,
                dataset_id=plan.dataset_id,
                file_id=plan.file_id,
                heldout=self._ref(plan, "heldout"),
            )
            await self.world.publish(gone, "ingest")
            for part in PARTS:
                self.world.objects.objects.pop(self._ref(plan, part).key, None)

    def _delete(self, plan: Plan, job_id: str) -> Ask:
        """The owner takes a model back, or its arm alone."""
        name = _name_of(job_id)
        if plan.deletes_arm:
            kinds: tuple[ArmKind, ...] = ("head", "nearest")
            made = self.world.databases["registry"]["models"].documents
            name = next((one for one in (version_id(name, kind) for kind in kinds) if one in made), name)

        def delete(api: Application) -> Awaitable[Any]:
            return api.ask("DELETE /v1/models/{model:path}", model=name, principal=principal_of(plan.tenant))

        return delete

    async def _ask_routes(self) -> None:
        """Who answers by the names of the jobs' models, as the proxy hears it."""
        for job_id, job in self.world.databases["trainer"]["jobs"].documents.items():

            async def ask(api: Application, name: str = _name_of(job_id), tenant: str = job["tenant_id"]) -> Any:
                route = await api.ask("GET /internal/routes/{model:path}", model=name, principal=principal_of(tenant))
                return route.version or route.model

            answered = await self._until_answered(partial(self.world.request, "registry", ask), or_late=True)
            self.history.routes[job_id] = answered

    async def _resume(self) -> None:
        """Who paused a job sees that a request for that, given up long ago, was carried out by a replica that woke."""
        jobs = self.world.databases["trainer"]["jobs"].documents
        for tenant, job_id in self._pausing:
            if not self.busy and jobs.get(job_id, {}).get("state") == "paused":
                resume = _command(tenant, job_id, "resume")
                await self._until_answered(partial(self.world.request, "trainer", resume), or_late=True)

    async def _until_answered(self, call: Callable[[], Awaitable[Any]], *, or_late: bool = False) -> Any:
        """Ask until there is an answer; `or_late`: until it turns out that it is too late or too early to ask."""
        while True:
            try:
                return await call()
            except Transient:
                await asyncio.sleep(1)
            except (Conflict, NotFound) as error:
                if or_late and error.code != "stale_write":
                    return None
                await asyncio.sleep(1)

    def _behind(self) -> list[str]:
        groups = self.world.log.groups
        return [name for name in ("trainer", "registry") if name in groups and self.world.log.behind(groups[name])]

    def _letters(self) -> list[int]:
        return [index for index, one in enumerate(self.history.entries) if one.topic.endswith("-dlq")]

    async def _replay(self) -> None:
        """The operator sends every dead letter back, once its cause is mended."""
        world = self.world
        settings = world.settings["trainer"]
        bus = Bus(settings, "accounts", broker=SimulatedBroker(world.log))
        letters = DeadLetters(settings, bus.producer, world.databases["accounts"]["replays"])
        for index in self._letters():
            if index in self._replayed:
                continue
            entry = self.history.entries[index]
            record = SimpleNamespace(
                topic=entry.topic,
                offset=entry.offset,
                timestamp=0,
                key=entry.key,
                value=entry.value,
                headers=[(name, value.encode()) for name, value in entry.headers.items()],
            )
            await letters.replay(letters._letter(cast(Any, record), {}))
            self._replayed.add(index)


def _name_of(job_id: str) -> str:
    return model_name(BASE, "acme", "", job_id)


def _command(tenant_id: str, job_id: str, name: str) -> Ask:
    def command(api: Application) -> Awaitable[Any]:
        route = f"POST /v1/fine_tuning/jobs/{{job_id}}/{name}"
        return api.ask(route, job_id=job_id, principal=principal_of(tenant_id))

    return command
