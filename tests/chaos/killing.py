"""Kills processes of a stack at random, and watches how long each takes until nothing is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import psutil

from chassis.ids import SERVER_MS
from localstack import LocalStack
from localstack.home import LOCAL_SERVICES
from localstack.programs import Program
from localstack.readiness import is_ready
from localstack.scale import service_of
from stores import mongo
from stores.mongo import PyMongoError, Query
from tests.chaos.clients import Violation
from tests.chaos.leftovers import Leftovers

LEASE_SECONDS = {"ingest": 20.0, "evaluator": 30.0}
"""The longest lease of a service's that a kill may leave: on work, or of its relay, 20 s where nothing else is said."""

PAUSE_SECONDS = (4.0, 9.0)
"""Between two kills that are due."""

LOOK_SECONDS = 0.3
ONE_AT_A_TIME = ("trainer", "jobs")
"""Service and collection of work that has one place, which a run may take before the dead worker's lease is over."""

WORK = ["queued", "running", "uploaded", "in_progress", "deleting"]
"""States, of any service's documents, in which somebody waits for the work that is left."""

LIVE: Query = {
    "lease.owner": {"$nin": ["", None]},
    "state": {"$in": WORK},
    "$expr": {"$gte": ["$lease.until_ms", SERVER_MS]},
}
"""Somebody works on it, or died within a lease."""

OWNER = re.compile(r"-(\d+)(?:-\d+)?$")

CHILDREN_SHARE = 0.3
"""Of the trainer's kills, how many meet one of its children: the run, its heartbeat, or what both are forked from."""


@dataclass
class Kill:
    """One SIGKILL and what followed. Times are of the monotonic clock.

    Attributes:
        victim: name of the program.
        child: whether one of its children was killed instead.
        pid: of the process.
        at: when.
        held: what the process was seen to hold a lease on, as (collection, document).
        ready: when the program answered again.
        whole: when every service had been ready once since then, and every lease had left the dead process.
        beside: runs, by job and fence, that others began while the dead process still had its lease.
        looked: when runs were last seen.
        waited: seconds for which one of these went on after that lease was over.
    """

    victim: str
    child: bool
    pid: int
    at: float
    held: set[tuple[str, Any]] = field(default_factory=set)
    ready: float | None = None
    whole: float | None = None
    beside: set[tuple[Any, int]] = field(default_factory=set)
    looked: float | None = None
    waited: float = 0.0

    def see(self, live: Mapping[Any, Mapping[str, Any]], dead: Set[int], now: float) -> None:
        """Note which runs go on, and how long one that began before this lease was over has kept the place.

        Args:
            live: leases that are not over, by job.
            dead: processes that were killed, this one among them.
            now: when they were read.
        """
        holders = {(job, lease["fence"]): pid_in(lease["owner"]) for job, lease in live.items()}
        running = {run for run, pid in holders.items() if pid not in dead}
        if self.pid in holders.values():
            self.beside |= running
        elif self.beside & running and self.looked is not None:
            self.waited += now - self.looked
        self.looked = now

    @property
    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return vars(self) | {"held": sorted(map(str, self.held)), "beside": sorted(map(str, self.beside))}

    @property
    def lease(self) -> float:
        """Seconds."""
        return LEASE_SECONDS.get(service_of(self.victim), 20.0)

    @property
    def leases(self) -> float:
        """Recovery, in leases of the service, but for what was waited; infinite if it never came."""
        return (self.whole - self.at - self.waited) / self.lease if self.whole is not None else float("inf")


def pid_in(owner: str) -> int:
    """The process that has a lease, by the owner's name there."""
    found = OWNER.search(owner)
    return int(found[1]) if found else 0


def pid_of(told: Mapping[str, Any]) -> int:
    """The process that the supervisor tells of.

    Raises:
        Violation: there is none; a signal to its 0 would end who sends it.
    """
    if not told["pid"]:
        raise Violation(f"{told['name']} has no process that could be killed: {told['statename']}")
    return int(told["pid"])


