"""Tenants, keys, people and the audit trail, on the real stack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from accounts.app import build
from accounts.domain import AuditEntry, Chain, make_slug
from accounts.settings import Settings
from chassis.auth import Principal, hash_key
from schemas import KeyRevoked, TenantCreated, TenantPolicyChanged
from stores import mongo
from testkit import Space, eventually, running

OPERATOR = "sk-sartor-" + "o" * 43
PASSWORD = "correct horse battery"


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


async def test_the_operator_makes_tenants(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http, space.probe("accounts") as seen:
        made = await tenant(http)
        created = (await eventually(lambda: seen.of(TenantCreated)))[0]
        assert (created.tenant_id, created.slug) == (made["tenant_id"], made["slug"])
        known = (await verify(http, space, made["api_key"])).json()
        assert (known["tenant_id"], known["role"], known["organization"]) == (made["tenant_id"], "owner", made["slug"])
        refused = await http.post("/v1/organization/tenants", json={"name": "x"}, headers=bearer(made["api_key"]))
        assert refused.status_code == 403


async def test_a_revoked_key_is_refused_and_announced(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http, space.probe("accounts") as seen:
        made = await tenant(http)
        owner = bearer(made["api_key"])
        key = (await http.post("/v1/organization/keys", json={"name": "ci", "role": "viewer"}, headers=owner)).json()
        assert (await verify(http, space, key["api_key"])).status_code == 200
        assert (await http.delete(f"/v1/organization/keys/{key['id']}", headers=owner)).json()["deleted"]
        answer = await verify(http, space, key["api_key"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "revoked_api_key")
        assert (await eventually(lambda: seen.of(KeyRevoked)))[0].key_hash == hash_key(key["api_key"])
        listed = (await http.get("/v1/organization/keys", headers=owner)).text
        assert key["api_key"] not in listed
        assert hash_key(key["api_key"]) not in listed


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"role": "operator"}, 400),
        ({"role": "emperor"}, 400),
        ({"role": "owner"}, 403),
        ({"role": "engineer", "scopes": ["organization:write"]}, 400),
        ({"role": "engineer", "scopes": ["everything"]}, 400),
        ({"role": "engineer", "scopes": ["files:*", "chat:read"]}, 200),
        ({"role": "viewer", "expires_at": 1}, 400),
    ],
)
async def test_nobody_grants_more_than_they_have(space: Space, tmp_path: Path, asked: dict, status: int) -> None:
    async with accounts(space, tmp_path) as http:
        headers = space.headers("accounts", "tenant_x", role="owner")
        if asked.get("role") == "owner":
            headers = space.headers("accounts", "tenant_x", role="engineer")
        answer = await http.post("/v1/organization/keys", json={"name": "k", **asked}, headers=headers)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("scopes", [["files:*"], ["chat:read"], ["*"], ["files:write"]])
async def test_a_key_of_few_scopes_grants_no_others(space: Space, tmp_path: Path, scopes: list[str]) -> None:
    async with accounts(space, tmp_path) as http:
        owner = bearer((await tenant(http))["api_key"])
        asked = {"name": "admin", "role": "owner", "scopes": ["organization:write"]}
        admin = bearer((await http.post("/v1/organization/keys", json=asked, headers=owner)).json()["api_key"])
        wanted = {"name": "k", "role": "engineer", "scopes": scopes}
        assert (await http.post("/v1/organization/keys", json=wanted, headers=admin)).status_code == 403
        person = {"email": "a@b.example", "password": PASSWORD, "role": "owner"}
        assert (await http.post("/v1/organization/users", json=person, headers=admin)).status_code == 403
        assert (await http.post("/v1/organization/users", json=person, headers=owner)).status_code == 200


async def test_a_person_shut_out_or_demoted_loses_it_with_their_keys(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        made = await tenant(http)
        owner = bearer(made["api_key"])
        person = {"email": "a@b.example", "password": PASSWORD, "role": "engineer"}
        user = (await http.post("/v1/organization/users", json=person, headers=owner)).json()
        as_person = space.tokens("console").sign(
            "accounts",
            made["tenant_id"],
            Principal(tenant_id=made["tenant_id"], user_id=user["id"], role="owner", organization="org"),
        )
        asked = {"name": "theirs", "role": "engineer"}
        key = (await http.post("/v1/organization/keys", json=asked, headers=bearer(as_person))).json()["api_key"]
        assert "files:write" in (await verify(http, space, key)).json()["scopes"]
        url = f"/v1/organization/users/{user['id']}"
        assert (await http.patch(url, json={"role": "viewer"}, headers=owner)).status_code == 200
        scopes = (await verify(http, space, key)).json()["scopes"]
        assert "files:read" in scopes
        assert "files:write" not in scopes
        assert (await http.patch(url, json={"disabled": True}, headers=owner)).status_code == 200
        assert (await verify(http, space, key)).status_code == 401


async def test_a_secret_is_not_kept_and_a_lost_one_is_replaced(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        owner = {**bearer((await tenant(http))["api_key"]), "idempotency-key": "once"}
        asked = {"name": "ci", "role": "viewer"}
        first = (await http.post("/v1/organization/keys", json=asked, headers=owner)).json()
        again = await http.post("/v1/organization/keys", json=asked, headers=owner)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "answer_not_kept")
        records = mongo.connect(space.settings(Settings, "accounts"), "accounts")["idempotency"]
        kept = [record async for record in records.find({})]
        assert kept
        assert first["api_key"] not in str(kept)
        # As if the service had been killed before it answered.
        await records.delete_many({})
        replaced = (await http.post("/v1/organization/keys", json=asked, headers=owner)).json()
        assert replaced["id"] == first["id"]
        assert (await verify(http, space, first["api_key"])).status_code == 401
        assert (await verify(http, space, replaced["api_key"])).status_code == 200


async def test_guesses_at_the_same_time_are_all_counted(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        service = space.headers("accounts", "")
        asked = {"organization": "Org", "email": "a@b.example", "password": PASSWORD}
        assert (await http.post("/internal/users/sign_up", json=asked, headers=service)).status_code == 200
        guess = {"email": "a@b.example", "password": "wrong wrong wrong"}
        answers = await asyncio.gather(
            *(http.post("/internal/users/sign_in", json=guess, headers=service) for _ in range(12))
        )
        codes = [answer.status_code for answer in answers]
        assert codes.count(401) <= 3
        assert codes.count(429) >= 9


async def test_strangers_can_be_kept_out(space: Space, tmp_path: Path) -> None:
    asked = {"organization": "Org", "email": "a@b.example", "password": PASSWORD}
    for settings, status in (({"sign_up": False}, 403), ({"sign_ups_per_hour": 0}, 429)):
        async with accounts(space, tmp_path, **settings) as http:
            answer = await http.post("/internal/users/sign_up", json=asked, headers=space.headers("accounts", ""))
            assert answer.status_code == status


async def test_people_sign_up_and_in(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        service = space.headers("accounts", "")
        asked = {"organization": "雲自転車", "email": " Rider@Example.com ", "password": PASSWORD}
        person = (await http.post("/internal/users/sign_up", json=asked, headers=service)).json()
        assert (person["role"], person["email"], person["name"]) == ("owner", "rider@example.com", "雲自転車")
        again = await http.post("/internal/users/sign_up", json=asked, headers=service)
        assert again.status_code == 409
        good = {"email": "RIDER@example.com", "password": PASSWORD}
        assert (await http.post("/internal/users/sign_in", json=good, headers=service)).json()["user_id"] == person[
            "user_id"
        ]
        for _ in range(3):
            wrong = await http.post("/internal/users/sign_in", json={**good, "password": "x"}, headers=service)
            assert wrong.status_code == 401
        assert (await http.post("/internal/users/sign_in", json=good, headers=service)).status_code == 429


@pytest.mark.parametrize("asked", [{"email": "nobody"}, {"password": "short"}, {"organization": " "}])
async def test_bad_sign_ups_are_told_why(space: Space, tmp_path: Path, asked: dict[str, str]) -> None:
    async with accounts(space, tmp_path) as http:
        good = {"organization": "Org", "email": "a@b.example", "password": PASSWORD}
        answer = await http.post(
            "/internal/users/sign_up", json={**good, **asked}, headers=space.headers("accounts", "")
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]


async def test_policy_and_audit_trail(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http, space.probe("accounts") as seen:
        owner = bearer((await tenant(http))["api_key"])
        changed = await http.patch("/v1/organization", json={"gate": "approval"}, headers=owner)
        assert changed.json()["policy"] == {"tune_on_upload": True, "gate": "approval", "base_model": ""}
        await eventually(lambda: seen.of(TenantPolicyChanged))
        trail = (await http.get("/v1/organization/audit_logs", headers=owner)).json()
        assert trail["intact"]
        assert [entry["action"] for entry in trail["data"]] == ["tenant.policy", "key.create", "tenant.create"]
        next_page = {"after": trail["data"][0]["id"], "limit": 1}
        older = (await http.get("/v1/organization/audit_logs", params=next_page, headers=owner)).json()
        assert [entry["action"] for entry in older["data"]] == ["key.create"]
        assert older["has_more"]
        lines = mongo.connect(space.settings(Settings, "accounts"), "accounts")["audit"]
        await lines.delete_one({"digest": trail["data"][0]["digest"]})
        assert not (await http.get("/v1/organization/audit_logs", headers=owner)).json()["intact"]


async def test_a_new_operator_key_replaces_the_old(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        await tenant(http)
    fresh = "sk-sartor-" + "n" * 43
    async with accounts(space, tmp_path, fresh) as http:
        assert (await http.get("/v1/organization/tenants", headers=bearer(OPERATOR))).status_code == 401
        assert (await http.get("/v1/organization/tenants", headers=bearer(fresh))).json()["data"]


def test_the_audit_chain_shows_an_edit() -> None:
    entries: list[AuditEntry] = []
    for position in range(1, 5):
        previous = entries[-1].digest if entries else ""
        entry = AuditEntry(tenant_id="t", position=position, at=1, actor="a", action="b", target="c", previous=previous)
        entries.append(entry.sealed())
    assert broken(entries) is None
    assert broken([*entries[:1], entries[1].model_copy(update={"actor": "z"}), *entries[2:]]) == 2
    assert broken([*entries[:1], *entries[2:]]) == 2


def broken(entries: list[AuditEntry]) -> int | None:
    chain = Chain()
    return next((place for place, entry in enumerate(entries, start=1) if not chain.follows(entry)), None)


def test_slugs() -> None:
    assert make_slug("Kumo Cycles & Co.", "tenant_1").startswith("kumo-cycles-co-")
    assert make_slug("雲自転車", "tenant_1").startswith("org-")
    assert make_slug("a", "tenant_1") != make_slug("a", "tenant_2")
