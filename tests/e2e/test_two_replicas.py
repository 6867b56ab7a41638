"""Two replicas of some services side by side: work is shared, and one of two that dies is not heard of."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from localstack import LocalStack
from localstack.scale import replicas
from tests.chaos.leftovers import Leftovers, kind_of
from tests.conftest import LEAN, Tenant, make_tenant
from tests.e2e.test_main_way import wait_for
from tests.tiny_stack import tiny_stack

SCALE = dict.fromkeys(("accounts", "ingest", "rag_indexer"), 2)
DOCUMENT = "# Help\n\n## Refunds\n\nA refund takes five days.\n\n## Locks\n\nHold the button until the lock opens."
REQUESTS = 12


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of these tests' own, of the services that a document passes."""
    folder = tmp_path_factory.mktemp("two")
    with tiny_stack(folder, LEAN, services=tuple(SCALE), scale=SCALE, durable_log=False) as running:
        yield running


def test_every_replica_is_a_process_with_a_port_and_a_log(stack: LocalStack) -> None:
    seen = {process.name: process for process in stack.status(sample_seconds=0)}
    ours = [name for service in SCALE for name in replicas(service, SCALE)]
    assert set(ours) <= set(seen)
    assert all(seen[name].ready for name in ours)
    assert len({seen[name].port for name in ours}) == len({seen[name].pid for name in ours}) == len(ours)
    assert all((stack.home.logs / f"{name}.log").stat().st_size for name in ours)


def test_one_of_two_replicas_dies_and_nobody_hears_of_it(stack: LocalStack) -> None:
    tenant = make_tenant(stack, "Two of each")
    sdk = tenant.sdk.with_options(max_retries=0)
    store = sdk.vector_stores.create(name="help")
    files = [_put(tenant, store.id, "before")]

    def indexed() -> bool:
        return sdk.vector_stores.retrieve(store.id).file_counts.completed == len(files)

    wait_for(indexed, seconds=60)
    for service in SCALE:
        process = psutil.Process(_pid(stack, service))
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        for _ in range(REQUESTS):
            assert sdk.vector_stores.search(store.id, query="When is my refund?").data
            assert sdk.files.list().data
        files.append(_put(tenant, store.id, f"without a replica of {service}"))

    wait_for(indexed, seconds=60)
    told = {envelope.id: envelope for _, envelope in Leftovers(stack).events()}
    mine = Counter(kind_of(one) for one in told.values() if one.tenantid == tenant.tenant_id)
    assert mine["file.uploaded"] == mine["document.parsed"] == mine["document.indexed"] == len(files)


def _put(tenant: Tenant, store: str, name: str) -> str:
    sdk = tenant.sdk.with_options(max_retries=0)
    file = sdk.files.create(file=(f"{name}.md", f"{DOCUMENT}\n\nWritten {name}.".encode()), purpose="assistants")
    sdk.vector_stores.files.create(store, file_id=file.id)
    return file.id


def _pid(stack: LocalStack, name: str) -> int:
    return next(process.pid for process in stack.status(sample_seconds=0) if process.name == name)
