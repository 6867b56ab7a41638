"""A running ingest for tests, its parts, and what they need to talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2
import openai
import pytest_asyncio

from chassis.ids import new_id
from ingest.app import build
from ingest.settings import Settings
from ingest.store import Files, StoredElsewhere, Uses
from schemas import Event
from stores.objects import Objects
from testkit import Space, eventually, running

E = TypeVar("E", bound=Event)


@dataclass
class Ingest:
    """A running ingest whose trainer, registry, evaluator and labeling are played by the tests."""

    url: str
    space: Space
    objects: Objects
    database: Any
    files: Files
    publish: Any
    seen: Any


@dataclass
class Harness(Ingest):
    """A running ingest, and one test's two tenants in it."""

    tenant: str
    sdk: openai.AsyncOpenAI
    http: httpx2.AsyncClient
    stranger: str = field(default_factory=lambda: new_id("tenant_b"))

    def of(self, kind: type[E]) -> list[E]:
        """Events of one kind about this test's tenant."""
        return [event for event in self.seen.of(kind) if event.tenant_id == self.tenant]

    async def settled(self, file_id: str) -> openai.types.FileObject:
        """A file once it is read, or refused."""
        return await settled(self.sdk, file_id)


async def settled(client: openai.AsyncOpenAI, file_id: str) -> openai.types.FileObject:
    async def done() -> openai.types.FileObject | None:
        file = await client.files.retrieve(file_id)
        return file if file.status != "uploaded" else None

    return await eventually(done)


def sdk(space: Space, url: str, tenant: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key=space.bearer("ingest", tenant), _strict_response_validation=True, max_retries=0
    )


@asynccontextmanager
async def served(space: Space, **overrides: Any) -> AsyncIterator[Ingest]:
    app = build(space.settings(Settings, "ingest", ingest_lease_seconds=3, **overrides))
    async with (
        running(app) as url,
        space.publisher("trainer") as publish,
        space.probe("datasets", "documents", "files", "labeling") as seen,
    ):
        service = app.state.service
        arriving, uses, elsewhere = (service.collection(name) for name in ("arriving", "uses", "stored_elsewhere"))
        files = Files(*service._stores, arriving, Uses(uses), StoredElsewhere(elsewhere), service.objects)
        yield Ingest(url, space, service.objects, service.database, files, publish, seen)


@asynccontextmanager
async def tenant_of(ingest: Ingest, tenant: str) -> AsyncIterator[Harness]:
    async with (
        sdk(ingest.space, ingest.url, tenant) as client,
        httpx2.AsyncClient(base_url=ingest.url, headers=ingest.space.headers("ingest", tenant)) as http,
    ):
        yield Harness(**vars(ingest), tenant=tenant, sdk=client, http=http)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(shared_space: Space) -> AsyncIterator[Ingest]:
    """One ingest for the tests of this module; each brings its own tenants."""
    async with served(shared_space) as ingest:
        yield ingest


@pytest_asyncio.fixture(loop_scope="module")
async def harness(shared: Ingest) -> AsyncIterator[Harness]:
    """The shared ingest, and a tenant that no other test has."""
    async with tenant_of(shared, new_id("tenant_a")) as harness:
        yield harness
