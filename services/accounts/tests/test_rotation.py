"""Keys get another secret while the one before holds for a while, and no longer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from accounts_harness import OPERATOR, accounts, bearer, of_tenant, tenant, verify

from accounts.domain import ApiKey
from accounts.settings import Settings
from chassis.auth import hash_key
from chassis.errors import Conflict, Unauthenticated
from chassis.ids import now
from chassis.limits import Allowance
from schemas import KeyRevoked, KeyRotated
from stores import mongo
from testkit import Space, eventually
from testkit.space import Seen

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT = 1_700_000_000
SMALL = {"requests_per_minute": 50, "tokens_per_minute": 70}


def a_key(**more: Any) -> ApiKey:
    known = {"id": "key_1", "tenant_id": "t", "created_at": AT, "name": "ci", "key_hash": "h0", "hint": "0"}
    return ApiKey(**{**known, "role": "engineer", **more})


def rotate(key: ApiKey, name: str, at: int, grace: int) -> None:
    key.rotate(f"h{name}", name, rotation=f"rot_{name}", at=at, grace_seconds=grace)


def ends(key: ApiKey) -> dict[str, int]:
    return {secret.key_hash: secret.ends_at for secret in key.replaced}


async def test_a_secret_holds_for_its_grace_to_the_second() -> None:
    key = a_key()
    rotate(key, "1", AT, 60)
    assert key.ends_for("h1", AT + 3600) is None
    assert key.ends_for("h0", AT + 59) == AT + 60
    with pytest.raises(Unauthenticated) as caught:
        key.ends_for("h0", AT + 60)
    assert caught.value.code == "replaced_api_key"


async def test_a_secret_that_reached_nobody_ends_alone_and_its_key_lives_on() -> None:
    key = a_key()
    rotate(key, "1", AT, 60)
    key.rotate("h2", "2", rotation="rot_1", at=AT + 5, grace_seconds=60)
    key.reissue("h3", "3", AT + 6)
    said = [(type(event), event.key_hash, event.ends_at) for event in key.take_pending()]
    assert said == [(KeyRotated, "h0", AT + 60), (KeyRotated, "h1", AT + 5), (KeyRotated, "h2", AT + 6)]
    key.revoke(AT + 7)
    assert {(type(event), event.key_hash) for event in key.take_pending()} == {(KeyRevoked, "h3"), (KeyRevoked, "h0")}


async def test_a_later_rotation_brings_ends_nearer_and_puts_none_off() -> None:
    key = a_key()
    rotate(key, "1", AT, 100)
    rotate(key, "2", AT + 10, 1000)
    assert ends(key) == {"h0": AT + 100, "h1": AT + 1010}
    rotate(key, "3", AT + 20, 50)
    assert ends(key) == {"h0": AT + 70, "h1": AT + 70, "h2": AT + 70}
    rotate(key, "4", AT + 30, 0)
    assert set(ends(key).values()) == {AT + 30}
    with pytest.raises(Unauthenticated):
        key.ends_for("h3", AT + 30)


async def test_a_key_has_few_secrets_at_a_time_and_zero_ends_them() -> None:
    key = a_key()
    for number in range(4):
        rotate(key, str(number + 1), AT, 60)
    with pytest.raises(Conflict, match="grace_seconds 0"):
        rotate(key, "5", AT + 59, 60)
    rotate(key, "5", AT + 60, 60)
    assert ends(key) == {"h4": AT + 120}
    for number in range(6, 9):
        rotate(key, str(number), AT + 60, 60)
    rotate(key, "9", AT + 60, 0)


async def test_no_secret_outlives_its_key() -> None:
    key = a_key(expires_at=AT + 30)
    rotate(key, "1", AT, 60)
    assert key.ends_for("h0", AT) == AT + 30
    with pytest.raises(Conflict):
        rotate(key, "2", AT + 30, 60)


async def test_a_rotation_that_is_repeated_replaces_what_reached_nobody() -> None:
    key = a_key()
    rotate(key, "1", AT, 60)
    key.rotate("h2", "2", rotation="rot_1", at=AT + 5, grace_seconds=60)
    assert (key.key_hash, ends(key)) == ("h2", {"h0": AT + 60})


async def test_a_limited_key_could_make_only_what_counts_under_it() -> None:
    own = a_key(id="key_own", **SMALL, expires_at=AT)
    counted = [Allowance("key_own", 50, 70)]
    made = {**SMALL, "expires_at": AT, "makers": counted}
    assert own.could_make(a_key(**made))
    for more in ({"requests_per_minute": 51}, {"tokens_per_minute": None}, {"expires_at": None}, {"makers": []}):
        assert not own.could_make(a_key(**made | more)), more
    assert a_key(id="key_free").could_make(a_key())
    assert not a_key(id="key_made", makers=counted).could_make(a_key())


async def make_key(http: httpx2.AsyncClient, maker: str, **asked: Any) -> dict[str, Any]:
    answer = await http.post("/v1/organization/keys", json={"role": "owner", **asked}, headers=bearer(maker))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def rotated(
    http: httpx2.AsyncClient, by: str, key_id: str = "own", headers: dict[str, str] | None = None, **asked: Any
) -> httpx2.Response:
    path = f"/v1/organization/keys/{key_id}/rotate"
    return await http.post(path, json=asked, headers={**bearer(by), **(headers or {})})


async def test_both_secrets_hold_and_the_old_one_ends_in_time(
    shared: httpx2.AsyncClient, shared_space: Space, seen: Seen
) -> None:
    made = await tenant(shared)
    owner = made["api_key"]
    asked = {"name": "app", "role": "viewer", "scopes": ["files:read"], **SMALL, "expires_at": now() + 3600}
    old = await make_key(shared, owner, **asked)
    # Accounts' own cache believes it from now on, as it is, and must be told the end as others are.
    assert (await shared.get("/v1/organization", headers=bearer(old["api_key"]))).status_code == 403
    answer = await rotated(shared, owner, old["id"], grace_seconds=3)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    new = answer.json()
    same = {"id", "name", "role", "scopes", "requests_per_minute", "tokens_per_minute", "expires_at", "user_id"}
    assert {field: new[field] for field in same} == {field: old[field] for field in same}
    assert new["api_key"] != old["api_key"]

    before = (await verify(shared, shared_space, old["api_key"])).json()
    after = (await verify(shared, shared_space, new["api_key"])).json()
    assert before.pop("expires_at") < after.pop("expires_at") == old["expires_at"]
    assert before == after  # rights, owner and limits: what both use counts together

    (said,) = await eventually(lambda: of_tenant(seen, KeyRotated, made["tenant_id"]))
    assert (said.key_id, said.key_hash) == (old["id"], hash_key(old["api_key"]))
    assert (await shared.get("/v1/organization", headers=bearer(old["api_key"]))).status_code == 403
    await eventually(lambda: now() >= said.ends_at)
    ended = await verify(shared, shared_space, old["api_key"])
    assert (ended.status_code, ended.json()["error"]["code"]) == (401, "replaced_api_key")
    assert (await shared.get("/v1/organization", headers=bearer(old["api_key"]))).status_code == 401
    assert (await verify(shared, shared_space, new["api_key"])).status_code == 200
    listed = (await shared.get("/v1/organization/keys", headers=bearer(owner))).text
    assert not any(secret in listed for one in (old, new) for secret in (one["api_key"], hash_key(one["api_key"])))
    trail = (await shared.get("/v1/organization/audit_logs", headers=bearer(owner))).json()["data"]
    assert (trail[0]["action"], trail[0]["target"], trail[0]["details"]) == (
        "key.rotate",
        old["id"],
        {"name": "app", "grace_seconds": 3},
    )


async def test_without_a_grace_the_old_secret_ends_at_once(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path, key_cache_seconds=3600) as http:
        old = (await tenant(http))["api_key"]
        assert (await http.get("/v1/organization", headers=bearer(old))).status_code == 200
        new = (await rotated(http, old, grace_seconds=0)).json()["api_key"]
        ended = await verify(http, space, old)
        assert (ended.status_code, ended.json()["error"]["code"]) == (401, "replaced_api_key")

        async def refused() -> bool:
            return (await http.get("/v1/organization", headers=bearer(old))).status_code == 401

        await eventually(refused)  # once the event came by, though the cache would believe it for an hour
        assert (await http.get("/v1/organization", headers=bearer(new))).status_code == 200


async def test_a_revoked_key_ends_with_every_secret(
    shared: httpx2.AsyncClient, shared_space: Space, seen: Seen
) -> None:
    made = await tenant(shared)
    owner = made["api_key"]
    old = await make_key(shared, owner)
    new = (await rotated(shared, owner, old["id"])).json()
    await shared.delete(f"/v1/organization/keys/{old['id']}", headers=bearer(owner))
    for secret in (old["api_key"], new["api_key"]):
        assert (await verify(shared, shared_space, secret)).json()["error"]["code"] == "revoked_api_key"
    both = {hash_key(old["api_key"]), hash_key(new["api_key"])}
    await eventually(lambda: {one.key_hash for one in of_tenant(seen, KeyRevoked, made["tenant_id"])} == both)
    assert (await rotated(shared, owner, old["id"])).json()["error"]["code"] == "key_ended"


async def test_nobody_gets_rights_by_rotating(shared: httpx2.AsyncClient) -> None:
    made = await tenant(shared)
    owner = made["api_key"]
    first = (await shared.get("/v1/organization/keys", headers=bearer(owner))).json()["data"][0]["id"]
    app = await make_key(shared, owner, role="engineer", scopes=["chat:write", "own:rotate"])
    mute = await make_key(shared, owner, role="engineer", scopes=["chat:write"])
    admin = await make_key(shared, owner, role="admin")
    small = await make_key(shared, owner, **SMALL)
    smaller = await make_key(shared, small["api_key"])
    statuses = {
        "its own": await rotated(shared, app["api_key"]),
        "its own, by its id": await rotated(shared, app["api_key"], app["id"]),
        "another's": await rotated(shared, app["api_key"], mute["id"]),
        "its own, without the right": await rotated(shared, mute["api_key"]),
        "an owner's by an admin": await rotated(shared, admin["api_key"], first),
        "an engineer's by an admin": await rotated(shared, admin["api_key"], app["id"]),
        "an unlimited one by a limited one": await rotated(shared, small["api_key"], mute["id"]),
        "the one that it made": await rotated(shared, small["api_key"], smaller["id"]),
        "the one that made it": await rotated(shared, smaller["api_key"], small["id"]),
        "none": await rotated(shared, owner, "key_none"),
        "with a grace of a year": await rotated(shared, owner, first, grace_seconds=366 * 86_400),
        "the operator's, by an owner": await rotated(shared, owner, "operator"),
        "its own, by the operator": await rotated(shared, OPERATOR),
        "of another tenant": await rotated(shared, (await tenant(shared, "Other"))["api_key"], first),
    }
    assert {name: answer.status_code for name, answer in statuses.items()} == {
        "its own": 200,
        "its own, by its id": 403,
        "another's": 404,
        "its own, without the right": 403,
        "an owner's by an admin": 403,
        "an engineer's by an admin": 200,
        "an unlimited one by a limited one": 403,
        "the one that it made": 200,
        "the one that made it": 403,
        "none": 404,
        "with a grace of a year": 400,
        "the operator's, by an owner": 404,
        "its own, by the operator": 403,
        "of another tenant": 404,
    }, {name: answer.text for name, answer in statuses.items()}
    # A secret that was replaced asks for no other one: who found it would keep the key beyond its end.
    assert statuses["its own, by its id"].json()["error"]["code"] == "replaced_api_key"


async def test_a_persons_key_is_rotated_by_who_may_give_their_rights(shared: httpx2.AsyncClient) -> None:
    owner = (await tenant(shared))["api_key"]
    person = {"email": "boss@b.example", "role": "owner"}
    boss = (await shared.post("/v1/organization/users", json=person, headers=bearer(owner))).json()["id"]
    theirs = await make_key(shared, owner, role="viewer", user_id=boss)
    admin = await make_key(shared, owner, role="admin")
    assert (await rotated(shared, admin["api_key"], theirs["id"])).status_code == 403
    assert (await rotated(shared, owner, theirs["id"])).json()["user_id"] == boss


async def test_a_lost_answer_costs_no_secret_in_use(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    owner = (await tenant(shared))["api_key"]
    app = await make_key(shared, owner, role="engineer")
    once = {"idempotency-key": "once"}
    lost = (await rotated(shared, app["api_key"], headers=once, grace_seconds=3600)).json()["api_key"]
    again = await rotated(shared, app["api_key"], headers=once, grace_seconds=3600)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "answer_not_kept")
    # As if the service had been killed before it answered.
    records = mongo.connect(shared_space.settings(Settings, "accounts"), "accounts")["idempotency"]
    await records.update_many({}, {"$unset": {"status": ""}, "$set": {"until_ms": 0}})
    found = (await rotated(shared, app["api_key"], headers=once, grace_seconds=3600)).json()["api_key"]
    assert [(await verify(shared, shared_space, key)).status_code for key in (app["api_key"], lost, found)] == [
        200,
        401,
        200,
    ]


async def test_of_rotations_at_the_same_time_each_secret_holds(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    owner = (await tenant(shared))["api_key"]
    app = await make_key(shared, owner)
    both = await asyncio.gather(*(rotated(shared, owner, app["id"]) for _ in range(3)))
    secrets = [app["api_key"], *(answer.json()["api_key"] for answer in both)]
    assert [(await verify(shared, shared_space, secret)).status_code for secret in secrets] == [200] * 4


async def test_two_operator_keys_hold_while_both_are_in_the_file(space: Space, tmp_path: Path) -> None:
    fresh = "sk-sartor-" + "n" * 43

    async def statuses(http: httpx2.AsyncClient) -> list[int]:
        asked = [await http.get("/v1/organization/tenants", headers=bearer(key)) for key in (OPERATOR, fresh)]
        return [answer.status_code for answer in asked]

    for file, expected in ((OPERATOR, [200, 401]), (f"{fresh}\n{OPERATOR}\n", [200, 200]), (fresh, [401, 200])):
        async with accounts(space, tmp_path, file) as http:
            assert await statuses(http) == expected
