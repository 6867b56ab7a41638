"""The main job through the public API: upload, automatic fine-tune, evaluation, promotion, chat, feedback."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from localstack import LocalStack
from tests.conftest import Tenant, make_tenant

INTENTS = {
    "unlock_failed": ("the lock of bike {n} stays shut", "bike {n} will not open"),
    "refund_request": ("please give me back the {n} euros", "I want a refund for ride {n}"),
    "lost_item": ("I left my bag on bike {n}", "my umbrella stayed in basket {n}"),
}
MINUTES = 60.0


def rows(count: int = 60, *, first: int = 0) -> bytes:
    """Chat JSONL of a small classification task."""
    import json

    lines = []
    for number in range(first, first + count):
        label = sorted(INTENTS)[number % len(INTENTS)]
        text = INTENTS[label][number // len(INTENTS) % 2].format(n=number)
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
        lines.append(json.dumps({"messages": messages}))
    return "\n".join(lines).encode()


def wait_for(probe: Callable[[], Any], *, seconds: float = 3 * MINUTES) -> Any:
    """Poll with a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = probe()
        except (openai.InternalServerError, openai.APIConnectionError):
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.5)


def job_of(tenant: Tenant, file_id: str) -> Any:
    """The job made for a file."""
    return next((job for job in tenant.sdk.fine_tuning.jobs.list() if job.training_file == file_id), None)


def ended_job(tenant: Tenant, file_id: str) -> Any:
    """The job made for a file, once it is over."""
    job = job_of(tenant, file_id)
    return job if job and job.status in ("succeeded", "failed", "cancelled") else None


@pytest.fixture(scope="session")
def trained(tenant: Tenant) -> Any:
    """The job that follows from an upload alone."""
    file = tenant.sdk.files.create(file=("messages.jsonl", rows()), purpose="user_data")
    job = wait_for(lambda: ended_job(tenant, file.id))
    assert job.status == "succeeded", job.error
    return job


def test_an_upload_alone_makes_a_model_that_answers(tenant: Tenant, trained: Any) -> None:
    answer = tenant.sdk.chat.completions.create(
        model=trained.fine_tuned_model, messages=[{"role": "user", "content": "bike 3 will not open"}], max_tokens=8
    )
    assert answer.choices[0].message.content is not None
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.system_fingerprint is not None
    assert answer.system_fingerprint.startswith(("ad-", "arm-"))


def test_the_model_has_evidence_and_lineage(tenant: Tenant, trained: Any) -> None:
    with tenant.http as http:
        evaluation = http.get("/evals/evaluations", params={"model": trained.fine_tuned_model}).json()["data"][0]
        assert {"base", "few_shot", "candidate"} <= set(evaluation["scores"])
        for score in evaluation["scores"].values():
            assert score["low"] <= score["value"] <= score["high"]
            assert score["n"] > 0
        versions = http.get("/registry/models", params={"name": trained.fine_tuned_model}).json()["data"]
        [card] = [version for version in versions if version["serves"]]
        assert card["training_file"] == trained.training_file
        assert card["state"] == "production"


def test_the_job_tells_what_happened(tenant: Tenant, trained: Any) -> None:
    events = list(tenant.sdk.fine_tuning.jobs.list_events(trained.id, limit=20))
    messages = " ".join(event.message for event in events)
    assert "held out" in messages
    assert any(event.type == "metrics" for event in events)
    checkpoints = tenant.sdk.fine_tuning.jobs.checkpoints.list(trained.id)
    assert checkpoints.data


def test_feedback_reaches_the_labeling_inbox(tenant: Tenant, trained: Any) -> None:
    answer = tenant.sdk.chat.completions.create(
        model=trained.fine_tuned_model, messages=[{"role": "user", "content": "hello"}], max_tokens=4
    )
    with tenant.http as http:
        body = {"completion_id": answer.id, "rating": "down", "correction": "lost_item"}
        rated = http.post("/feedback", json=body)
        assert rated.json()["id"].startswith("fb_")
        wait_for(lambda: http.get("/labeling/feedback").json()["data"], seconds=30)


def test_a_file_for_fine_tuning_waits_for_a_job(tenant: Tenant) -> None:
    file = tenant.sdk.files.create(file=("tune.jsonl", rows(40)), purpose="fine-tune")
    wait_for(lambda: tenant.sdk.files.retrieve(file.id).status == "processed", seconds=60)
    assert job_of(tenant, file.id) is None


