"""Tenants, keys, people and the audit trail, on the real stack."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from accounts_harness import OPERATOR, PASSWORD, accounts, an_address, bearer, of_tenant, tenant, verify
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from accounts import store
from accounts.domain import AuditEntry, Chain, make_slug
from accounts.settings import Settings
from chassis.auth import Principal, hash_key
from eventbus import DeadLetters
from schemas import KeyRevoked, TenantCreated, TenantPolicyChanged
from stores import mongo
from testkit import Space, eventually, running
from testkit.space import Seen

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_operator_makes_tenants(shared: httpx2.AsyncClient, shared_space: Space, seen: Seen) -> None:
    made = await tenant(shared)
    created = (await eventually(lambda: of_tenant(seen, TenantCreated, made["tenant_id"])))[0]
    assert (created.tenant_id, created.slug) == (made["tenant_id"], made["slug"])
    known = (await verify(shared, shared_space, made["api_key"])).json()
    assert (known["tenant_id"], known["role"], known["organization"]) == (made["tenant_id"], "owner", made["slug"])
    refused = await shared.post("/v1/organization/tenants", json={"name": "x"}, headers=bearer(made["api_key"]))
    assert refused.status_code == 403


async def test_a_revoked_key_is_refused_and_announced(
    shared: httpx2.AsyncClient, shared_space: Space, seen: Seen
) -> None:
    made = await tenant(shared)
    owner = bearer(made["api_key"])
    key = (await shared.post("/v1/organization/keys", json={"name": "ci", "role": "viewer"}, headers=owner)).json()
    assert (await verify(shared, shared_space, key["api_key"])).status_code == 200
    assert (await shared.delete(f"/v1/organization/keys/{key['id']}", headers=owner)).json()["deleted"]
    answer = await verify(shared, shared_space, key["api_key"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "revoked_api_key")
    revoked = (await eventually(lambda: of_tenant(seen, KeyRevoked, made["tenant_id"])))[0]
    assert revoked.key_hash == hash_key(key["api_key"])
    listed = (await shared.get("/v1/organization/keys", headers=owner)).text
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
async def test_nobody_grants_more_than_they_have(
    shared: httpx2.AsyncClient, shared_space: Space, asked: dict, status: int
) -> None:
    tenant_id = (await tenant(shared))["tenant_id"]
    headers = shared_space.headers("accounts", tenant_id, role="owner")
    if asked.get("role") == "owner":
        headers = shared_space.headers("accounts", tenant_id, role="engineer")
    answer = await shared.post("/v1/organization/keys", json={"name": "k", **asked}, headers=headers)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("scopes", [["files:*"], ["chat:read"], ["*"], ["files:write"]])
async def test_a_key_of_few_scopes_grants_no_others(shared: httpx2.AsyncClient, scopes: list[str]) -> None:
    owner = bearer((await tenant(shared))["api_key"])
    asked = {"name": "admin", "role": "owner", "scopes": ["organization:write"]}
    admin = bearer((await shared.post("/v1/organization/keys", json=asked, headers=owner)).json()["api_key"])
    wanted = {"name": "k", "role": "engineer", "scopes": scopes}
    assert (await shared.post("/v1/organization/keys", json=wanted, headers=admin)).status_code == 403
    person = {"email": "a@b.example", "role": "owner"}
    assert (await shared.post("/v1/organization/users", json=person, headers=admin)).status_code == 403
    assert (await shared.post("/v1/organization/users", json=person, headers=owner)).status_code == 200


async def make_key(http: httpx2.AsyncClient, maker: str, **asked: Any) -> httpx2.Response:
    return await http.post("/v1/organization/keys", json={"role": "owner", **asked}, headers=bearer(maker))


async def allowed(http: httpx2.AsyncClient, space: Space, key: str) -> dict[str, tuple[int, int]]:
    """By name, requests and tokens a minute of everything a key counts under."""
    known = (await verify(http, space, key)).json()["allowances"]
    return {one["of"]: (one["requests_per_minute"], one["tokens_per_minute"]) for one in known}


async def test_a_key_never_makes_one_that_outgrows_it(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    until = int(time.time()) + 3600
    mine = {"requests_per_minute": 50, "tokens_per_minute": 70, "expires_at": until}
    first = await tenant(shared)
    small = (await make_key(shared, first["api_key"], **mine)).json()
    for more in ({"requests_per_minute": 51}, {"tokens_per_minute": 71}, {"expires_at": until + 1}):
        refused = await make_key(shared, small["api_key"], **more)
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, next(iter(more)))
    silent = (await make_key(shared, small["api_key"])).json()
    assert {name: silent[name] for name in mine} == mine
    less = {"requests_per_minute": 40, "tokens_per_minute": 1, "expires_at": until - 1}
    lesser = (await make_key(shared, small["api_key"], **less)).json()
    assert {name: lesser[name] for name in less} == less
    least = (await make_key(shared, lesser["api_key"])).json()
    # All it made counts as its own: ten keys of fifty requests have fifty.
    assert await allowed(shared, shared_space, least["api_key"]) == {
        least["id"]: (40, 1),
        lesser["id"]: (40, 1),
        small["id"]: (50, 70),
        first["tenant_id"]: (6000, 1_000_000),
    }
    usual = (await make_key(shared, first["api_key"])).json()
    assert await allowed(shared, shared_space, usual["api_key"]) == {
        usual["id"]: (3000, 200_000),
        first["tenant_id"]: (6000, 1_000_000),
    }


async def test_a_limited_key_lets_nobody_in(shared: httpx2.AsyncClient) -> None:
    limits = ({"requests_per_minute": 50}, {"tokens_per_minute": 5}, {"expires_at": 2**33})
    person = {"email": "a@b.example", "role": "owner"}
    owner = (await tenant(shared))["api_key"]
    user = (await shared.post("/v1/organization/users", json=person, headers=bearer(owner))).json()
    url = f"/v1/organization/users/{user['id']}"
    for limit in limits:
        key = (await make_key(shared, owner, **limit)).json()["api_key"]
        made = (await make_key(shared, key)).json()["api_key"]
        for maker in (key, made):
            wanted = {**person, "email": "c@d.example"}
            assert (await shared.post("/v1/organization/users", json=wanted, headers=bearer(maker))).status_code == 403
        assert (await shared.patch(url, json={"role": "owner"}, headers=bearer(key))).status_code == 403


async def test_a_narrow_key_changes_nobody_who_may_more(shared: httpx2.AsyncClient) -> None:
    person = {"email": "a@b.example", "role": "owner"}
    owner = (await tenant(shared))["api_key"]
    user = (await shared.post("/v1/organization/users", json=person, headers=bearer(owner))).json()
    scopes = ["organization:write", "labeling:annotate"]
    narrow = (await make_key(shared, owner, scopes=scopes)).json()["api_key"]
    for change in ({"role": "labeler"}, {"disabled": True}, {"role": "labeler", "disabled": True}):
        answer = await shared.patch(f"/v1/organization/users/{user['id']}", json=change, headers=bearer(narrow))
        assert answer.status_code == 403, change


async def test_keys_for_the_users_of_an_app_are_nobodys(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    """A person's keys for end users are not that person: they would see each other's things, and the person's."""
    person = {"email": "a@b.example", "role": "owner"}
    first = (await tenant(shared))["api_key"]
    user = (await shared.post("/v1/organization/users", json=person, headers=bearer(first))).json()
    mine = (await make_key(shared, first, user_id=user["id"])).json()["api_key"]

    async def whose(**asked: Any) -> str | None:
        key = (await make_key(shared, mine, **asked)).json()["api_key"]
        return (await verify(shared, shared_space, key)).json()["user_id"]

    assert await whose() == user["id"]
    assert [await whose(role="end_user") for _ in range(2)] == [None, None]


