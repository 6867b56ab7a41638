"""A running accounts service for tests, and what is asked of it most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from argon2 import PasswordHasher

from accounts.app import build
from accounts.settings import Settings
from chassis.auth import hash_key
from testkit import Space, running

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


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def tenant(http: httpx2.AsyncClient, name: str = "Kumo Cycles") -> dict[str, str]:
    answer = await http.post("/v1/organization/tenants", json={"name": name}, headers=bearer(OPERATOR))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def verify(http: httpx2.AsyncClient, space: Space, key: str) -> httpx2.Response:
    headers = space.headers("accounts", "")
    return await http.post("/internal/keys/verify", json={"key_hash": hash_key(key)}, headers=headers)