class Killer(threading.Thread):
    """Kills until told to stop, then waits for what is still open.

    Args:
        stack: whose processes.
        seed: decides victims and pauses.
        due: how many kills there should have been by now.
    """

    def __init__(self, stack: LocalStack, seed: int, due: Callable[[], int]) -> None:
        super().__init__(name="killer", daemon=True)
        self._stack = stack
        self._due = due
        self._random = random.Random(seed)
        self._leftovers = Leftovers(stack)
        self._programs: dict[str, Program] = {
            program.name: program for program in stack._programs(stack.home.state["ports"])
        }
        self._seen_ready: dict[str, float] = {}
        self._enough = threading.Event()
        self.kills: list[Kill] = []
        self.error: BaseException | None = None

    def stop(self, within: float) -> list[str]:
        """No more kills; wait until the last ones are over. Returns what is wrong with them."""
        self._enough.set()
        self.join(within)
        wrong = [f"not recovered from: {kill.victim}, killed with {kill.held}" for kill in self._open()]
        return wrong + ([f"the killer ended: {self.error!r}"] if self.error is not None else [])

    def run(self) -> None:
        """See `Thread`."""
        try:
            self._run()
        except BaseException as error:  # told where the killer is stopped
            self.error = error

    def _run(self) -> None:
        until = time.monotonic()
        while not self._enough.is_set() or self._open():
            if not self._enough.is_set() and time.monotonic() > until and len(self.kills) < self._due():
                self._kill()
                until = time.monotonic() + self._random.uniform(*PAUSE_SECONDS)
            for kill in self._open():
                self._look(kill)
            time.sleep(LOOK_SECONDS)

    def _open(self) -> list[Kill]:
        return [kill for kill in self.kills if kill.whole is None]

    def _kill(self) -> None:
        waited_for = {kill.victim for kill in self._open() if kill.ready is None}
        pids = {info["name"]: info["pid"] for info in self._stack._rpc().supervisor.getAllProcessInfo()}
        victims = sorted(name for name in self._programs if pids.get(name) and name not in waited_for)
        victim = self._random.choice(victims)
        pid, child = pids[victim], False
        if victim == "trainer" and self._random.random() < CHILDREN_SHARE:
            with contextlib.suppress(psutil.Error):
                children = [one.pid for one in psutil.Process(pid).children(recursive=True)]
                if children:
                    pid, child = self._random.choice(children), True
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills.append(Kill(victim, child, pid, time.monotonic()))

    def _look(self, kill: Kill) -> None:
        began = time.monotonic()
        if kill.ready is None:
            if began - kill.at < 0.5 or not is_ready(self._programs[kill.victim]):
                return  # a server whose process was just killed may still be seen listening
            kill.ready = time.monotonic()
        of_ours = service_of(kill.victim) in LOCAL_SERVICES
        if of_ours and not kill.child and self._leases_left(kill):
            return
        if not of_ours and not self._all_ready_since(kill.ready):
            return
        kill.whole = time.monotonic()

    def _leases_left(self, kill: Kill) -> bool:
        """Whether something is leased to the dead process, expired or not."""
        try:
            left = asyncio.run(self._leased_to(kill))
        except PyMongoError:  # MongoDB was killed as well
            return True
        kill.held |= left
        return bool(left)

    async def _leased_to(self, kill: Kill) -> set[tuple[str, Any]]:
        owner = re.compile(rf"-{kill.pid}(-\d+)?$")
        database = mongo.connect(self._leftovers.settings, service_of(kill.victim))
        found = set()
        try:
            for name in await database.list_collection_names():
                held = {"$or": [{"lease.owner": owner, "state": {"$in": WORK}}, {"_id": "relay", "owner": owner}]}
                found |= {(name, one["_id"]) async for one in database[name].find(held, {"_id": 1})}
                if (service_of(kill.victim), name) == ONE_AT_A_TIME:
                    live = {one["_id"]: one["lease"] async for one in database[name].find(LIVE, {"lease": 1})}
                    kill.see(live, {one.pid for one in self.kills}, time.monotonic())
        finally:
            database.client.close()
        return found

    def _all_ready_since(self, moment: float) -> bool:
        for name, program in self._programs.items():
            if service_of(name) in LOCAL_SERVICES and self._seen_ready.get(name, 0.0) < moment:
                asked = time.monotonic()
                if not is_ready(program):
                    return False
                self._seen_ready[name] = asked
        return True
