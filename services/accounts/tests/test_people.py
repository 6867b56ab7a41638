"""People of a tenant: invitations, passwords, roles, and that somebody can always manage it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from accounts_harness import OPERATOR, PASSWORD, accounts, bearer, tenant, verify

from accounts.domain import Tenant, tenants
from accounts.passwords import Passwords
from accounts.settings import Settings
from accounts.store import Accounts
from chassis.auth import Principal, hash_key
from chassis.errors import Conflict
from chassis.ids import new_id
from chassis.roles import ROLES
from schemas import TenantPolicy
from stores import mongo
from testkit import Space

pytestmark = pytest.mark.asyncio(loop_scope="module")

USERS = "/v1/organization/users"
OTHER = "another good password"


class Team:
    """A tenant as its people and the console see it."""

    def __init__(self, http: httpx2.AsyncClient, space: Space, made: dict[str, Any]) -> None:
        self.http = http
        self.space = space
        self.id = made["tenant_id"]
        self.key = bearer(made["api_key"])
        self.domain = f"{new_id('b')}.example"
        self.service = space.headers("accounts", "")

    def mail(self, name: str) -> str:
        """The address of one of its people: nobody has one that somebody else in this installation has."""
        return f"{name}@{self.domain}"

    async def invite(self, email: str, role: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        return await self.http.post(USERS, json={"email": email, "role": role}, headers=headers or self.key)

    async def join(self, code: str, password: str = PASSWORD) -> httpx2.Response:
        asked = {"code": code, "password": password}
        return await self.http.post("/internal/users/join", json=asked, headers=self.service)

    async def add(self, email: str, role: str) -> dict[str, Any]:
        """Somebody who was invited and came."""
        invited = await self.invite(email, role)
        assert invited.status_code == 200, invited.text
        joined = await self.join(invited.json()["invitation"]["code"])
        assert joined.status_code == 200, joined.text
        return {**joined.json(), "id": joined.json()["user_id"]}

    async def sign_in(self, email: str, password: str = PASSWORD) -> int:
        asked = {"email": email, "password": password}
        return (await self.http.post("/internal/users/sign_in", json=asked, headers=self.service)).status_code

    async def change(self, user_id: str, headers: dict[str, str] | None = None, **change: Any) -> httpx2.Response:
        return await self.http.patch(f"{USERS}/{user_id}", json=change, headers=headers or self.key)

    async def reset(self, user_id: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        return await self.http.post(f"{USERS}/{user_id}/reset_password", headers=headers or self.key)

    async def password(self, user_id: str, current: str, new: str) -> httpx2.Response:
        headers = self.space.headers("accounts", self.id)
        asked = {"current": current, "new": new}
        return await self.http.post(f"/internal/users/{user_id}/password", json=asked, headers=headers)

    def as_person(self, person: dict[str, Any], role: str) -> dict[str, str]:
        who = Principal(tenant_id=self.id, user_id=person["id"], role=role, organization="org")
        return bearer(self.space.tokens("console").sign("accounts", self.id, who))


async def team(http: httpx2.AsyncClient, space: Space) -> Team:
    return Team(http, space, await tenant(http))


@pytest_asyncio.fixture(loop_scope="module")
async def us(shared: httpx2.AsyncClient, shared_space: Space) -> Team:
    """A tenant in the shared accounts."""
    return await team(shared, shared_space)


async def test_an_invitation_lets_one_person_in_once(us: Team) -> None:
    answer = await us.invite(f" Mika@{us.domain.upper()} ", "labeler")
    invited = answer.json()
    assert (invited["status"], invited["role"], invited["email"]) == ("invited", "labeler", us.mail("mika"))
    code = invited["invitation"]["code"]
    assert invited["invitation"]["path"] == f"/join#{code}"
    assert answer.headers["cache-control"] == "no-store"
    assert await us.sign_in(us.mail("mika"), "") == 401
    assert (await us.join(code, "short")).status_code == 400
    joined = (await us.join(code)).json()
    assert (joined["user_id"], joined["tenant_id"], joined["role"]) == (invited["id"], us.id, "labeler")
    assert (await us.join(code, OTHER)).json()["error"]["code"] == "wrong_code"
    assert [await us.sign_in(us.mail("mika"), word) for word in (PASSWORD, OTHER)] == [200, 401]
    shown = (await us.http.get(f"{USERS}/{invited['id']}", headers=us.key)).text
    assert '"status":"active"' in shown
    assert code not in shown
    users = mongo.connect(us.space.settings(Settings, "accounts"), "accounts")["users"]
    assert code not in str([user async for user in users.find({})])


async def test_of_two_who_use_one_code_at_the_same_time_one_comes_in(us: Team) -> None:
    code = (await us.invite(us.mail("a"), "viewer")).json()["invitation"]["code"]
    answers = await asyncio.gather(us.join(code, PASSWORD), us.join(code, OTHER))
    one, other = sorted(answer.status_code for answer in answers)
    assert one == 200
    assert other in (401, 409)


async def test_a_code_ends_by_time_by_another_one_and_with_its_person(
    us: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (await us.invite(us.mail("a"), "viewer")).json()
    second = (await us.invite(us.mail("a"), "engineer")).json()
    assert second["id"] == first["id"]
    assert (await us.join(first["invitation"]["code"])).status_code == 401
    await us.change(first["id"], disabled=True)
    assert (await us.join(second["invitation"]["code"])).status_code == 401
    await us.change(first["id"], disabled=False)
    with monkeypatch.context() as later:
        later.setattr("accounts.use_cases.people.now", lambda: second["invitation"]["expires_at"])
        assert (await us.join(second["invitation"]["code"])).status_code == 401
    assert (await us.join(second["invitation"]["code"])).json()["role"] == "engineer"
    again = await us.invite(us.mail("a"), "viewer")
    assert (again.status_code, again.json()["error"]["param"]) == (409, "email")


async def test_an_invitation_keeps_nobodys_address_from_them(us: Team) -> None:
    """An owner who invites a stranger must neither shut them out of this installation, nor take them over."""
    them = await team(us.http, us.space)
    codes = [(await it.invite(us.mail("a"), "viewer")).json()["invitation"]["code"] for it in (us, them)]
    asked = {"organization": "Own", "email": us.mail("a"), "password": PASSWORD}
    own = await us.http.post("/internal/users/sign_up", json=asked, headers=us.service)
    assert own.status_code == 200, own.text
    refused = [await us.join(code, OTHER) for code in codes]
    assert [(answer.status_code, answer.json()["error"]["param"]) for answer in refused] == [(409, "email")] * 2
    assert [await us.sign_in(us.mail("a"), word) for word in (PASSWORD, OTHER)] == [200, 401]


async def test_a_lost_password_is_replaced_by_a_code(us: Team) -> None:
    person = await us.add(us.mail("a"), "engineer")
    reset = (await us.reset(person["id"])).json()
    assert reset["status"] == "active"
    assert await us.sign_in(us.mail("a")) == 200  # it holds until another one is chosen
    joined = (await us.join(reset["invitation"]["code"], OTHER)).json()
    assert joined["password_changed_at"] >= person["password_changed_at"]
    assert [await us.sign_in(us.mail("a"), word) for word in (PASSWORD, OTHER)] == [401, 200]


async def test_a_person_changes_their_own_password(us: Team) -> None:
    person = await us.add(us.mail("a"), "engineer")
    wrong = await us.password(person["id"], "not my password", OTHER)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (403, "current")
    assert (await us.password(person["id"], PASSWORD, "short")).json()["error"]["param"] == "password"
    assert (await us.password(person["id"], PASSWORD, OTHER)).status_code == 200
    assert [await us.sign_in(us.mail("a"), word) for word in (PASSWORD, OTHER)] == [401, 200]
    codes = [(await us.password(person["id"], "guess guess guess", PASSWORD)).status_code for _ in range(4)]
    assert codes[-1] == 429  # guesses are counted as those at the door are


async def test_the_last_owner_stays(us: Team) -> None:
    anna = await us.add(us.mail("anna"), "owner")
    as_anna = us.as_person(anna, "owner")
    for change in ({"role": "viewer"}, {"disabled": True}, {"role": "admin", "disabled": False}):
        for who in (as_anna, us.key):
            answer = await us.change(anna["id"], who, **change)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "last_owner")
    invited = (await us.invite(us.mail("bela"), "owner")).json()
    assert (await us.change(anna["id"], role="viewer")).status_code == 409  # nobody has come yet
    assert (await us.join(invited["invitation"]["code"])).status_code == 200
    assert (await us.change(anna["id"], as_anna, role="viewer")).status_code == 200
    assert (await us.change(invited["id"], disabled=True)).status_code == 409
    assert (await us.change(anna["id"], role="owner")).status_code == 200
    assert (await us.change(invited["id"], disabled=True)).status_code == 200


async def test_owners_who_shut_each_other_out_at_once_leave_one(us: Team) -> None:
    for them in [us, *[await team(us.http, us.space) for _ in range(3)]]:
        people = [await them.add(them.mail(name), "owner") for name in "ab"]
        answers = await asyncio.gather(*(them.change(person["id"], role="viewer") for person in people))
        assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_the_owners_of_an_earlier_release_are_known(us: Team) -> None:
    people = [await us.add(us.mail(name), "owner") for name in "ab"]
    records = mongo.connect(us.space.settings(Settings, "accounts"), "accounts")["tenants"]
    forgotten = await records.update_one({"_id": us.id}, {"$unset": {"owners": ""}})
    assert forgotten.modified_count == 1
    answers = [await us.change(person["id"], role="viewer") for person in people]
    assert [answer.status_code for answer in answers] == [200, 409]


async def test_an_admin_manages_all_but_owners(us: Team) -> None:
    owner, admin = await us.add(us.mail("o"), "owner"), await us.add(us.mail("a"), "admin")
    as_admin = us.as_person(admin, "admin")
    for role in ROLES.keys() - {"operator", "owner"}:
        assert (await us.invite(us.mail(role), role, as_admin)).status_code == 200, role
    assert (await us.invite(us.mail("x"), "owner", as_admin)).status_code == 403
    assert (await us.change(owner["id"], as_admin, role="viewer")).status_code == 403
    assert (await us.change(admin["id"], as_admin, role="owner")).status_code == 403
    assert (await us.reset(owner["id"], as_admin)).status_code == 403
    key = await us.http.post("/v1/organization/keys", json={"name": "k", "role": "owner"}, headers=as_admin)
    assert key.status_code == 403
    assert (await us.http.patch("/v1/organization", json={"gate": "approval"}, headers=as_admin)).status_code == 200


async def test_an_auditor_reads_the_trail_and_changes_nothing(us: Team) -> None:
    as_auditor = us.as_person(await us.add(us.mail("a"), "auditor"), "auditor")
    trail = (await us.http.get("/v1/organization/audit_logs", headers=as_auditor)).json()
    assert {line["action"] for line in trail["data"]} >= {"tenant.create", "user.invite", "user.password"}
    assert trail["intact"]
    assert (await us.invite(us.mail("x"), "viewer", as_auditor)).status_code == 403
    assert (await us.http.patch("/v1/organization", json={"gate": "auto"}, headers=as_auditor)).status_code == 403


async def test_the_operator_lets_an_owner_in(us: Team) -> None:
    """A tenant made for somebody, and one whose owners lost everything."""
    place, asked = f"/v1/organization/tenants/{us.id}/owners", {"email": us.mail("a")}
    assert (await us.http.post(place, json=asked, headers=us.key)).status_code == 403
    first = (await us.http.post(place, json=asked, headers=bearer(OPERATOR))).json()
    assert (await us.join(first["invitation"]["code"])).json()["role"] == "owner"
    await us.add(us.mail("b"), "owner")
    await us.change(first["id"], role="viewer", disabled=True)
    again = (await us.http.post(place, json=asked, headers=bearer(OPERATOR))).json()
    assert (again["id"], again["role"], again["status"]) == (first["id"], "owner", "invited")
    assert await us.sign_in(us.mail("a")) == 401  # their password may be why they were shut out
    assert (await us.join(again["invitation"]["code"], OTHER)).status_code == 200
    assert await us.sign_in(us.mail("a"), OTHER) == 200
    missing = await us.http.post(place.replace(us.id, "tenant_x"), json=asked, headers=bearer(OPERATOR))
    assert missing.status_code == 404


async def test_the_operator_makes_a_tenant_with_its_first_owner_or_nothing(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        place, who = "/v1/organization/tenants", bearer(OPERATOR)
        refused = await http.post(place, json={"name": "Kumo", "owner": "a@b"}, headers=who)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "email")
        assert (await http.get(place, headers=who)).json()["data"] == []
        made = (await http.post(place, json={"name": "Kumo", "owner": "a@b.example"}, headers=who)).json()
        assert "api_key" not in made
        us = Team(http, space, {**made, "api_key": "none"})
        joined = (await us.join(made["owner"]["invitation"]["code"])).json()
        assert (joined["role"], joined["tenant_id"]) == ("owner", made["id"])
        person = us.as_person({"id": joined["user_id"]}, "owner")
        assert (await http.get("/v1/organization/keys", headers=person)).json()["data"] == []


async def test_the_operator_is_of_no_tenant_and_what_they_do_is_written_down(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        await team(http, space)
        for path in ("keys", "users"):
            assert (await http.get(f"/v1/organization/{path}", headers=bearer(OPERATOR))).status_code == 403
        headers = space.headers("accounts", "")
        known = await http.post("/internal/keys/operator", json={"key_hash": hash_key(OPERATOR)}, headers=headers)
        assert known.json()["role"] == "operator"
        trail = (await http.get("/v1/organization/audit_logs", headers=bearer(OPERATOR))).json()["data"]
        assert [line["action"] for line in trail] == ["operator.sign_in"]
        us = await team(http, space)
        key = us.key["authorization"].removeprefix("Bearer ")
        refused = await http.post("/internal/keys/operator", json={"key_hash": hash_key(key)}, headers=headers)
        assert refused.status_code == 401


async def test_the_operator_acts_through_the_console_and_no_service_for_itself(us: Team) -> None:
    known = (await verify(us.http, us.space, OPERATOR)).json()
    operator = Principal(tenant_id="", key_id=known["key_id"], role="operator")
    place = "/v1/organization/tenants"
    for service, user, status in (
        ("console", operator, 200),
        ("console", None, 403),
        ("ingest", operator, 403),
        ("console", Principal(tenant_id="", key_id="k", role="owner"), 403),
    ):
        headers = bearer(us.space.tokens(service).sign("accounts", "", user))
        assert (await us.http.get(place, headers=headers)).status_code == status, (service, user)


async def test_tenants_of_one_name_never_run_out_of_slugs(us: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "SLUG_DIGITS", 0)
    made = [await tenant(us.http, "雲自転車") for _ in range(24)]
    slugs = [it["slug"] for it in made]
    assert len(set(slugs)) == 24
    assert min(map(len, slugs)) == len("org-")
    known = (await verify(us.http, us.space, made[-1]["api_key"])).json()
    assert known["organization"] == slugs[-1]


async def test_guesses_from_elsewhere_lock_nobody_out(space: Space, tmp_path: Path) -> None:
    """Whoever knows an address can guess from their own; its person comes in from theirs."""
    async with accounts(space, tmp_path, sign_in_attempts_anywhere=8) as http:
        us = await team(http, space)
        await us.add("a@b.example", "engineer")

        async def sign_in(address: str, password: str) -> int:
            asked = {"email": "a@b.example", "password": password, "address": address}
            return (await http.post("/internal/users/sign_in", json=asked, headers=us.service)).status_code

        assert [await sign_in("10.0.0.1", "guess") for _ in range(12)] == [401] * 3 + [429] * 9
        assert await sign_in("10.0.0.2", PASSWORD) == 200
        assert await sign_in("10.0.0.1", PASSWORD) == 429
        others = [await sign_in(f"10.0.1.{last}", "guess") for last in range(6)]
        assert others[-1] == 429  # many who guess together are stopped as well


async def test_one_who_signs_up_again_and_again_shuts_the_door_for_nobody_else(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path, sign_ups_per_hour_each=2) as http:
        us = await team(http, space)

        async def sign_up(number: int, address: str) -> int:
            asked = {"organization": "Org", "email": f"{number}@b.example", "password": PASSWORD, "address": address}
            return (await http.post("/internal/users/sign_up", json=asked, headers=us.service)).status_code

        assert [await sign_up(number, "10.0.0.1") for number in range(3)] == [200, 200, 429]
        assert await sign_up(3, "10.0.0.2") == 200


async def test_a_code_ends_when_its_person_gets_another_role(us: Team) -> None:
    """An admin who kept a code of an engineer must not come in as the owner whom that engineer becomes."""
    admin, engineer = await us.add(us.mail("a"), "admin"), await us.add(us.mail("e"), "engineer")
    kept = (await us.reset(engineer["id"], us.as_person(admin, "admin"))).json()["invitation"]["code"]
    assert (await us.http.post("/internal/users/look", json={"code": kept}, headers=us.service)).status_code == 200
    assert (await us.change(engineer["id"], role="owner")).status_code == 200
    assert (await us.join(kept, OTHER)).status_code == 401
    assert (await us.http.post("/internal/users/look", json={"code": kept}, headers=us.service)).status_code == 401


async def test_rights_that_changed_meanwhile_are_looked_at_again(us: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """An admin shuts an engineer out while an owner makes them an owner: the admin may not shut owners out."""
    admin, engineer = await us.add(us.mail("a"), "admin"), await us.add(us.mail("e"), "engineer")
    users = mongo.connect(us.space.settings(Settings, "accounts"), "accounts")["users"]
    audit = Accounts.audit

    async def promoted_meanwhile(self: Accounts, *arguments: Any, **details: Any) -> Any:
        await users.update_one({"_id": engineer["id"]}, {"$set": {"role": "owner"}})
        return await audit(self, *arguments, **details)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Accounts, "audit", promoted_meanwhile)
        answer = await us.change(engineer["id"], us.as_person(admin, "admin"), disabled=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "changed_meanwhile")
    assert (await us.http.get(f"{USERS}/{engineer['id']}", headers=us.key)).json()["status"] == "active"


async def test_only_who_is_an_owner_by_now_keeps_the_last_one_from_being_it() -> None:
    one = Tenant.create("tenant_a", "Kumo", TenantPolicy(), 1)
    one.count_owner("a", ["a"])
    one.count_owner("b", ["a", "b"])
    with pytest.raises(Conflict):
        one.lose_owner("b", ["b"])  # a was counted after they had ceased to be one


async def test_an_invitation_is_withdrawn_and_who_came_is_not(us: Team) -> None:
    invited = (await us.invite(us.mail("typo"), "viewer")).json()
    gone = await us.http.delete(f"{USERS}/{invited['id']}", headers=us.key)
    assert gone.json() == {"object": "organization.user.deleted", "id": invited["id"], "deleted": True}
    assert (await us.join(invited["invitation"]["code"])).status_code == 401
    person = await us.add(us.mail("a"), "viewer")
    kept = await us.http.delete(f"{USERS}/{person['id']}", headers=us.key)
    assert (kept.status_code, kept.json()["error"]["code"]) == (409, "not_invited")
    found = (await us.http.get(USERS, params={"email": f" A@{us.domain}"}, headers=us.key)).json()["data"]
    assert [one["id"] for one in found] == [person["id"]]


async def test_an_admin_ends_no_owners_key(us: Team) -> None:
    as_admin = us.as_person(await us.add(us.mail("a"), "admin"), "admin")
    [key] = (await us.http.get("/v1/organization/keys", headers=us.key)).json()["data"]
    assert (await us.http.delete(f"/v1/organization/keys/{key['id']}", headers=as_admin)).status_code == 403


async def test_looking_leaves_no_line_in_the_trail(us: Team) -> None:
    person = await us.add(us.mail("a"), "viewer")
    trail = "/v1/organization/audit_logs"
    before = (await us.http.get(trail, headers=us.key)).json()["data"]
    assert (await us.change(person["id"])).status_code == 200
    limits = await us.http.patch(f"/v1/organization/tenants/{us.id}", json={}, headers=bearer(OPERATOR))
    assert limits.json()["limits"]["people"] == 1000
    assert (await us.http.get(trail, headers=us.key)).json()["data"] == before


async def test_passwords_are_hashed_as_rfc_9106_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests of this folder hash cheaply."""
    monkeypatch.undo()
    passwords = Passwords()
    stored = await passwords.hash(PASSWORD)
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert [await passwords.matches(stored, word) for word in (PASSWORD, OTHER)] == [True, False]
