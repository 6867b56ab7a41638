"""A running labeling for tests, its parts, and what they need to talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2
import pytest
import pytest_asyncio

from chassis.ids import new_id
from labeling.app import build
from labeling.settings import Settings
from labeling.store import Labels
from labeling.use_cases import Projects
from runtime import Service
from schemas import Event, LabelingRequested
from testkit import Space, running

E = TypeVar("E", bound=Event)


@dataclass
class Harness:
    """A running labeling, and one test's two tenants in it."""

    space: Space
    url: str
    service: Service
    publish: Any
    rate: Any
    seen: Any
    dead: Any
    labels: Labels
    projects: Projects
    tenant: str = field(default_factory=lambda: new_id("tenant_a"))
    stranger: str = field(default_factory=lambda: new_id("tenant_b"))
    file_id: str = field(default_factory=lambda: new_id("file-"))

    @property
    def database(self) -> Any:
        return self.service.database

    def of(self, kind: type[E]) -> list[E]:
        """Events of one kind about this test's tenant."""
        return [event for event in self.seen.of(kind) if event.tenant_id == self.tenant]

    def requested(self, **about: Any) -> LabelingRequested:
        """What ingest says of this test's file without labels."""
        return LabelingRequested(tenant_id=self.tenant, file_id=self.file_id, **about)

    def http(self, tenant: str = "", role: str | None = None) -> httpx2.AsyncClient:
        headers = self.space.headers("labeling", tenant or self.tenant, role=role)
        return httpx2.AsyncClient(base_url=f"{self.url}/v1/labeling", headers=headers, timeout=20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(shared_space: Space) -> AsyncIterator[dict[str, Any]]:
    """One labeling for the tests of this module; each brings its own tenants."""
    app = build(shared_space.settings(Settings, "labeling"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labeling.use_cases.SWEEP_SECONDS", 1.0)
        async with (
            running(app) as url,
            shared_space.publisher("ingest") as publish,
            shared_space.publisher("inference_proxy") as rate,
            shared_space.probe("labels") as seen,
            shared_space.probe("labeling-dlq") as dead,
        ):
            yield {
                "space": shared_space,
                "url": url,
                "service": app.state.service,
                "publish": publish,
                "rate": rate,
                "seen": seen,
                "dead": dead,
            }


@pytest.fixture
def harness(shared: dict[str, Any]) -> Harness:
    """The shared labeling, with use cases of the test's own."""
    service = shared["service"]
    labels = Labels(*service._stores, *(service.collection(name) for name in ("tasks", "feedback", "deleted_files")))
    projects = Projects(labels, service.objects, most=100, most_projects=100, held_seconds=60, owner="test")
    return Harness(**shared, labels=labels, projects=projects)
