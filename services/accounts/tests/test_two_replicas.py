"""Two replicas of accounts: guesses at a password, and what a key was let do, are counted over both."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
from accounts_harness import PASSWORD, accounts, bearer, tenant

from testkit import Space, eventually


async def _both(open_: AsyncExitStack, space: Space, folder: Path, **more: Any) -> list[httpx2.AsyncClient]:
    return [
        await open_.enter_async_context(accounts(space, folder, replica_id=f"accounts {number}", **more))
        for number in (1, 2)
    ]


async def test_guesses_at_a_password_are_counted_over_both(space: Space, tmp_path: Path) -> None:
    async with AsyncExitStack() as open_:
        first, second = await _both(open_, space, tmp_path)
        service = space.headers("accounts", "")
        asked = {"email": "mika@example.org", "password": PASSWORD, "organization": "Kumo", "address": "10.0.0.9"}
        made = await first.post("/internal/users/sign_up", json=asked, headers=service)
        assert made.status_code == 200, made.text

        async def sign_in(http: httpx2.AsyncClient, password: str) -> int:
            body = {"email": asked["email"], "password": password, "address": "10.0.0.1"}
            return (await http.post("/internal/users/sign_in", json=body, headers=service)).status_code

        assert [await sign_in(http, "guess") for http in (first, second, first)] == [401] * 3
        assert [await sign_in(http, PASSWORD) for http in (first, second)] == [429, 429]


async def test_a_key_revoked_at_one_replica_is_refused_by_the_other(space: Space, tmp_path: Path) -> None:
    async with AsyncExitStack() as open_:
        first, second = await _both(open_, space, tmp_path, key_cache_seconds=3600)
        owner = bearer((await tenant(first))["api_key"])
        made = (await first.post("/v1/organization/keys", json={"role": "owner"}, headers=owner)).json()
        mine = bearer(made["api_key"])
        for http in (first, second):
            assert (await http.get("/v1/organization", headers=mine)).status_code == 200
        assert (await first.delete(f"/v1/organization/keys/{made['id']}", headers=owner)).status_code == 200
        for http in (first, second):

            async def refused(http: httpx2.AsyncClient = http) -> bool:
                return (await http.get("/v1/organization", headers=mine)).status_code == 401

            await eventually(refused, within=10)
