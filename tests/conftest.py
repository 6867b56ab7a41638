"""Fixtures of the tests that span services: one whole stack on the tiny base model, and two tenants."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI

from chassis.settings import ServiceSettings
from localstack import LocalStack
from testkit import Space
from testkit.alone import NOWHERE
from tests.tiny_stack import tiny_stack

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Tenant:
    """A tenant of the running stack and its first key."""

    base_url: str
    tenant_id: str
    api_key: str

    @property
    def sdk(self) -> openai.OpenAI:
        """The unmodified SDK as this tenant, refusing answers whose shape it does not know."""
        return openai.OpenAI(
            base_url=self.base_url, api_key=self.api_key, max_retries=2, _strict_response_validation=True
        )

    @property
    def http(self) -> httpx2.Client:
        """A plain client as this tenant."""
        return httpx2.Client(
            base_url=self.base_url, headers={"authorization": f"Bearer {self.api_key}"}, timeout=60, trust_env=False
        )


LEAN = {
    "OMP_NUM_THREADS": "1",  # more slow the tiny model down
    "SARTOR_KAFKA_SESSION_TIMEOUT_MS": "6000",
    "SARTOR_TRAINER_LEASE_SECONDS": "5",
    "SARTOR_TRAINER_THREADS": "1",
}
"""Environment of a stack beside other tests."""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Every service as a process of its own, behind the ingress, for all tests that only use it."""
    beside_tests = {**LEAN, "SARTOR_TRAINER_NICENESS": "0"}  # they would leave training nothing
    with tiny_stack(tmp_path_factory.mktemp("whole"), beside_tests, durable_log=False) as running:
        yield running


def make_tenant(stack: LocalStack, name: str, **policy: Any) -> Tenant:
    """A new tenant, made with the stack's operator key."""
    answer = httpx2.post(
        f"{stack.base_url}/organization/tenants",
        headers={"authorization": f"Bearer {stack.home.secret('operator_key')}"},
        json={"name": name, "policy": {"gate": "advisory", **policy}},
        timeout=30,
    )
    answer.raise_for_status()
    made = answer.json()
    return Tenant(stack.base_url, made["tenant_id"], made["api_key"])


def until_bases_answer(tenant: Tenant) -> None:
    """Wait until every base model with weights has a replica that proved it: of a fresh stack the registry may not
    have heard of them yet."""

    def answer() -> bool:
        bases = http.get("/registry/base_models").raise_for_status().json()["data"]
        own = [base for base in bases if base["fine_tuning"]]
        return bool(own) and all(base["replicas"] for base in own)

    with tenant.http as http:
        deadline = time.monotonic() + 30
        while not answer():
            assert time.monotonic() < deadline, "a base model has no replica"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def tenant(stack: LocalStack) -> Tenant:
    """A tenant whose gate lets every candidate through: the tiny model is not made to be good."""
    made = make_tenant(stack, "First")
    until_bases_answer(made)
    return made


@pytest.fixture(scope="session")
def stranger(stack: LocalStack) -> Tenant:
    """Another tenant, who must see nothing of the first."""
    return make_tenant(stack, "Second")


def builder(folder: Path, models: Path) -> Callable[[str], FastAPI]:
    """Builds a service's application without starting it, to look at how it is wired.

    Args:
        folder: for what its settings name.
        models: base models.
    """
    space = Space(NOWHERE, folder)
    for name in ("operator_key", "session_secret"):
        (folder / name).write_text("sk-sartor-" + "x" * 43)

    def build(name: str) -> FastAPI:
        settings_module = importlib.import_module(f"{name}.settings")
        settings: type[ServiceSettings] = settings_module.Settings
        extra: dict[str, Any] = {
            "operator_key_file": folder / "operator_key",
            "session_secret_file": folder / "session_secret",
            "models_dir": models,
            "base_model": "tiny-test",
            "trainer_work_dir": folder / "work",
        }
        known = {field: value for field, value in extra.items() if field in settings.model_fields}
        app: FastAPI = importlib.import_module(f"{name}.app").build(space.settings(settings, name, **known))
        return app

    return build


@pytest.fixture
def built(tmp_path: Path, tiny_models: Path) -> Callable[[str], FastAPI]:
    """Builds a service's application without starting it."""
    return builder(tmp_path, tiny_models)


@pytest.fixture(scope="session")
def sartor() -> Callable[..., Any]:
    """Runs the command line and returns its decoded JSON."""

    def run(*arguments: str, environment: dict[str, str]) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "sartor_cli.main", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