async def test_only_the_operator_changes_what_a_tenant_has_in_all(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path, tenant_requests_per_minute=50) as http:
        first = await tenant(http)
        over = await make_key(http, first["api_key"], requests_per_minute=51)
        assert (over.status_code, over.json()["error"]["param"]) == (403, "requests_per_minute")
        url = f"/v1/organization/tenants/{first['tenant_id']}"
        raised = {"requests_per_minute": 80, "tokens_per_minute": 9, "keys": 3, "people": 1}
        assert (await http.patch(url, json=raised, headers=bearer(first["api_key"]))).status_code == 403
        shown = (await http.patch(url, json=raised, headers=bearer(OPERATOR))).json()
        assert shown["limits"] == raised
        own = (await http.get("/v1/organization", headers=bearer(first["api_key"]))).json()
        assert own["limits"] == raised
        assert (await allowed(http, space, first["api_key"]))[first["tenant_id"]] == (80, 9)
        trail = (await http.get("/v1/organization/audit_logs", headers=bearer(first["api_key"]))).json()["data"]
        assert (trail[0]["action"], trail[0]["details"]) == ("tenant.ceiling", raised)

        made = [await make_key(http, first["api_key"], requests_per_minute=80) for _ in range(3)]
        assert [answer.status_code for answer in made] == [200, 200, 403]
        assert made[-1].json()["error"]["code"] == "too_many_keys"
        revoked = f"/v1/organization/keys/{made[0].json()['id']}"
        assert (await http.delete(revoked, headers=bearer(first["api_key"]))).status_code == 200
        assert (await make_key(http, first["api_key"])).status_code == 200

        people = [
            await http.post(
                "/v1/organization/users",
                json={"email": f"{name}@b.example"},
                headers=bearer(first["api_key"]),
            )
            for name in "ab"
        ]
        assert [answer.status_code for answer in people] == [200, 403]
        assert people[-1].json()["error"]["code"] == "too_many_people"


