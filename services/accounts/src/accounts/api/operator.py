"""`/v1/organization` for the operator: tenants, and events that no consumer could handle."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from accounts.api.bodies import CeilingChange, LettersAsked, OwnerAsked, TenantAsked, Word
from accounts.api.views import (
    InvitedView,
    LeftView,
    LetterView,
    Replayed,
    TenantView,
    TenantWithKey,
    TenantWithOwner,
    WholeLetter,
)
from accounts.domain import Ceiling
from accounts.store import Accounts
from accounts.use_cases import Leftovers, People, ReplayLetters, Tenants, actor_of
from chassis.auth import Principal, operator
from chassis.http import Page, behind, page
from chassis.routes import Router
from chassis.text import quoted
from eventbus import DeadLetters
from schemas import TenantPolicy

Operator = Annotated[Principal, operator()]
Limit = Annotated[int, Query(ge=1, le=100)]


def tenant_routes(accounts: Accounts, tenants: Tenants, people: People, usual: Ceiling) -> Router:
    """Tenants, for the operator."""
    router = Router(prefix="/v1/organization/tenants", tags=["organization"])

    @router.post("")
    async def create_tenant(
        asked: TenantAsked, principal: Operator, response: Response
    ) -> TenantWithKey | TenantWithOwner:
        response.headers["cache-control"] = "no-store"
        policy = TenantPolicy(**asked.policy.model_dump())
        if asked.owner is not None:
            begun, user, code = await people.begin_tenant(asked.name, policy, asked.owner, actor_of(principal))
            shown = TenantView.of(begun, usual).model_dump()
            return TenantWithOwner(**shown, owner=InvitedView.shown(user, code, response))
        tenant, secret = await tenants.create(asked.name, policy, actor_of(principal))
        return TenantWithKey(**TenantView.of(tenant, usual).model_dump(), api_key=secret)

    @router.get("")
    async def list_tenants(_: Operator, limit: Limit = 20, after: str | None = None) -> Page:
        found = await accounts.all_tenants(limit=limit + 1, after=after)
        return page([TenantView.of(tenant, usual) for tenant in found], limit=limit)

    @router.patch("/{tenant_id}")
    async def change_ceiling(tenant_id: str, change: CeilingChange, principal: Operator) -> TenantView:
        changes = change.model_dump(exclude_none=True)
        return TenantView.of(await tenants.change_ceiling(tenant_id, changes, actor_of(principal)), usual)

    @router.post("/{tenant_id}/owners")
    async def let_owner_in(tenant_id: str, asked: OwnerAsked, principal: Operator, response: Response) -> InvitedView:
        return InvitedView.shown(*await people.let_in(tenant_id, asked.email, actor_of(principal)), response)

    return router


def dead_letter_routes(dead_letters: DeadLetters, replay: ReplayLetters) -> Router:
    """For the operator: what consumers gave up, and sending it back once its cause is mended."""
    router = Router(prefix="/v1/organization/dead_letters", tags=["organization"])

    @router.get("")
    async def list_letters(
        _: Operator,
        limit: Limit = 20,
        after: Word | None = None,
        consumer: Word | None = None,
        code: Word | None = None,
    ) -> Page:
        found = await dead_letters.find(consumer=consumer, code=code)
        rest = behind(found, after, f"No such dead letter: {quoted(after or '')}.")
        return page([LetterView.of(letter) for letter in rest], limit=limit)

    @router.post("/replay")
    async def replay_all(asked: LettersAsked, principal: Operator) -> Replayed:
        found = await dead_letters.find(consumer=asked.consumer, code=asked.code)
        whole = [letter for letter in found[::-1] if not letter.cut]  # as they died: those of a key follow each other
        await replay.run(whole, actor_of(principal))
        return Replayed(replayed=len(whole), skipped=[letter.id for letter in found if letter.cut])

    @router.get("/{letter_id}")
    async def retrieve_letter(letter_id: str, _: Operator) -> WholeLetter:
        return WholeLetter.whole(await dead_letters.get(letter_id))

    @router.post("/{letter_id}/replay")
    async def replay_letter(letter_id: str, principal: Operator) -> LetterView:
        letter = await dead_letters.get(letter_id)
        await replay.run([letter], actor_of(principal))
        return LetterView.of(await dead_letters.get(letter_id))

    return router


def leftover_routes(leftovers: Leftovers) -> Router:
    """For the operator: what was deleted under an earlier release and is not gone everywhere."""
    router = Router(prefix="/v1/organization/leftovers", tags=["organization"])

    @router.get("")
    async def list_leftovers(_: Operator) -> LeftView:
        return LeftView(data=await leftovers.look())

    @router.post("/purge")
    async def purge_leftovers(principal: Operator) -> LeftView:
        return LeftView(data=await leftovers.purge(actor_of(principal)))

    return router
