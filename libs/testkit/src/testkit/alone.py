"""A service built by its one door with no process beside it: use cases in moments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
from fastapi import FastAPI

from chassis.peers import Peer
from chassis.settings import ServiceSettings
from testkit.in_process_broker import InProcessBroker
from testkit.simulated_documents import Documents
from testkit.simulated_objects import SimulatedObjects
from testkit.space import Addresses

NOWHERE = Addresses("127.0.0.1:1", "mongodb://127.0.0.1:1", "127.0.0.1:1", "x", "x", "http://127.0.0.1:1")
"""Of an infrastructure that there is not."""


@dataclass
class Alone:
    """A service that runs, and all that it can reach.

    Attributes:
        app: its application.
        seconds: what its clock and its database's say, in Unix seconds; a test moves it on.
    """

    seconds: float = 1_800_000_000.0
    broker: InProcessBroker = field(default_factory=InProcessBroker)
    objects: SimulatedObjects = field(default_factory=SimulatedObjects)

    def __post_init__(self) -> None:
        self.documents = Documents(self.clock)
        self.app: FastAPI | None = None

    def clock(self) -> float:
        """What time it is."""
        return self.seconds

    def http(self, headers: Mapping[str, str]) -> httpx2.AsyncClient:
        """A client that asks the application in this process."""
        assert self.app is not None
        transport = httpx2.ASGITransport(app=self.app)
        return httpx2.AsyncClient(transport=transport, base_url="http://alone", headers=dict(headers))


@asynccontextmanager
async def alone(
    build: Callable[..., FastAPI], settings: ServiceSettings, peers: Mapping[str, Peer]
) -> AsyncIterator[Alone]:
    """Runs a service by itself.

    Args:
        build: its door.
        settings: its settings; the addresses in them are nowhere.
        peers: the services it asks.
    """
    service = Alone()
    service.app = build(
        settings.model_copy(update={"topic_prefix": ""}),  # nobody else is at this broker
        peers=peers,
        database=service.documents.as_database(),
        broker=service.broker.as_broker(),
        objects=service.objects.as_client(),
        clock=service.clock,
    )
    async with service.app.router.lifespan_context(service.app):
        yield service
