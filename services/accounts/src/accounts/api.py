"""The HTTP routes of accounts: `/v1/organization` for people and operators, `/internal` for services."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from accounts.domain import ApiKey, Ceiling, NewKey, Tenant, User
from accounts.store import Accounts
from accounts.use_cases import Keys, People, Tenants, actor_of
from chassis.auth import Principal, internal, operator, require
from chassis.bodies import Body
from chassis.errors import NotFound
from chassis.http import Page, page
from chassis.text import quoted
from eventbus.dead_letters import DeadLetter, DeadLetters
from schemas import TenantPolicy

Reads = Annotated[Principal, require("organization:read")]
Writes = Annotated[Principal, require("organization:write")]
ReadsTrail = Annotated[Principal, require("organization:read", "audit:read")]
Internal = Annotated[Principal, internal()]
Operator = Annotated[Principal, operator()]
Limit = Annotated[int, Query(ge=1, le=100)]


Name = Annotated[str, Field(max_length=200)]
Word = Annotated[str, Field(max_length=100)]
Email = Annotated[str, Field(max_length=320)]
Password = Annotated[str, Field(max_length=1024)]
BaseModelId = Annotated[str, Field(max_length=200, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")]
"""A folder's name in the catalogue, never a path; empty for the installation's default."""

PerMinute = Annotated[int, Field(ge=1, le=1_000_000_000)]
HowMany = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[int, Field(ge=0, le=2**40)]


class PolicyAsked(Body):
    """A tenant's policy; what is left out is as `TenantPolicy` says."""

    tune_on_upload: bool = True
    gate: Literal["auto", "approval", "advisory"] = "auto"
    base_model: BaseModelId = ""


class TenantAsked(Body):
    """A tenant to be made."""

    name: Name
    policy: PolicyAsked = Field(default_factory=PolicyAsked)


class PolicyChange(Body):
    """The fields of a policy to be changed."""

    tune_on_upload: bool | None = None
    gate: Literal["auto", "approval", "advisory"] | None = None
    base_model: BaseModelId | None = None


class CeilingChange(Body):
    """What a tenant may use in all, where that changes."""

    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    keys: HowMany | None = None
    people: HowMany | None = None


class KeyAsked(Body):
    """A key to be made."""

    name: str = Field("key", min_length=1, max_length=100)
    role: Word = "engineer"
    scopes: list[Word] = Field(default_factory=lambda: ["*"], max_length=100)
    expires_at: Seconds | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    user_id: Word | None = None


class LettersAsked(Body):
    """Which dead letters to send back; all of them if nothing is given."""

    consumer: Word | None = None
    code: Word | None = None


class PersonAsked(Body):
    """A person to be invited."""

    email: Email
    role: Word = "end_user"


class OwnerAsked(Body):
    """A person to be an owner."""

    email: Email


class PersonChange(Body):
    """What to change about a person."""

    role: Word | None = None
    disabled: bool | None = None


class KeyHash(Body):
    """A key to be verified, by its SHA-256."""

    key_hash: str = Field(pattern="^[0-9a-f]{64}$")


class SignUp(Body):
    """A new organisation and its owner, and the network address they come from."""

    organization: Name
    email: Email
    password: Password
    address: Word = ""


class SignIn(Body):
    """Who wants in, from which network address."""

    email: Email
    password: Password
    address: Word = ""


class Joining(Body):
    """A one-time code, and the password chosen by it."""

    code: Name
    password: Password


class PasswordChange(Body):
    """A person's password, and the one they want."""

    current: Password
    new: Password
    address: Word = ""


def tenant_view(tenant: Tenant, usual: Ceiling) -> dict[str, Any]:
    """A tenant as shown."""
    return {
        "object": "organization.tenant",
        "id": tenant.id,
        "tenant_id": tenant.id,
        "created_at": tenant.created_at,
        "name": tenant.name,
        "slug": tenant.slug,
        "policy": tenant.policy.model_dump(),
        "limits": tenant.ceiling(usual).model_dump(),
    }


def key_view(key: ApiKey) -> dict[str, Any]:
    """A key as shown: never the key itself."""
    shown = key.model_dump(exclude={"tenant_id", "version", "sent", "lease", "key_hash", "makers"})
    return {"object": "organization.api_key", **shown}


def user_view(user: User) -> dict[str, Any]:
    """A person as shown."""
    shown = user.model_dump(include={"id", "email", "role", "disabled", "created_at"})
    return {"object": "organization.user", **shown, "status": user.status}


def invited_view(user: User, code: str, response: Response) -> dict[str, Any]:
    """A person as shown, with the code by which they choose a password, which is shown only now."""
    response.headers["cache-control"] = "no-store"
    invitation = {"code": code, "path": f"/join#{code}", "expires_at": user.code_expires_at}
    return {**user_view(user), "invitation": invitation}


