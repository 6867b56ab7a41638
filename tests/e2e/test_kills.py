"""A service is killed while it is needed: everything ends as if it had not been, only later."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from localstack import LocalStack
from tests.conftest import LEAN, Tenant, make_tenant
from tests.e2e.test_main_way import ended_job, job_of, rows, wait_for
from tests.tiny_stack import tiny_stack

pytestmark = pytest.mark.timeout(400)
"""The first of them starts its stack, beside the other's."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of these tests' own: they kill its services, but not the broker."""
    often = {**LEAN, "SARTOR_TRAINER_SAVE_EVERY_STEPS": "5"}
    with tiny_stack(tmp_path_factory.mktemp("killed"), often, durable_log=False) as running:
        yield running


def test_a_killed_trainer_resumes_and_ends_once(stack: LocalStack) -> None:
    """`kill -9` of the worker and its training process in mid-training."""
    tenant = make_tenant(stack, "Unlucky")
    file = tenant.sdk.files.create(file=("messages.jsonl", rows(60)), purpose="fine-tune")
    job = tenant.sdk.fine_tuning.jobs.create(
        model="tiny-test",
        training_file=file.id,
        seed=5,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 40, "batch_size": 4}}},
    )
    checkpoint = wait_for(lambda: tenant.sdk.fine_tuning.jobs.checkpoints.list(job.id).data)
    assert tenant.sdk.fine_tuning.jobs.retrieve(job.id).status == "running"
    trainer = next(process for process in stack.status(sample_seconds=0) if process.name == "trainer")
    for process in [psutil.Process(trainer.pid), *psutil.Process(trainer.pid).children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)
    ended = wait_for(lambda: ended_job(tenant, file.id))
    assert ended.status == "succeeded", ended.error
    messages = [event.message for event in tenant.sdk.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert any("resumed" in message for message in messages), messages
    assert checkpoint
    ours = [model.id for model in tenant.sdk.models.list() if model.id.startswith("ft:")]
    assert ours == [ended.fine_tuned_model]


@pytest.mark.parametrize("victim", ["registry", "evaluator", "model_server", "ingest"])
def test_a_killed_service_costs_only_time(stack: LocalStack, victim: str) -> None:
    tenant = make_tenant(stack, f"Without {victim}")
    file = tenant.sdk.files.create(file=("messages.jsonl", rows(45)), purpose="user_data")
    if victim != "ingest":
        wait_for(lambda: (job := job_of(tenant, file.id)) and job.status == "running")
    process = next(process for process in stack.status(sample_seconds=0) if process.name == victim)
    os.kill(process.pid, signal.SIGKILL)
    job = wait_for(lambda: ended_job(tenant, file.id))
    assert job.status == "succeeded", job.error
    wait_for(lambda: _answers(tenant, job.fine_tuned_model), seconds=60)
    # What ingest had done before may have gone on without it: the next test needs it back.
    wait_for(lambda: tenant.sdk.files.retrieve(file.id).status == "processed", seconds=60)


def _answers(tenant: Tenant, model: str) -> Any:
    return tenant.sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "bike 1 will not open"}], max_tokens=4
    ).choices
