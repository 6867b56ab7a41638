"""What is done to the services: chosen by the seed, done for half a minute, then undone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random

from chassis.errors import Transient
from tests.simulation.machine import ObjectServer
from tests.simulation.world import Poisonous, Replica, World

RAGE_SECONDS = 24.0
CALM_SHARE = 0.1
"""Share of seeds without a fault: in those nothing may even happen twice."""


class Nemesis:
    """Does faults, one after the other, of the kinds the seed chose.

    Args:
        world: to do them to.
        chance: of its own, so that a fault more does not change all that follows.
        most: faults to do; the others of the seed are left out.
    """

    def __init__(self, world: World, chance: Random, most: int | None = None) -> None:
        self._world, self._chance, self._most = world, chance, most
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._kill,
            self._kill,
            self._stop_process,
            self._stop_machine,
            self._cut_off,
            self._server_away,
            self._rebalance,
            self._repeat,
            self._jump,
            self._poison,
            self._spoil_checkpoint,
        ]
        self.gentle = chance.random() < CALM_SHARE
        self._kinds = [] if self.gentle else chance.sample(kinds, chance.randint(1, 5))
        self._pause = chance.choice((0.7, 1.5, 4.0))
        self._over = False

    async def rage(self) -> None:
        """Do faults until the time is up."""
        network, chance = self._world.network, self._chance
        if not self.gentle:
            self._world.fault("calls are lost")
            network.lose_answer = chance.choice((0.0, 0.01, 0.05))
            network.lose_request = chance.choice((0.0, 0.01))
            network.slow = chance.choice((0.0, 0.0, 0.01))
            self._world.history.slow = network.slow > 0
            self._world.log.duplicate = chance.choice((0.0, 0.1))
            self._world.objects.garble = chance.choice((0.0, 0.02))
        end = self._world.loop.time() + (2.0 if self.gentle else RAGE_SECONDS)
        while (left := end - self._world.loop.time()) > 0:
            await asyncio.sleep(min(left, chance.uniform(0.2, 2) * self._pause))
            if self._kinds and self._most != 0:
                self._most = None if self._most is None else self._most - 1
                await chance.choice(self._kinds)()

    async def calm(self) -> None:
        """Undo what lasts: everyone lives, hears, and is mended."""
        self._over = True
        network = self._world.network
        network.lose_answer = network.lose_request = network.slow = 0.0
        network.away.clear()
        network.cut.clear()
        self._world.log.duplicate = self._world.objects.garble = 0.0
        self._world.poison.clear()
        for replica in self._world.replicas:
            self._go_on(replica)
            if replica.process is None or not replica.process.alive:
                self._world.start(replica)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        def act() -> None:
            if not self._over:
                what()

        self._world.loop.call_later(seconds, act, context=self._world.loop.world_context)

    def _victim(self) -> Replica:
        return self._chance.choice(self._world.replicas)

    async def _kill(self) -> None:
        replica = self._victim()
        if replica.process is not None and replica.process.alive:
            self._world.fault("kill", replica.process.name)
            replica.process.kill()
            self._later(self._chance.uniform(0.2, 8), lambda: self._world.start(replica))

    async def _stop_process(self) -> None:
        await self._stop(whole_machine=False)

    async def _stop_machine(self) -> None:
        await self._stop(whole_machine=True)

    async def _stop(self, *, whole_machine: bool) -> None:
        replica = self._victim()
        process = replica.process
        if process is None or not process.alive or process.stopped:
            return
        self._world.fault("stop machine" if whole_machine else "stop process", process.name)
        for one in [process, *process.children] if whole_machine else [process]:
            one.stop()
        self._world.log.silent(process)
        self._later(self._chance.choice((1, 5, 9, 15)), lambda: self._go_on(replica))

    def _go_on(self, replica: Replica) -> None:
        process = replica.process
        if process is not None and process.alive:
            stopped = [one for one in (process, *process.children) if one.stopped]
            for one in stopped:
                one.go_on()
            if stopped:
                self._world.fault("went on", process.name)

    async def _cut_off(self) -> None:
        replica, server = self._victim(), self._chance.choice(("mongo", "kafka", "objects"))
        self._world.fault(f"cut off from {server}", replica.name)
        link = (replica.name, server)
        self._world.network.cut.add(link)
        if replica.process is not None and server == "kafka":
            self._world.log.silent(replica.process)
        self._later(self._chance.uniform(0.5, 14), lambda: self._world.network.cut.discard(link))

    async def _server_away(self) -> None:
        server = self._chance.choice(("mongo", "kafka", "objects", "peer"))
        self._world.fault("away", server)
        self._world.network.away.add(server)
        self._later(self._chance.uniform(0.3, 8), lambda: self._world.network.away.discard(server))

    async def _rebalance(self) -> None:
        groups = [group for group in self._world.log.groups.values() if len(group.members) > 1]
        if groups:
            group = self._chance.choice(groups)
            self._world.fault("rebalance", group.name)
            self._world.log.rebalance(group)

    async def _repeat(self) -> None:
        """An old message once more, as a producer that was stopped in a retry may send it."""
        entries = [entry for entry in self._world.history.entries if not entry.topic.endswith("-dlq")]
        if entries:
            entry = self._chance.choice(entries)
            self._world.fault("repeat", f"{entry.topic} {entry.headers.get('ce_type')}")
            self._world.log.append(entry.topic, entry.key, entry.value, entry.headers)

    async def _jump(self) -> None:
        replica = self._victim()
        if replica.process is not None:
            offset = self._chance.choice((-7200.0, -30.0, 30.0, 7200.0))
            self._world.fault(f"clock jumps by {offset:.0f} s", replica.name)
            for one in (replica.process, *replica.process.children):
                one.wall_offset = offset

    async def _poison(self) -> None:
        """A key of which its consumer cannot handle all messages or one kind, for good or until somebody mends it."""
        service = self._chance.choice(("trainer", "registry"))
        kinds = self._world.history.subscribed.get(service, frozenset())
        some = self._chance.choice((kinds, kinds, *({kind} for kind in sorted(kinds))))
        entries = [entry for entry in self._world.history.entries if entry.headers.get("ce_type") in kinds]
        keys = [f"file-{number}" for number in range(3)] + [f"ds-{number}" for number in range(3)]
        keys += [entry.headers["ce_subject"] for entry in entries]
        key, error = self._chance.choice(keys), self._chance.choice((Poisonous, RuntimeError, Transient))
        which = "" if some == kinds else " ".join(some)
        self._world.fault(f"poison ({error.__name__}) {which}".rstrip(), f"{service} {key}")
        self._world.poison[service, key] = error, frozenset(some)

    async def _spoil_checkpoint(self) -> None:
        """A bit of a stored checkpoint turns over."""
        objects: ObjectServer = self._world.objects
        jobs = self._world.databases["trainer"]["jobs"].documents.values()
        keys = [
            name
            for job in jobs
            if job["checkpoint"]
            for name in objects.objects
            if name.startswith(job["checkpoint"]["manifest"]["key"].rpartition("/")[0]) and name.endswith("state.json")
        ]
        if keys:
            key = self._chance.choice(keys)
            self._world.fault("spoil", key)
            state = json.loads(objects.objects[key])
            objects.objects[key] = json.dumps({**state, "state": state["state"][::-1]}).encode()
