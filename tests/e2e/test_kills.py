"""Services are killed while they are needed: all ends as if they had not been; of one of two nobody hears."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from localstack import LocalStack
from localstack.scale import replicas
from tests.chaos.leftovers import Leftovers
from tests.conftest import LEAN, Tenant, make_tenant
from tests.e2e.test_main_way import ended_job, rows, wait_for
from tests.tiny_stack import tiny_stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
"""The first of them starts its stack, beside the other's; `make e2e` runs them."""

SCALE = dict.fromkeys(("accounts", "ingest", "rag_indexer"), 2)
DOCUMENT = "# Help\n\n## Refunds\n\nA refund takes five days.\n\n## Locks\n\nHold the button until the lock opens."
REQUESTS = 12
OF_A_DOCUMENT = ("file.uploaded", "document.parsed", "document.indexed")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of these tests' own, with two replicas of some: they kill its services, but not the broker."""
    often = {**LEAN, "SARTOR_TRAINER_SAVE_EVERY_STEPS": "5"}
    with tiny_stack(tmp_path_factory.mktemp("killed"), often, scale=SCALE, durable_log=False) as running:
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

    def told() -> Counter[str]:
        events = {one.envelope.id: one for one in Leftovers(stack).events()}
        return Counter(one.kind for one in events.values() if one.envelope.tenantid == tenant.tenant_id)

    wait_for(indexed, seconds=60)
    for service in SCALE:
        _kill(stack, service)
        for _ in range(REQUESTS):
            assert sdk.vector_stores.search(store.id, query="When is my refund?").data
            assert sdk.files.list().data
        files.append(_put(tenant, store.id, f"without a replica of {service}"))

    wait_for(indexed, seconds=60)
    # Where the killed one held the relay's lease, its events are published when that has run out.
    wait_for(lambda: all(told()[kind] >= len(files) for kind in OF_A_DOCUMENT), seconds=60)
    assert {kind: told()[kind] for kind in OF_A_DOCUMENT} == dict.fromkeys(OF_A_DOCUMENT, len(files))


def test_a_job_whose_services_are_killed_one_after_the_other_ends_once(stack: LocalStack) -> None:
    """`kill -9` of each service of the main way when the job needs it; of the trainer, its training process as well."""
    tenant = make_tenant(stack, "Unlucky")
    file = tenant.sdk.files.create(file=("messages.jsonl", rows(60)), purpose="fine-tune")
    _kill(stack, *replicas("ingest", SCALE))
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 30, "batch_size": 4}}}
    jobs = tenant.sdk.fine_tuning.jobs
    job = wait_for(lambda: jobs.create(model="tiny-test", training_file=file.id, seed=5, method=method))

    wait_for(lambda: jobs.checkpoints.list(job.id).data)
    assert _stage(tenant, job.id) == "training"
    _kill(stack, "trainer")

    wait_for(lambda: _stage(tenant, job.id) == "testing")
    _kill(stack, "evaluator", "registry", "model_server")
    ended = wait_for(lambda: ended_job(tenant, file.id))
    assert ended.status == "succeeded", ended.error

    messages = [event.message for event in jobs.list_events(job.id, limit=100)]
    assert any("resumed" in message for message in messages), messages
    ours = [model.id for model in tenant.sdk.models.list() if model.id.startswith("ft:")]
    assert ours == [ended.fine_tuned_model]
    assert wait_for(lambda: _answers(tenant, ended.fine_tuned_model), seconds=60)
    assert wait_for(lambda: tenant.sdk.files.retrieve(file.id).status == "processed", seconds=60)


def _kill(stack: LocalStack, *names: str) -> None:
    """SIGKILL these services and the processes that are theirs, and see them gone."""
    pids = {process.name: process.pid for process in stack.status(sample_seconds=0)}
    victims = [psutil.Process(pids[name]) for name in names]
    victims += [child for victim in victims for child in victim.children(recursive=True)]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    psutil.wait_procs(victims, 10)


def _put(tenant: Tenant, store: str, name: str) -> str:
    sdk = tenant.sdk.with_options(max_retries=0)
    file = sdk.files.create(file=(f"{name}.md", f"{DOCUMENT}\n\nWritten {name}.".encode()), purpose="assistants")
    sdk.vector_stores.files.create(store, file_id=file.id)
    return file.id


def _stage(tenant: Tenant, job: str) -> Any:
    with tenant.http as http:
        return http.get(f"/fine_tuning/jobs/{job}").json().get("stage")


def _answers(tenant: Tenant, model: str) -> Any:
    return tenant.sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "bike 1 will not open"}], max_tokens=4
    ).choices
