"""A running accounts service for tests, and what is asked of it most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
import pytest_asyncio
from argon2 import PasswordHasher

from accounts.app import build
from accounts.settings import Settings
from chassis.auth import hash_key
from chassis.ids import new_id
from schemas import Event
from testkit import Space, running
from testkit.space import Seen

E = TypeVar("E", bound=Event)

OPERATOR = "sk-sartor-" + "o" * 43
PASSWORD = "correct horse battery"
HASHER = "accounts.passwords.PasswordHasher"
CHEAP = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
"""Hashes passwords: one as it is stored takes 64 MiB and half a second of a processor; these tests make hundreds."""


@asynccontextmanager
async def accounts(space: Space, tmp_path: Path, key: str = OPERATOR, **more: Any) -> AsyncIterator[httpx2.AsyncClient]:
    (tmp_path / "operator").write_text(key)
    more |= {"operator_key_file": tmp_path / "operator", "sign_in_attempts": 3}
    settings = space.settings(Settings, "accounts", **more)
    async with running(build(settings)) as url, httpx2.AsyncClient(base_url=url, timeout=30) as http:
        yield http


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(shared_space: Space, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx2.AsyncClient]:
    """Asks one accounts that the tests of a module share; each brings its own tenants."""
    with pytest.MonkeyPatch.context() as meanwhile:
        meanwhile.setattr("accounts.store.LAST_USED_WRITTEN_EVERY", 1.0)
        async with AsyncExitStack() as running:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(HASHER, CHEAP)
                http = await running.enter_async_context(accounts(shared_space, tmp_path_factory.mktemp("operator")))
            yield http


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(shared: httpx2.AsyncClient, shared_space: Space) -> AsyncIterator[Seen]:
    """What the shared accounts published; see `of_tenant`."""
    async with shared_space.probe("accounts") as found:
        yield found


def of_tenant(seen: Seen, kind: type[E], tenant_id: str) -> list[E]:
    """Events of one kind about one tenant."""
    return [event for event in seen.of(kind) if event.tenant_id == tenant_id]


def an_address() -> str:
    """An e-mail address that nobody else in this installation has."""
    return f"a@{new_id('b')}.example"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def tenant(http: httpx2.AsyncClient, name: str = "Kumo Cycles") -> dict[str, str]:
    answer = await http.post("/v1/organization/tenants", json={"name": name}, headers=bearer(OPERATOR))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def verify(http: httpx2.AsyncClient, space: Space, key: str) -> httpx2.Response:
    headers = space.headers("accounts", "")
    return await http.post("/internal/keys/verify", json={"key_hash": hash_key(key)}, headers=headers)
