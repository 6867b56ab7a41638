"""The operator has found and removed what earlier releases left of what was deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from accounts_harness import OPERATOR, accounts, bearer, tenant
from fastapi import FastAPI, Request

from testkit import Space, running

URL = "/v1/organization/leftovers"


@asynccontextmanager
async def with_owners(space: Space, tmp_path: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, list[bool]]]:
    """Accounts, with ingest, registry and trainer played by one application, and what they were asked."""
    app, asked = FastAPI(), []
    left = {"found": 3}

    @app.post("/internal/leftovers")
    async def leftovers(request: Request) -> dict[str, int]:
        body: dict[str, Any] = await request.json()
        asked.append(body["purge"])
        purged = min(2, left["found"]) if body["purge"] else 0
        left["found"] -= purged
        return {"found": left["found"], "purged": purged}

    async with running(app) as peer:
        urls = dict.fromkeys(("ingest_url", "registry_url", "trainer_url"), peer)
        async with accounts(space, tmp_path, **urls) as http:
            yield http, asked


async def test_the_operator_looks_first_and_has_it_removed_then(space: Space, tmp_path: Path) -> None:
    async with with_owners(space, tmp_path) as (http, asked):
        looked = (await http.get(URL, headers=bearer(OPERATOR))).json()["data"]
        assert [(one["service"], one["found"], one["purged"]) for one in looked] == [
            ("ingest", 3, 0),
            ("registry", 3, 0),
            ("trainer", 3, 0),
        ]
        assert asked == [False] * 3
        done = (await http.post(f"{URL}/purge", headers=bearer(OPERATOR))).json()["data"]
        assert [(one["found"], one["purged"]) for one in done] == [(1, 2), (0, 1), (0, 0)]
        assert asked[3:] == [True] * 3
        trail = (await http.get("/v1/organization/audit_logs", headers=bearer(OPERATOR))).json()["data"]
        assert [line["action"] for line in trail].count("leftovers.purge") == 1


async def test_nobody_else_does(space: Space, tmp_path: Path) -> None:
    async with with_owners(space, tmp_path) as (http, asked):
        owner = bearer((await tenant(http))["api_key"])
        assert (await http.get(URL, headers=owner)).status_code == 403
        assert (await http.post(f"{URL}/purge", headers=owner)).status_code == 403
        assert asked == []