def person_view(user: User, tenant: Tenant, usual: Ceiling) -> dict[str, Any]:
    """A person, for the console's session."""
    return {
        "tenant_id": tenant.id,
        "user_id": user.id,
        "role": user.role,
        "email": user.email,
        "organization": tenant.slug,
        "name": tenant.name,
        "disabled": user.disabled,
        "password_changed_at": user.password_changed_at,
        "allowances": [asdict(tenant.allowance(usual))],
    }


def tenant_routes(accounts: Accounts, tenants: Tenants, people: People, usual: Ceiling) -> APIRouter:
    """Tenants, for the operator."""
    router = APIRouter(prefix="/v1/organization/tenants", tags=["organization"])

    @router.post("")
    async def create_tenant(asked: TenantAsked, principal: Operator, response: Response) -> dict[str, Any]:
        response.headers["cache-control"] = "no-store"
        policy = TenantPolicy(**asked.policy.model_dump())
        tenant, secret = await tenants.create(asked.name, policy, actor_of(principal))
        return {**tenant_view(tenant, usual), "api_key": secret}

    @router.get("")
    async def list_tenants(_: Operator, limit: Limit = 20, after: str | None = None) -> Page:
        found = await accounts.all_tenants(limit=limit + 1, after=after)
        return page([tenant_view(tenant, usual) for tenant in found], limit=limit)

    @router.patch("/{tenant_id}")
    async def change_ceiling(tenant_id: str, change: CeilingChange, principal: Operator) -> dict[str, Any]:
        changes = change.model_dump(exclude_none=True)
        return tenant_view(await tenants.change_ceiling(tenant_id, changes, actor_of(principal)), usual)

    @router.post("/{tenant_id}/owners")
    async def let_owner_in(
        tenant_id: str, asked: OwnerAsked, principal: Operator, response: Response
    ) -> dict[str, Any]:
        return invited_view(*await people.let_in(tenant_id, asked.email, actor_of(principal)), response)

    return router


def organization_routes(accounts: Accounts, tenants: Tenants, keys: Keys, people: People, usual: Ceiling) -> APIRouter:
    """One's own organisation, its keys, people and audit trail."""
    router = APIRouter(prefix="/v1/organization", tags=["organization"])

    @router.get("")
    async def own_organization(principal: Reads) -> dict[str, Any]:
        return tenant_view(await accounts.tenants.get(principal.tenant_id, principal.tenant_id), usual)

    @router.patch("")
    async def change_policy(change: PolicyChange, principal: Writes) -> dict[str, Any]:
        changes = change.model_dump(exclude_none=True)
        return tenant_view(await tenants.change_policy(principal.tenant_id, changes, actor_of(principal)), usual)

    @router.post("/keys")
    async def create_key(asked: KeyAsked, principal: Writes, response: Response) -> dict[str, Any]:
        response.headers["cache-control"] = "no-store"
        wanted = NewKey(**{**asked.model_dump(), "scopes": tuple(asked.scopes)})
        key, secret = await keys.create(principal, wanted)
        return {**key_view(key), "api_key": secret}

    @router.get("/keys")
    async def list_keys(principal: Reads, limit: Limit = 20, after: str | None = None) -> Page:
        found = await accounts.keys.find(principal.tenant_id, limit=limit + 1, after=after)
        return page([key_view(key) for key in found], limit=limit)

    @router.delete("/keys/{key_id}")
    async def revoke_key(key_id: str, principal: Writes) -> dict[str, Any]:
        key = await keys.revoke(principal.tenant_id, key_id, actor_of(principal))
        return {"object": "organization.api_key.deleted", "id": key.id, "deleted": True}

    @router.post("/users")
    async def invite_person(asked: PersonAsked, principal: Writes, response: Response) -> dict[str, Any]:
        return invited_view(*await people.invite(principal, asked.email, asked.role), response)

    @router.get("/users")
    async def list_people(principal: Reads, limit: Limit = 20, after: str | None = None) -> Page:
        found = await accounts.users.find(principal.tenant_id, limit=limit + 1, after=after)
        return page([user_view(user) for user in found], limit=limit)

    @router.get("/users/{user_id}")
    async def retrieve_person(user_id: str, principal: Reads) -> dict[str, Any]:
        return user_view(await accounts.users.get(principal.tenant_id, user_id))

    @router.post("/users/{user_id}/reset_password")
    async def reset_password(user_id: str, principal: Writes, response: Response) -> dict[str, Any]:
        return invited_view(*await people.reset(principal, user_id), response)

    @router.patch("/users/{user_id}")
    async def change_person(user_id: str, change: PersonChange, principal: Writes) -> dict[str, Any]:
        return user_view(await people.change(principal, user_id, role=change.role, disabled=change.disabled))

    @router.get("/audit_logs")
    async def audit_logs(
        principal: ReadsTrail, limit: Limit = 20, after: str | None = None, verify: bool = False
    ) -> dict[str, Any]:
        found = await accounts.audit_page(principal.tenant_id, limit=limit + 1, after=after)
        shown = page([{"id": entry.digest, **entry.model_dump()} for entry in found], limit=limit)
        intact = await accounts.audit_page_intact(principal.tenant_id, found, newest=after is None)
        if verify:
            intact = await accounts.audit_intact(principal.tenant_id)
        return {**shown.model_dump(), "intact": intact}

    return router


