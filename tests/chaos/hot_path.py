"""The hot path survives its neighbours: MongoDB and accounts killed and away, and who was seen before goes on chatting.

`make cells` runs it, on a whole stack of its own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from xmlrpc.client import Fault

import httpx2
import pytest

from localstack import LocalStack
from tests.chaos.killing import pid_of
from tests.conftest import Tenant, make_tenant
from tests.e2e.test_main_way import ended_job, rows, wait_for

pytestmark = pytest.mark.timeout(900)

AWAY_SECONDS = 120.0
EVERY_SECONDS = 5.0
ANSWER_SECONDS = 20.0
"""Longest that an answer may take meanwhile, with an engine that answers in about one."""


@contextmanager
def killed(stack: LocalStack, *names: str) -> Iterator[None]:
    """These programs are killed, and stay away while the context lasts."""
    supervisor = stack._rpc().supervisor
    for name in names:
        os.kill(pid_of(supervisor.getProcessInfo(name)), signal.SIGKILL)
        with suppress(Fault):  # it was not started again yet
            supervisor.stopProcess(name)
        assert supervisor.getProcessInfo(name)["statename"] != "RUNNING"
    try:
        yield
    finally:
        for name in names:
            with suppress(Fault):
                supervisor.startProcess(name, False)


def chat(stack: LocalStack, key: str, model: str) -> httpx2.Response:
    """A chat of one token."""
    body = {"model": model, "messages": [{"role": "user", "content": "bike 3 will not open"}], "max_tokens": 1}
    headers = {"authorization": f"Bearer {key}"}
    url = f"{stack.base_url}/chat/completions"
    return httpx2.post(url, json=body, headers=headers, timeout=60, trust_env=False)


def new_key(tenant: Tenant) -> tuple[str, str]:
    """Id and secret."""
    with tenant.http as http:
        made = http.post("/organization/keys", json={"name": "k", "role": "engineer"}).json()
    return made["id"], made["api_key"]


def test_keys_and_models_seen_before_answer_while_mongodb_and_accounts_are_away(
    tmp_path: Path, tiny_models: Path
) -> None:
    with LocalStack(tmp_path, base_model="tiny-test", models_dir=tiny_models, usual_ports=False) as stack:
        tenant = make_tenant(stack, "First")
        file = tenant.sdk.files.create(file=("messages.jsonl", rows()), purpose="user_data")
        job = wait_for(lambda: ended_job(tenant, file.id), seconds=400)
        assert job.status == "succeeded", job.error
        _, seen = new_key(tenant)
        _, unseen = new_key(tenant)
        revoked_id, revoked = new_key(tenant)
        models = (job.fine_tuned_model, "tiny-test")
        for model in models:
            assert chat(stack, seen, model).status_code == 200
        assert chat(stack, revoked, "tiny-test").status_code == 200
        with tenant.http as http:
            assert http.delete(f"/organization/keys/{revoked_id}").status_code == 200
        wait_for(lambda: chat(stack, revoked, "tiny-test").status_code == 401, seconds=20)

        took: list[float] = []
        refused: list[str] = []
        with killed(stack, "mongodb", "accounts"):
            until = time.monotonic() + AWAY_SECONDS
            while time.monotonic() < until:
                for model in models:
                    began = time.monotonic()
                    answer = chat(stack, seen, model)
                    took.append(time.monotonic() - began)
                    if answer.status_code != 200:
                        refused.append(answer.text)
                assert chat(stack, unseen, "tiny-test").status_code == 503
                assert chat(stack, revoked, "tiny-test").status_code == 401
                time.sleep(EVERY_SECONDS)
        took.sort()
        print(f"{len(took)} chats while away: {len(refused)} refused; median {took[len(took) // 2]:.2f} s, "
              f"longest {took[-1]:.2f} s")  # fmt: skip
        assert refused == []
        assert took[-1] < ANSWER_SECONDS
        wait_for(lambda: chat(stack, unseen, job.fine_tuned_model).status_code == 200, seconds=120)
