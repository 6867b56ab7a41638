"""Roles, keys and tokens."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from chassis.auth import Authenticator, Principal, hash_key
from chassis.errors import Transient, Unauthenticated
from chassis.limits import Allowance
from chassis.roles import ROLES
from chassis.tokens import Tokens
from testkit import Space

API_KEY = "sk-sartor-" + "a" * 43


class Accounts:
    """Stands where the accounts peer stands and counts how often it is asked."""

    def __init__(self, **answer: Any) -> None:
        self.answer = {"tenant_id": "t", "key_id": "key_1", "role": "owner", "scopes": ["*"], **answer}
        self.asked = 0
        self.refuse = False
        self.away = False

    async def ask(self, path: str, *, json: dict[str, str], tenant_id: str, timeout: float = 30.0) -> dict[str, Any]:
        self.asked += 1
        if self.away:
            raise Transient("accounts cannot be reached")
        if self.refuse or json["key_hash"] != hash_key(API_KEY):
            raise Unauthenticated("no such key")
        return self.answer


@pytest.mark.parametrize(
    ("role", "scopes", "asked", "allowed"),
    [
        ("owner", {"*"}, "files:write", True),
        ("viewer", {"*"}, "files:read", True),
        ("viewer", {"*"}, "files:write", False),
        ("owner", {"chat:write"}, "files:read", False),
        ("owner", {"files:write"}, "files:read", True),
        ("owner", {"files:read"}, "files:write", False),
        ("labeler", {"*"}, "chat:write", False),
        ("approver", {"*"}, "models:approve", True),
        ("engineer", {"*"}, "models:approve", False),
        ("nobody", {"*"}, "files:read", False),
        ("labeler", {"*"}, "labeling:annotate", True),
        ("labeler", {"*"}, "labeling:write", False),
        ("labeler", {"*"}, "labeling:read", False),
        ("engineer", {"labeling:write"}, "labeling:annotate", True),
        ("viewer", {"*"}, "labeling:annotate", False),
    ],
)
def test_a_role_and_a_scope_must_both_allow(role: str, scopes: set[str], asked: str, allowed: bool) -> None:
    assert Principal(tenant_id="t", role=role, scopes=frozenset(scopes)).may(asked) is allowed


def test_only_owners_and_operators_may_do_everything() -> None:
    assert {role for role, granted in ROLES.items() if "*" in granted} == {"owner", "operator"}


async def test_a_key_is_asked_once_and_forgotten_when_revoked(space: Space) -> None:
    accounts = Accounts()
    authenticator = Authenticator(space.tokens("ingest"), accounts)
    for _ in range(3):
        assert (await authenticator.authenticate(f"Bearer {API_KEY}")).tenant_id == "t"
    assert accounts.asked == 1
    accounts.refuse = True
    authenticator.forget(hash_key(API_KEY))
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(f"Bearer {API_KEY}")


async def test_a_key_once_verified_works_while_accounts_is_away(space: Space) -> None:
    accounts = Accounts()
    authenticator = Authenticator(space.tokens("ingest"), accounts, cache_seconds=0)
    await authenticator.authenticate(f"Bearer {API_KEY}")
    accounts.away = True
    assert (await authenticator.authenticate(f"Bearer {API_KEY}")).tenant_id == "t"
    with pytest.raises(Transient):
        await authenticator.authenticate(f"Bearer {API_KEY}x")


async def test_a_key_is_not_believed_for_longer_than_that(space: Space) -> None:
    accounts = Accounts()
    authenticator = Authenticator(space.tokens("ingest"), accounts, cache_seconds=0, stale_seconds=0)
    await authenticator.authenticate(f"Bearer {API_KEY}")
    accounts.away = True
    with pytest.raises(Transient):
        await authenticator.authenticate(f"Bearer {API_KEY}")


@pytest.mark.parametrize("scopes", ["absent", None, "*"])
async def test_a_key_of_which_accounts_names_no_scopes_may_do_nothing(space: Space, scopes: str | None) -> None:
    accounts = Accounts(scopes=scopes)
    if scopes == "absent":
        del accounts.answer["scopes"]
    with pytest.raises(Transient, match="not known here"):
        await Authenticator(space.tokens("ingest"), accounts).authenticate(f"Bearer {API_KEY}")


async def test_an_answer_that_is_not_known_does_not_end_what_is_believed_of_a_key(space: Space) -> None:
    accounts = Accounts()
    authenticator = Authenticator(space.tokens("ingest"), accounts, cache_seconds=0)
    await authenticator.authenticate(f"Bearer {API_KEY}")
    accounts.answer |= {"organization": None}
    assert (await authenticator.authenticate(f"Bearer {API_KEY}")).tenant_id == "t"


async def test_a_revoked_key_is_refused_though_accounts_is_away(space: Space) -> None:
    accounts = Accounts()
    authenticator = Authenticator(space.tokens("ingest"), accounts, cache_seconds=0)
    await authenticator.authenticate(f"Bearer {API_KEY}")
    accounts.away = True
    authenticator.forget(hash_key(API_KEY))
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(f"Bearer {API_KEY}")
    assert caught.value.code == "revoked_api_key"


async def test_a_key_revoked_while_it_is_asked_about_is_refused(space: Space) -> None:
    class Late(Accounts):
        async def ask(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            answer = await super().ask(*args, **kwargs)
            authenticator.forget(hash_key(API_KEY))
            return answer

    authenticator = Authenticator(space.tokens("ingest"), Late())
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(f"Bearer {API_KEY}")


async def test_a_replaced_key_ends_to_the_second_though_it_was_believed(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    accounts = Accounts()
    authenticator = Authenticator(space.tokens("ingest"), accounts)
    await authenticator.authenticate(f"Bearer {API_KEY}")
    accounts.away = True
    authenticator.end(hash_key(API_KEY), clock + 60)
    authenticator.end(hash_key(API_KEY), clock + 90)  # said before: events may come late, and in another order
    clock += 59
    assert (await authenticator.authenticate(f"Bearer {API_KEY}")).tenant_id == "t"
    clock += 1
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(f"Bearer {API_KEY}")
    assert caught.value.code == "replaced_api_key"
    authenticator.forget(hash_key(API_KEY))
    authenticator.end(hash_key(API_KEY), clock + 90)
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(f"Bearer {API_KEY}")
    assert caught.value.code == "revoked_api_key"


async def test_a_caller_is_known_by_the_secret_that_was_shown(space: Space) -> None:
    principal = await Authenticator(space.tokens("ingest"), Accounts()).authenticate(f"Bearer {API_KEY}")
    assert principal.key_hash == hash_key(API_KEY)


FIVE = {"of": "key_1", "requests_per_minute": 5, "tokens_per_minute": 7}


async def test_what_a_newer_accounts_adds_does_not_matter(space: Space) -> None:
    accounts = Accounts(shoe_size=42, allowances=[{**FIVE, "pages_per_minute": 9}])
    principal = await Authenticator(space.tokens("ingest"), accounts).authenticate(f"Bearer {API_KEY}")
    assert principal.allowances == (Allowance("key_1", 5, 7),)


async def test_a_cached_key_still_expires(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    accounts = Accounts(expires_at=int(clock) + 1)
    authenticator = Authenticator(space.tokens("ingest"), accounts)
    await authenticator.authenticate(f"Bearer {API_KEY}")
    clock += 1
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(f"Bearer {API_KEY}")
    assert accounts.asked == 1
    assert caught.value.code == "expired_api_key"


@pytest.mark.parametrize("header", [None, "", "Basic abc", "Bearer", "Bearer  ", "Bearer not-a-token"])
async def test_no_credential_no_entry(space: Space, header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await Authenticator(space.tokens("ingest"), Accounts()).authenticate(header)


def test_a_token_is_good_for_its_audience_only(space: Space) -> None:
    token = space.tokens("console").sign("ingest", "tenant_a")
    principal = space.tokens("ingest").verify(token)
    assert (principal.tenant_id, principal.caller) == ("tenant_a", "console")
    with pytest.raises(Unauthenticated):
        space.tokens("trainer").verify(token)


def test_a_service_cannot_sign_as_another(space: Space) -> None:
    forger = space.tokens("console")
    forger.service = "trainer"
    with pytest.raises(Unauthenticated):
        space.tokens("ingest").verify(forger.sign("ingest", "tenant_a"))


def test_what_either_key_of_a_service_signed_is_accepted_while_one_is_replaced() -> None:
    keys = {name: OKPKey.generate_key("Ed25519") for name in ("console", "next", "ingest", "stranger")}

    def signer(name: str) -> Tokens:
        return Tokens("console", keys[name].as_pem(private=True), jwks(("console", name)))

    def jwks(*known: tuple[str, str]) -> str:
        return json.dumps({"keys": [{**keys[name].as_dict(private=False), "kid": kid} for kid, name in known]})

    announced = jwks(("console", "console"), ("console", "next"), ("ingest", "ingest"))
    reader = Tokens("ingest", keys["ingest"].as_pem(private=True), announced)
    for name in ("console", "next"):
        assert reader.verify(signer(name).sign("ingest", "t")).caller == "console"
    with pytest.raises(Unauthenticated):
        reader.verify(signer("stranger").sign("ingest", "t"))
    forger = signer("next")
    forger.service = "ingest"
    with pytest.raises(Unauthenticated):
        reader.verify(forger.sign("ingest", "t"))
    ended = Tokens("ingest", keys["ingest"].as_pem(private=True), jwks(("console", "next"), ("ingest", "ingest")))
    with pytest.raises(Unauthenticated):
        ended.verify(signer("console").sign("ingest", "t"))


def test_a_token_carries_the_persons_role(space: Space) -> None:
    person = Principal(tenant_id="t", user_id="user_1", role="viewer", owner_role="end_user")
    principal = space.tokens("ingest").verify(space.tokens("console").sign("ingest", "t", person))
    assert (principal.user_id, principal.role, principal.owner_role) == ("user_1", "viewer", "end_user")
    assert not principal.may("files:write")


def test_a_token_carries_what_the_caller_may_and_whose_their_things_are(space: Space) -> None:
    key = Principal(tenant_id="t", key_id="key_1", role="engineer", scopes=frozenset({"chat:write"}))
    principal = space.tokens("rag_indexer").verify(space.tokens("inference_proxy").sign("rag_indexer", "t", key))
    assert (principal.may("chat:write"), principal.may("retrieval:read")) == (True, False)
    assert (principal.owner, principal.caller) == ("key_1", "inference_proxy")
    again = space.tokens("ingest").verify(space.tokens("rag_indexer").sign("ingest", "t", principal))
    assert (again.scopes, again.owner) == (principal.scopes, "key_1")
    limited = replace(key, allowances=(Allowance("key_1", 5, 7), Allowance("t", 50, 70)))
    counted = space.tokens("inference_proxy").verify(space.tokens("console").sign("inference_proxy", "t", limited))
    assert counted.allowances == limited.allowances
    service = space.tokens("ingest").verify(space.tokens("trainer").sign("ingest", "t"))
    assert (service.may("files:read"), service.only) == (True, {})


@pytest.mark.parametrize("role", ["owner", "engineer", "viewer", "operator"])
def test_only_end_users_see_their_own_alone(role: str) -> None:
    assert Principal(tenant_id="t", key_id="key_1", role=role).only == {}
    assert Principal(tenant_id="t", key_id="key_1", role="end_user").only == {"owner": "key_1"}
    assert Principal(tenant_id="t", key_id="key_1", user_id="user_1", role="end_user").only == {"owner": "user_1"}


def test_a_token_ends(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = space.tokens("console")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1_000_000.0)
        token = signer.sign("ingest", "t")
    with pytest.raises(Unauthenticated):
        space.tokens("ingest").verify(token)