def letter_view(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as shown."""
    return {
        "object": "organization.dead_letter",
        "id": letter.id,
        "topic": letter.topic,
        "type": letter.headers.get("ce_type"),
        "tenant_id": letter.headers.get("ce_tenantid"),
        "consumer": letter.consumer,
        "code": letter.code,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "died_at": letter.died_at,
        "replayed_at": letter.replayed_at,
    }


def dead_letter_routes(accounts: Accounts, dead_letters: DeadLetters) -> APIRouter:
    """For the operator: what consumers gave up, and sending it back once its cause is mended."""
    router = APIRouter(prefix="/v1/organization/dead_letters", tags=["organization"])

    async def replay(principal: Principal, letters: list[DeadLetter]) -> None:
        for letter in letters:
            await dead_letters.replay(letter)
            await accounts.audit("", actor_of(principal), "dead_letter.replay", letter.id, consumer=letter.consumer)

    @router.get("")
    async def list_letters(
        _: Operator,
        limit: Limit = 20,
        after: Word | None = None,
        consumer: Word | None = None,
        code: Word | None = None,
    ) -> Page:
        found = await dead_letters.find(consumer=consumer, code=code)
        if after is not None:
            ids = [letter.id for letter in found]
            if after not in ids:
                raise NotFound(f"No such dead letter: {quoted(after)}.", param="after")
            found = found[ids.index(after) + 1 :]
        return page([letter_view(letter) for letter in found], limit=limit)

    @router.post("/replay")
    async def replay_all(asked: LettersAsked, principal: Operator) -> dict[str, Any]:
        found = await dead_letters.find(consumer=asked.consumer, code=asked.code)
        whole = [letter for letter in found[::-1] if not letter.cut]  # as they died: those of a key follow each other
        await replay(principal, whole)
        return {"object": "list", "replayed": len(whole), "skipped": [letter.id for letter in found if letter.cut]}

    @router.get("/{letter_id}")
    async def retrieve_letter(letter_id: str, _: Operator) -> dict[str, Any]:
        letter = await dead_letters.get(letter_id)
        return {
            **letter_view(letter),
            "headers": letter.headers,
            "key": letter.key.decode("utf-8", "replace") if letter.key else None,
            "value": letter.value.decode("utf-8", "replace"),
        }

    @router.post("/{letter_id}/replay")
    async def replay_letter(letter_id: str, principal: Operator) -> dict[str, Any]:
        letter = await dead_letters.get(letter_id)
        await replay(principal, [letter])
        return letter_view(await dead_letters.get(letter_id))

    return router


def internal_routes(accounts: Accounts, keys: Keys, people: People, usual: Ceiling) -> APIRouter:
    """What other services ask."""
    router = APIRouter(prefix="/internal")

    @router.post("/keys/verify")
    async def verify_key(asked: KeyHash, _: Internal) -> dict[str, Any]:
        return await keys.verify(asked.key_hash)

    @router.get("/tenants/{tenant_id}")
    async def tenant(tenant_id: str, _: Internal) -> dict[str, Any]:
        return tenant_view(await accounts.tenants.get(tenant_id, tenant_id), usual)

    @router.get("/users/{user_id}")
    async def person(user_id: str, caller: Internal) -> dict[str, Any]:
        user = await accounts.users.get(caller.tenant_id, user_id)
        return person_view(user, await accounts.tenants.get(user.tenant_id, user.tenant_id), usual)

    @router.post("/users/sign_up")
    async def sign_up(asked: SignUp, _: Internal) -> dict[str, Any]:
        return person_view(*await people.sign_up(asked.organization, asked.email, asked.password, asked.address), usual)

    @router.post("/users/sign_in")
    async def sign_in(asked: SignIn, _: Internal) -> dict[str, Any]:
        return person_view(*await people.sign_in(asked.email, asked.password, asked.address), usual)

    @router.post("/users/join")
    async def join(asked: Joining, _: Internal) -> dict[str, Any]:
        return person_view(*await people.join(asked.code, asked.password), usual)

    @router.post("/users/{user_id}/password")
    async def change_password(user_id: str, asked: PasswordChange, caller: Internal) -> dict[str, Any]:
        wanted = (asked.current, asked.new, asked.address)
        return person_view(*await people.change_password(caller.tenant_id, user_id, *wanted), usual)

    return router
