"""`/internal`: what other services ask."""

from __future__ import annotations

from typing import Annotated

from accounts.api.bodies import Code, Joining, KeyHash, PasswordChange, SignIn, SignUp
from accounts.api.views import Invited, PersonView
from accounts.domain import Ceiling
from accounts.store import Accounts
from accounts.use_cases import KeyFacts, Keys, People
from chassis.auth import Principal, internal
from chassis.routes import Router
from schemas.http.accounts import TenantFacts

Internal = Annotated[Principal, internal()]


def internal_routes(accounts: Accounts, keys: Keys, people: People, usual: Ceiling) -> Router:
    """What other services ask."""
    router = Router(prefix="/internal")

    @router.post("/keys/verify")
    async def verify_key(asked: KeyHash, _: Internal) -> KeyFacts:
        return await keys.verify(asked.key_hash)

    @router.get("/tenants/{tenant_id}")
    async def tenant(tenant_id: str, _: Internal) -> TenantFacts:
        found = await accounts.tenant(tenant_id)
        return TenantFacts(tenant_id=found.id, slug=found.slug, policy=found.policy)

    @router.get("/users/{user_id}")
    async def person(user_id: str, caller: Internal) -> PersonView:
        user = await accounts.person(caller.tenant_id, user_id)
        return PersonView.of(user, await accounts.tenant(user.tenant_id), usual)

    @router.post("/users/sign_up")
    async def sign_up(asked: SignUp, _: Internal) -> PersonView:
        return PersonView.of(
            *await people.sign_up(asked.organization, asked.email, asked.password, asked.address), usual
        )

    @router.post("/users/sign_in")
    async def sign_in(asked: SignIn, _: Internal) -> PersonView:
        return PersonView.of(*await people.sign_in(asked.email, asked.password, asked.address), usual)

    @router.post("/keys/operator")
    async def operator_sign_in(asked: KeyHash, _: Internal) -> KeyFacts:
        return await keys.operator(asked.key_hash)

    @router.post("/users/look")
    async def look(asked: Code, _: Internal) -> Invited:
        user, tenant = await people.look(asked.code)
        return Invited(email=user.email, role=user.role, name=tenant.name)

    @router.post("/users/join")
    async def join(asked: Joining, _: Internal) -> PersonView:
        return PersonView.of(*await people.join(asked.code, asked.password), usual)

    @router.post("/users/{user_id}/password")
    async def change_password(user_id: str, asked: PasswordChange, caller: Internal) -> PersonView:
        wanted = (asked.current, asked.new, asked.address)
        return PersonView.of(*await people.change_password(caller.tenant_id, user_id, *wanted), usual)

    return router
