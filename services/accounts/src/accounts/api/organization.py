"""`/v1/organization`: one's own organization, its keys, people and audit trail."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from accounts.api.bodies import KeyAsked, PersonAsked, PersonChange, PolicyChange, Rotation
from accounts.api.views import (
    InvitedView,
    KeyDeleted,
    KeyView,
    KeyWithSecret,
    LineView,
    TenantView,
    TrailPage,
    UserDeleted,
    UserView,
)
from accounts.domain import Ceiling, NewKey
from accounts.store import Accounts
from accounts.use_cases import Keys, People, Tenants, actor_of
from chassis.auth import Principal, require
from chassis.http import Page, page
from chassis.routes import Router

Reads = Annotated[Principal, require("organization:read")]
Writes = Annotated[Principal, require("organization:write")]
Rotates = Annotated[Principal, require("organization:write", "own:rotate")]
ReadsTrail = Annotated[Principal, require("audit:read", "organization:read")]
Limit = Annotated[int, Query(ge=1, le=100)]
DAY = Rotation()


def organization_routes(accounts: Accounts, tenants: Tenants, keys: Keys, people: People, usual: Ceiling) -> Router:
    """One's own organisation, its keys, people and audit trail."""
    router = Router(prefix="/v1/organization", tags=["organization"])

    @router.get("")
    async def own_organization(principal: Reads) -> TenantView:
        return TenantView.of(await accounts.tenant(principal.tenant_id), usual)

    @router.patch("")
    async def change_policy(change: PolicyChange, principal: Writes) -> TenantView:
        changes = change.model_dump(exclude_none=True)
        return TenantView.of(await tenants.change_policy(principal.tenant_id, changes, actor_of(principal)), usual)

    @router.post("/keys")
    async def create_key(asked: KeyAsked, principal: Writes, response: Response) -> KeyWithSecret:
        response.headers["cache-control"] = "no-store"
        lists = {"scopes": tuple(asked.scopes), "event_types": tuple(asked.event_types)}
        wanted = NewKey(**{**asked.model_dump(), **lists})
        key, secret = await keys.create(principal, wanted)
        return KeyWithSecret(**KeyView.of(key).model_dump(), api_key=secret)

    @router.get("/keys")
    async def list_keys(principal: Reads, limit: Limit = 20, after: str | None = None) -> Page:
        found = await accounts.keys_page(principal.tenant_id, limit=limit + 1, after=after)
        return page([KeyView.of(key) for key in found], limit=limit)

    @router.post("/keys/{key_id}/rotate")
    async def rotate_key(key_id: str, principal: Rotates, response: Response, asked: Rotation = DAY) -> KeyWithSecret:
        response.headers["cache-control"] = "no-store"
        key, secret = await keys.rotate(principal, key_id, asked.grace_seconds)
        return KeyWithSecret(**KeyView.of(key).model_dump(), api_key=secret)

    @router.delete("/keys/{key_id}")
    async def revoke_key(key_id: str, principal: Writes) -> KeyDeleted:
        key = await keys.revoke(principal, key_id)
        return KeyDeleted(id=key.id)

    @router.post("/users")
    async def invite_person(asked: PersonAsked, principal: Writes, response: Response) -> InvitedView:
        return InvitedView.shown(*await people.invite(principal, asked.email, asked.role), response)

    @router.get("/users")
    async def list_people(
        principal: Reads,
        limit: Limit = 20,
        after: str | None = None,
        email: Annotated[str | None, Query(max_length=320, description="Only the person of this address.")] = None,
    ) -> Page:
        only = email.strip().casefold() if email is not None else None
        found = await accounts.people_page(principal.tenant_id, email=only, limit=limit + 1, after=after)
        return page([UserView.of(user) for user in found], limit=limit)

    @router.get("/users/{user_id}")
    async def retrieve_person(user_id: str, principal: Reads) -> UserView:
        return UserView.of(await accounts.person(principal.tenant_id, user_id))

    @router.post("/users/{user_id}/reset_password")
    async def reset_password(user_id: str, principal: Writes, response: Response) -> InvitedView:
        return InvitedView.shown(*await people.reset(principal, user_id), response)

    @router.patch("/users/{user_id}")
    async def change_person(user_id: str, change: PersonChange, principal: Writes) -> UserView:
        return UserView.of(await people.change(principal, user_id, role=change.role, disabled=change.disabled))

    @router.delete("/users/{user_id}")
    async def withdraw_invitation(user_id: str, principal: Writes) -> UserDeleted:
        await people.withdraw(principal, user_id)
        return UserDeleted(id=user_id)

    @router.get("/audit_logs")
    async def audit_logs(
        principal: ReadsTrail, limit: Limit = 20, after: str | None = None, verify: bool = False
    ) -> TrailPage:
        found = await accounts.audit_page(principal.tenant_id, limit=limit + 1, after=after)
        shown = page([LineView(id=entry.digest, **entry.model_dump()) for entry in found], limit=limit)
        intact = await accounts.audit_page_intact(principal.tenant_id, found, newest=after is None)
        if verify:
            intact = await accounts.audit_intact(principal.tenant_id)
        return TrailPage(**shown.model_dump(), intact=intact)

    return router