async def test_the_limit_of_a_key_holds_here_too(shared: httpx2.AsyncClient) -> None:
    key = (await make_key(shared, (await tenant(shared))["api_key"], requests_per_minute=2)).json()["api_key"]
    answers = [await shared.get("/v1/organization/keys", headers=bearer(key)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_a_key_is_verified_though_nothing_can_be_written(
    shared: httpx2.AsyncClient, shared_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> Any:
        raise mongo.PyMongoError("no space left on device")

    key = (await make_key(shared, (await tenant(shared))["api_key"])).json()["api_key"]
    for write in ("update_one", "insert_one", "find_one_and_update", "bulk_write"):
        monkeypatch.setattr(mongo.AsyncIOMotorCollection, write, full)
    assert (await verify(shared, shared_space, key)).status_code == 200


async def test_the_last_use_of_a_key_is_noted(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    owner = (await tenant(shared))["api_key"]
    key = (await make_key(shared, owner)).json()
    assert key["last_used_at"] is None
    await verify(shared, shared_space, key["api_key"])

    async def noted() -> bool:
        listed = (await shared.get("/v1/organization/keys", headers=bearer(owner))).json()["data"]
        return next(one for one in listed if one["id"] == key["id"])["last_used_at"] is not None

    await eventually(noted)


async def test_the_operator_is_asked_for_before_anything_is_done(
    shared: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def done(*_: Any, **__: Any) -> Any:
        raise AssertionError("done before it was asked who calls")

    for name in ("find", "get", "replay"):
        monkeypatch.setattr(DeadLetters, name, done)
    owner = bearer((await tenant(shared))["api_key"])
    url = "/v1/organization/dead_letters"
    for method, path in (("GET", ""), ("GET", "/a.1"), ("POST", "/replay"), ("POST", "/a.1/replay")):
        answer = await shared.request(method, url + path, json={} if method == "POST" else None, headers=owner)
        assert answer.status_code == 403, (method, path)


async def test_a_policy_names_a_base_model_that_is_there(space: Space, tmp_path: Path) -> None:
    registry = FastAPI()

    @registry.get("/internal/base_models/{name}")
    async def base(name: str) -> Response:
        known = name == "tiny-test"
        error = {"error": {"message": "There is no such base model.", "code": "model_not_found"}}
        return JSONResponse({"id": name} if known else error, status_code=200 if known else 404)

    async with running(registry) as there, accounts(space, tmp_path, registry_url=there) as http:
        owner = bearer((await tenant(http))["api_key"])
        for base_model in ("tiny-test", "", "gpt-4o", "../../etc", "/etc", "a/b", "..", "x" * 300):
            status = 200 if base_model in ("tiny-test", "") else 400
            made = {"name": f"x {base_model}"[:50], "policy": {"base_model": base_model}}
            for answer in (
                await http.patch("/v1/organization", json={"base_model": base_model}, headers=owner),
                await http.post("/v1/organization/tenants", json=made, headers=bearer(OPERATOR)),
            ):
                assert answer.status_code == status, (base_model, answer.text)
                if status == 400:
                    assert "base_model" in answer.json()["error"]["param"]
                    assert len(answer.text) < 1000


async def test_what_strangers_send_is_bounded_text(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    good = {"email": "a@b.example", "password": PASSWORD}
    bad: list[tuple[str, dict[str, Any]]] = [
        ("sign_up", {**good, "organization": "Org", "password": "correct horse \ud83d battery"}),
        ("sign_up", {**good, "organization": "Org", "password": "p" * 5000}),
        ("sign_up", {**good, "organization": "O" * 5000}),
        ("sign_in", {**good, "email": "a\udc00@b.example"}),
        ("sign_in", {**good, "email": "a" * 5000}),
        ("sign_in", {**good, "remember": True}),
    ]
    headers = {**shared_space.headers("accounts", ""), "content-type": "application/json"}
    for path, body in bad:
        answer = await shared.post(f"/internal/users/{path}", content=json.dumps(body), headers=headers)
        assert answer.status_code == 400, answer.text
        assert len(answer.text) < 1000


async def test_a_person_shut_out_or_demoted_loses_it_with_their_keys(
    shared: httpx2.AsyncClient, shared_space: Space
) -> None:
    made = await tenant(shared)
    owner = bearer(made["api_key"])
    person = {"email": "a@b.example", "role": "engineer"}
    user = (await shared.post("/v1/organization/users", json=person, headers=owner)).json()
    as_person = shared_space.tokens("console").sign(
        "accounts",
        made["tenant_id"],
        Principal(tenant_id=made["tenant_id"], user_id=user["id"], role="owner", organization="org"),
    )
    asked = {"name": "theirs", "role": "engineer"}
    key = (await shared.post("/v1/organization/keys", json=asked, headers=bearer(as_person))).json()["api_key"]
    assert "files:write" in (await verify(shared, shared_space, key)).json()["scopes"]
    assert (await verify(shared, shared_space, key)).json()["owner_role"] == "engineer"
    url = f"/v1/organization/users/{user['id']}"
    assert (await shared.patch(url, json={"role": "viewer"}, headers=owner)).status_code == 200
    known = (await verify(shared, shared_space, key)).json()
    assert (known["role"], known["owner_role"]) == ("engineer", "viewer")
    scopes = known["scopes"]
    assert "files:read" in scopes
    assert "files:write" not in scopes
    assert (await shared.patch(url, json={"disabled": True}, headers=owner)).status_code == 200
    assert (await verify(shared, shared_space, key)).status_code == 401


async def test_a_secret_is_not_kept_and_a_lost_one_is_replaced(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    owner = {**bearer((await tenant(shared))["api_key"]), "idempotency-key": "once"}
    asked = {"name": "ci", "role": "viewer"}
    first = (await shared.post("/v1/organization/keys", json=asked, headers=owner)).json()
    again = await shared.post("/v1/organization/keys", json=asked, headers=owner)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "answer_not_kept")
    records = mongo.connect(shared_space.settings(Settings, "accounts"), "accounts")["idempotency"]
    kept = [record async for record in records.find({})]
    assert kept
    assert first["api_key"] not in str(kept)
    # As if the service had been killed before it answered.
    await records.update_many({}, {"$unset": {"status": ""}, "$set": {"until_ms": 0}})
    replaced = (await shared.post("/v1/organization/keys", json=asked, headers=owner)).json()
    assert replaced["id"] == first["id"]
    assert (await verify(shared, shared_space, first["api_key"])).status_code == 401
    assert (await verify(shared, shared_space, replaced["api_key"])).status_code == 200


async def test_guesses_at_the_same_time_are_all_counted(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    service = shared_space.headers("accounts", "")
    asked = {"organization": "Org", "email": an_address(), "password": PASSWORD}
    assert (await shared.post("/internal/users/sign_up", json=asked, headers=service)).status_code == 200
    guess = {"email": asked["email"], "password": "wrong wrong wrong"}
    answers = await asyncio.gather(
        *(shared.post("/internal/users/sign_in", json=guess, headers=service) for _ in range(12))
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


async def test_people_sign_up_and_in(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    service = shared_space.headers("accounts", "")
    address = an_address()
    asked = {"organization": "雲自転車", "email": f" {address.title()} ", "password": PASSWORD}
    person = (await shared.post("/internal/users/sign_up", json=asked, headers=service)).json()
    assert (person["role"], person["email"], person["name"]) == ("owner", address, "雲自転車")
    again = await shared.post("/internal/users/sign_up", json=asked, headers=service)
    assert again.status_code == 409
    good = {"email": address.upper(), "password": PASSWORD}
    assert (await shared.post("/internal/users/sign_in", json=good, headers=service)).json()["user_id"] == person[
        "user_id"
    ]
    for _ in range(3):
        wrong = await shared.post("/internal/users/sign_in", json={**good, "password": "x"}, headers=service)
        assert wrong.status_code == 401
    assert (await shared.post("/internal/users/sign_in", json=good, headers=service)).status_code == 429


@pytest.mark.parametrize("asked", [{"email": "nobody"}, {"password": "short"}, {"organization": " "}])
async def test_bad_sign_ups_are_told_why(
    shared: httpx2.AsyncClient, shared_space: Space, asked: dict[str, str]
) -> None:
    good = {"organization": "Org", "email": "a@b.example", "password": PASSWORD}
    answer = await shared.post(
        "/internal/users/sign_up", json={**good, **asked}, headers=shared_space.headers("accounts", "")
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_policy_and_audit_trail(shared: httpx2.AsyncClient, shared_space: Space, seen: Seen) -> None:
    made = await tenant(shared)
    owner = bearer(made["api_key"])
    changed = await shared.patch("/v1/organization", json={"gate": "approval"}, headers=owner)
    assert changed.json()["policy"] == {"tune_on_upload": True, "gate": "approval", "base_model": ""}
    await eventually(lambda: of_tenant(seen, TenantPolicyChanged, made["tenant_id"]))
    trail = (await shared.get("/v1/organization/audit_logs", headers=owner)).json()
    assert trail["intact"]
    assert [entry["action"] for entry in trail["data"]] == ["tenant.policy", "key.create", "tenant.create"]
    next_page = {"after": trail["data"][0]["id"], "limit": 1}
    older = (await shared.get("/v1/organization/audit_logs", params=next_page, headers=owner)).json()
    assert [entry["action"] for entry in older["data"]] == ["key.create"]
    assert older["has_more"]
    assert (await shared.patch("/v1/organization", json={"gate": "approval"}, headers=owner)).status_code == 200
    assert (await shared.get("/v1/organization/audit_logs", headers=owner)).json()["data"] == trail["data"]

    lines = mongo.connect(shared_space.settings(Settings, "accounts"), "accounts")["audit"]

    async def intact(**asked: Any) -> bool:
        return bool((await shared.get("/v1/organization/audit_logs", params=asked, headers=owner)).json()["intact"])

    for _ in range(3):
        await make_key(shared, owner["authorization"].removeprefix("Bearer "))
    assert await intact(verify=True)
    oldest = {"tenant_id": made["tenant_id"], "position": 1}
    first = await lines.find_one(oldest)
    await lines.update_one(oldest, {"$set": {"actor": "nobody"}})
    # A page is as long as it is, however long the trail: it vouches for its own lines.
    assert await intact(limit=2)
    assert not await intact(limit=100)
    assert not await intact(limit=2, verify=True)
    await lines.replace_one(oldest, first)
    assert await intact(verify=True)
    assert not await intact_without(lines, shared, owner, trail["data"][0]["digest"])
    newest = (await shared.get("/v1/organization/audit_logs", headers=owner)).json()["data"][0]["digest"]
    assert not await intact_without(lines, shared, owner, newest)


async def intact_without(lines: Any, http: httpx2.AsyncClient, owner: dict[str, str], digest: str) -> bool:
    """What a page says of a trail that lost a line."""
    lost = await lines.find_one_and_delete({"digest": digest})
    said = (await http.get("/v1/organization/audit_logs", headers=owner)).json()["intact"]
    await lines.insert_one(lost)
    return bool(said)


class Trails:
    """Stands where the collection of audit lines stands: trails that are read a few lines at a time."""

    def __init__(self, **lines: int) -> None:
        self._lines = {tenant: trail(tenant, count) for tenant, count in lines.items()}
        self.read = asyncio.Event()

    def find(self, query: dict[str, str]) -> Trails:
        found = Trails()
        found._left, found.read = list(self._lines[query["tenant_id"]]), self.read
        return found

    def sort(self, *_: Any) -> Trails:
        return self

    def batch_size(self, _: int) -> Trails:
        return self

    async def to_list(self, most: int) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        self.read.set()
        part, self._left = self._left[:most], self._left[most:]
        return [entry.model_dump() for entry in part]


def trail(tenant_id: str, lines: int) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for position in range(1, lines + 1):
        previous = entries[-1].digest if entries else ""
        what = {"at": 1, "actor": "a", "action": "b", "target": "c", "previous": previous}
        entries.append(AuditEntry(tenant_id=tenant_id, position=position, **what).sealed())
    return entries


async def test_a_long_trail_that_is_verified_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "VERIFIED_AT_A_TIME", 5)
    trails, nothing = Trails(long=500, short=7), SimpleNamespace(collection=None)

    class Heads:
        async def find_one(self, _: Any) -> None:
            return None

    kept: Any = (nothing, nothing, nothing, trails, None, Heads(), None)
    known = store.Accounts(*kept)
    long = asyncio.create_task(known.audit_intact("long"))
    await trails.read.wait()
    assert await known.audit_intact("short")
    assert not long.done()
    assert await long


async def test_a_new_operator_key_replaces_the_old(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        await tenant(http)
    fresh = "sk-sartor-" + "n" * 43
    async with accounts(space, tmp_path, fresh) as http:
        assert (await http.get("/v1/organization/tenants", headers=bearer(OPERATOR))).status_code == 401
        assert (await http.get("/v1/organization/tenants", headers=bearer(fresh))).json()["data"]


async def test_a_file_without_an_operator_key_revokes_none(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        await tenant(http)
    for empty in ("", " \n"):
        with pytest.raises(
            ValueError, match=r"operator_key_file: \S+/operator is empty; put the operator's key into it"
        ):
            async with accounts(space, tmp_path, empty):
                pass
    async with accounts(space, tmp_path) as http:
        assert (await http.get("/v1/organization/tenants", headers=bearer(OPERATOR))).json()["data"]


async def test_the_audit_chain_shows_an_edit() -> None:
    entries = trail("t", 4)
    assert broken(entries) is None
    assert broken([*entries[:1], entries[1].model_copy(update={"actor": "z"}), *entries[2:]]) == 2
    assert broken([*entries[:1], *entries[2:]]) == 2


def broken(entries: list[AuditEntry]) -> int | None:
    chain = Chain()
    return next((place for place, entry in enumerate(entries, start=1) if not chain.follows(entry)), None)


async def test_slugs() -> None:
    assert make_slug("Kumo Cycles & Co.", "tenant_1").startswith("kumo-cycles-co-")
    assert make_slug("雲自転車", "tenant_1").startswith("org-")
    assert make_slug("a", "tenant_1") != make_slug("a", "tenant_2")
    assert make_slug("a", "tenant_1", 7).startswith(make_slug("a", "tenant_1", 6))
    assert len(make_slug("雲" * 200, "tenant_1", 7)) < 40