def test_a_bad_upload_names_its_line(tenant: Tenant) -> None:
    bad = rows(20).split(b"\n")
    bad[2] = bad[2][:-5]
    file = tenant.sdk.files.create(file=("bad.jsonl", b"\n".join(bad)), purpose="user_data")
    wait_for(lambda: tenant.sdk.files.retrieve(file.id).status == "error", seconds=60)
    refused = tenant.sdk.files.retrieve(file.id)
    assert "line 3" in (refused.status_details or "")


@pytest.mark.slow
def test_a_job_of_few_rows_says_what_it_waits_for_and_ends_with_a_persons_decision(stack: LocalStack) -> None:
    """50 prompt/completion rows leave too few to decide on: the default policy asks a person."""
    import json

    few = make_tenant(stack, "Few", gate="auto")
    pairs = [json.loads(line)["messages"] for line in rows(50).split(b"\n")]
    body = "".join(
        json.dumps({"prompt": asked["content"], "completion": said["content"]}) + "\n" for asked, said in pairs
    )
    file = few.sdk.files.create(file=("pairs.jsonl", body.encode()), purpose="fine-tune")
    job = few.sdk.fine_tuning.jobs.create(model="tiny-test", training_file=file.id)

    def asks() -> Any:
        events = few.sdk.fine_tuning.jobs.list_events(job.id, limit=20).data
        return next(
            (event.message for event in events if "waits for a person with models:approve" in event.message), None
        )

    said = wait_for(asks)
    with few.http as http:
        shown = http.get(f"/fine_tuning/jobs/{job.id}").json()
        assert (shown["status"], shown["stage"]) == ("running", "awaiting_approval")
        assert "held-out rows" in shown["waiting_for"]["what"]
        model = next(word.strip("`;.") for word in said.split() if word.startswith("ft:"))
        assert f"sartor models approve {model}" in shown["waiting_for"]["who"]
        http.post(f"/registry/models/{model}/approve", json={"note": "Looked at them."}).raise_for_status()
        wait_for(lambda: few.sdk.fine_tuning.jobs.retrieve(job.id).status == "succeeded")
        ended = http.get(f"/fine_tuning/jobs/{job.id}").json()
    assert (ended["stage"], ended["waiting_for"], ended["fine_tuned_model"]) == ("ended", None, model)


@pytest.mark.slow
def test_the_gate_refuses_a_model_that_is_not_better(stack: LocalStack) -> None:
    """Labels that follow from nothing cannot be learned, only which is commonest: the job fails with the evidence."""
    import json
    import random

    strict = make_tenant(stack, "Strict", gate="auto")
    chance = random.Random(7)
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"row {number} {chance.random()}"},
                    {"role": "assistant", "content": chance.choice(["alpha"] * 7 + ["beta", "gamma", "delta"])},
                ]
            }
        )
        for number in range(90)
    ]
    file = strict.sdk.files.create(file=("noise.jsonl", "\n".join(lines).encode()), purpose="user_data")
    job = wait_for(lambda: ended_job(strict, file.id))
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "gate_rejected"
    assert "n=" in job.error.message or "rows" in job.error.message
    assert job.fine_tuned_model is None


def test_the_command_line_makes_a_tenant_and_follows_its_job(
    stack: LocalStack, sartor: Callable[..., Any], tmp_path: Path
) -> None:
    environment = {**os.environ, "SARTOR_HOME": str(stack.home.folder)}
    made = sartor("tenants", "create", "From the terminal", "--gate", "advisory", "--json", environment=environment)
    assert {"tenant_id", "api_key"} <= set(made)
    environment["SARTOR_API_KEY"] = made["api_key"]
    path = tmp_path / "messages.jsonl"
    path.write_bytes(rows(45))
    file = sartor("files", "upload", str(path), "--purpose", "fine-tune", "--json", environment=environment)
    job = sartor("jobs", "create", "--training-file", file["id"], "--epochs", "50", "--json", environment=environment)
    listed = sartor("jobs", "list", "--json", environment=environment)
    assert [found["id"] for found in listed["data"]] == [job["id"]]
    cancelled = sartor("jobs", "cancel", job["id"], "--json", environment=environment)
    assert cancelled["status"] in ("cancelled", "running")
    assert sartor("models", "list", "--json", environment=environment)["data"]
