"""Registries on simulated documents, in the middle of whose work something else happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from registry_harness import Accounts

from eventbus import AggregateStore
from registry.domain import Model
from registry.store import Models, Replicas, Tenants
from registry.use_cases import Gate, Pinning
from testkit.simulated_documents import Documents

SILENT_SECONDS = 61.0

Happening = Callable[[], Awaitable[Any]]


async def told(registry: Any, path: str, tenant: str | None = None) -> Any:
    async with registry.http(tenant) as http:
        answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


class Race:
    """A gate, and pins, on documents of its own, in the middle of whose work something else happens."""

    def __init__(self) -> None:
        self.documents = Documents(lambda: 1_800_000_000.0)
        database = self.documents.as_database()
        kept = AggregateStore(database["models"], Model, "registry", lambda: None)
        notes = [database[name] for name in ("cancelled_jobs", "deleted_names", "deleted_datasets")]
        self.models = Models(kept, *notes)
        self.tenants = Tenants(database["tenants"], Accounts())
        self.replicas = Replicas(database["replicas"], 60.0)
        self.gate = Gate(self.models, self.tenants, self.replicas)
        self.pinning = Pinning(self.models)

    async def within(self, step: int, one: Happening, other: Happening) -> bool:
        """Do one thing, and the other after so many of its calls; whether it makes so many."""
        done = 0

        async def call(operation: Callable[[], Any]) -> Any:
            nonlocal done
            done += 1
            at, result = done, operation()
            if at == step:
                await other()
            return result

        self.documents.call = call
        await one()
        return done >= step
