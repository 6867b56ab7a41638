"""What accounts does: tenants, people, keys; every change leaves a line in the audit trail.

The line comes first: no change is without one, even if the service is killed between the two.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import asdict, dataclass
from typing import Any

from accounts.domain import (
    KEY_PREFIX,
    ApiKey,
    Ceiling,
    NewKey,
    Tenant,
    User,
    check_grant,
    checked_email,
    checked_password,
    known_role,
)
from accounts.passwords import Passwords
from accounts.store import Accounts
from chassis.auth import Peer, Principal, hash_key
from chassis.errors import Conflict, Forbidden, Invalid, NotFound, RateLimited, Unauthenticated
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from chassis.limits import Allowance
from schemas import TenantPolicy

BASE62 = string.digits + string.ascii_letters
SECRET_CHARACTERS = 43


@dataclass(frozen=True)
class Limits:
    """What a key may use that names no limits, a tenant that the operator set none, and what strangers may."""

    usual_key: Allowance
    usual_tenant: Ceiling
    sign_in_attempts: int
    sign_up: bool
    sign_ups_per_hour: int


class Tenants:
    """Makes tenants and changes their policies."""

    def __init__(self, accounts: Accounts, keys: Keys, registry: Peer) -> None:
        self._accounts = accounts
        self._keys = keys
        self._registry = registry

    async def create(self, name: str, policy: TenantPolicy, actor: str) -> tuple[Tenant, str]:
        """A new tenant and its first owner key, which exists in clear only in this answer.

        Raises:
            Invalid: the policy names a base model that is not there.
        """
        await self._check_base_model(policy.base_model)
        tenant = await self.found(request_id_for("tenant_", new_id("tenant_")), name, policy, actor)
        _, secret = await self._keys.issue(tenant.id, NewKey(name="first key"), user_id=None, actor=actor)
        return tenant, secret

    async def found(self, tenant_id: str, name: str, policy: TenantPolicy, actor: str) -> Tenant:
        """The tenant of that id, made if it is not there yet."""
        tenant = Tenant.create(tenant_id, name, policy, now())
        await self._accounts.audit(tenant_id, actor, "tenant.create", tenant_id, name=tenant.name)
        return await self._accounts.tenants.add_once(tenant)

    async def change_policy(self, tenant_id: str, changes: dict[str, Any], actor: str) -> Tenant:
        """Change some of the policy's fields.

        Raises:
            Invalid: there is no such base model.
        """
        await self._check_base_model(changes.get("base_model", ""))
        tenant = await self._accounts.tenants.get(tenant_id, tenant_id)
        if tenant.policy.model_copy(update=changes) == tenant.policy:
            return tenant

        def change(tenant: Tenant) -> None:
            tenant.change_policy(tenant.policy.model_copy(update=changes))

        await self._accounts.audit(tenant_id, actor, "tenant.policy", tenant_id, **changes)
        return await self._accounts.tenants.update(tenant_id, tenant_id, change)

    async def change_ceiling(self, tenant_id: str, changes: dict[str, int], actor: str) -> Tenant:
        """Change what the tenant may use in all."""
        await self._accounts.tenants.get(tenant_id, tenant_id)
        await self._accounts.audit(tenant_id, actor, "tenant.ceiling", tenant_id, **changes)
        return await self._accounts.tenants.update(tenant_id, tenant_id, lambda tenant: tenant.change_ceiling(changes))

    async def _check_base_model(self, base_model: str) -> None:
        if not base_model:
            return
        try:
            await self._registry.get("/internal/base_models/{}", base_model, tenant_id="")
        except NotFound as error:
            raise Invalid(error.message, code="model_not_found", param="base_model") from error


class Keys:
    """Makes, verifies and ends API keys."""

    def __init__(self, accounts: Accounts, limits: Limits) -> None:
        self._accounts = accounts
        self._limits = limits

    async def create(self, maker: Principal, asked: NewKey) -> tuple[ApiKey, str]:
        """A key for the maker's tenant.

        Raises:
            Forbidden: it would allow more than the maker, or the tenant, may; or there are too many keys.
            Invalid: unknown role, or it has expired already.
        """
        check_grant(maker, asked.role, list(asked.scopes))
        if asked.expires_at is not None and asked.expires_at <= now():
            raise Invalid("expires_at: this time has passed already.", param="expires_at")
        tenant = await self._accounts.tenants.get(maker.tenant_id, maker.tenant_id)
        ceiling = tenant.ceiling(self._limits.usual_tenant)
        for name in ("requests_per_minute", "tokens_per_minute"):
            if (getattr(asked, name) or 0) > getattr(ceiling, name):
                raise Forbidden(f"{name}: your organization has {getattr(ceiling, name)} in all.", param=name)
        own = await self._accounts.key_of(maker)
        if own is not None:
            asked = own.bind(asked, self._limits.usual_key)
        if await self._accounts.keys_in_use(maker.tenant_id, ceiling.keys) >= ceiling.keys:
            raise Forbidden(
                f"Your organization has {ceiling.keys} keys, the most it may have. Revoke some.", code="too_many_keys"
            )
        if asked.user_id is not None:
            person = await self._accounts.users.get(maker.tenant_id, asked.user_id)
            check_grant(maker, person.role, ["*"])
        # Users of an app get keys of nobody: with their maker's they would be one user and see the maker's things.
        user_id = asked.user_id or (None if asked.role == "end_user" else maker.user_id)
        return await self.issue(maker.tenant_id, asked, user_id=user_id, actor=actor_of(maker))

    async def issue(self, tenant_id: str, asked: NewKey, *, user_id: str | None, actor: str) -> tuple[ApiKey, str]:
        """Make and store a key without asking who may.

        A request that is repeated under its `Idempotency-Key` because its answer was lost gets the same key with a new
        secret.
        """
        secret = KEY_PREFIX + "".join(secrets.choice(BASE62) for _ in range(SECRET_CHARACTERS))
        key = ApiKey(
            id=request_id_for("key_", new_id("key_")),
            tenant_id=tenant_id,
            created_at=now(),
            name=asked.name,
            key_hash=hash_key(secret),
            hint=f"{secret[:13]}…{secret[-4:]}",
            role=asked.role,
            scopes=list(asked.scopes),
            user_id=user_id,
            expires_at=asked.expires_at,
            requests_per_minute=asked.requests_per_minute,
            tokens_per_minute=asked.tokens_per_minute,
            makers=list(asked.makers),
        )
        await self._accounts.audit(tenant_id, actor, "key.create", key.id, name=key.name, role=key.role)
        stored = await self._accounts.keys.add_once(key)
        if stored.key_hash != key.key_hash:
            stored = await self._accounts.keys.update(tenant_id, key.id, lambda it: it.reissue(key.key_hash, key.hint))
        return stored, secret

    async def revoke(self, tenant_id: str, key_id: str, actor: str) -> ApiKey:
        """End a key; every service forgets it as soon as the event reaches it."""
        await self._accounts.keys.get(tenant_id, key_id)
        await self._accounts.audit(tenant_id, actor, "key.revoke", key_id)
        return await self._accounts.keys.update(tenant_id, key_id, lambda it: it.revoke(now()))

    async def verify(self, key_hash: str) -> dict[str, Any]:
        """Who a key belongs to and what it may do, as the other services cache it.

        Raises:
            Unauthenticated: unknown, expired or revoked.
        """
        key = await self._accounts.key_by_hash(key_hash)
        if key is None:
            raise Unauthenticated("Incorrect API key provided. Make one in the console or with `sartor keys create`.")
        if key.revoked_at is not None:
            raise Unauthenticated("This API key was revoked. Use another one.", code="revoked_api_key")
        if key.expires_at is not None and key.expires_at <= now():
            raise Unauthenticated("This API key has expired. Ask for a new one.", code="expired_api_key")
        owner = await self._accounts.users.find_one(key.tenant_id, {"_id": key.user_id}) if key.user_id else None
        scopes = key.scopes_for(owner)
        organization, allowances = "", []
        if key.tenant_id:
            tenant = await self._accounts.tenants.get(key.tenant_id, key.tenant_id)
            organization, allowances = tenant.slug, self._allowances(key, tenant)
        self._accounts.last_used.note(key)
        return {
            "tenant_id": key.tenant_id,
            "key_id": key.id,
            "user_id": key.user_id,
            "role": key.role_for(owner),
            "scopes": sorted(scopes),
            "organization": organization,
            "expires_at": key.expires_at,
            "allowances": [asdict(allowance) for allowance in allowances],
        }

    def _allowances(self, key: ApiKey, tenant: Tenant) -> list[Allowance]:
        """What the key may use by itself, with its makers, and with all keys of its tenant."""
        return [key.allowance(self._limits.usual_key), *key.makers, tenant.allowance(self._limits.usual_tenant)]

    async def register_operator(self, secret: str) -> None:
        """Make this the installation's operator key."""
        hashed = hash_key(secret)
        key = ApiKey(
            id=derived_id("key_", hashed),
            tenant_id="",
            created_at=now(),
            name="operator",
            key_hash=hashed,
            hint=f"{secret[:13]}…{secret[-4:]}",
            role="operator",
        )
        await self._accounts.set_operator_key(key)


class People:
    """Signs people up and in."""

    def __init__(self, accounts: Accounts, tenants: Tenants, passwords: Passwords, limits: Limits) -> None:
        self._accounts = accounts
        self._tenants = tenants
        self._passwords = passwords
        self._limits = limits

    async def sign_up(self, organization: str, email: str, password: str) -> tuple[User, Tenant]:
        """A new tenant with its owner.

        Raises:
            Invalid: address, password or name will not do.
            Conflict: the address has an account.
        """
        email = checked_email(email)
        checked_password(password)
        if not self._limits.sign_up:
            raise Forbidden("Nobody can sign up here by themselves. Ask the operator for an account.")
        if await self._accounts.user_by_email(email):
            raise Conflict("This e-mail address has an account already; sign in instead.", param="email")
        if await self._accounts.tenants_since(now() - 3600) >= self._limits.sign_ups_per_hour:
            raise RateLimited("Too many people sign up at the moment. Try again in an hour.", retry_after=3600)
        # The id follows from the address: who was cut off after the first write gets the same tenant next time.
        tenant = await self._tenants.found(derived_id("tenant_", email), organization, TenantPolicy(), actor=email)
        return await self._add(tenant.id, email, password, "owner", actor=email), tenant

    async def add(self, maker: Principal, email: str, password: str, role: str) -> User:
        """A person of the maker's tenant.

        Raises:
            Forbidden: the role allows more than the maker may, or there are too many people.
            Invalid, Conflict: as `sign_up`.
        """
        check_grant(maker, role, ["*"])
        await self._check_unlimited(maker)
        tenant = await self._accounts.tenants.get(maker.tenant_id, maker.tenant_id)
        most = tenant.ceiling(self._limits.usual_tenant).people
        if await self._accounts.people(maker.tenant_id, most) >= most:
            raise Forbidden(f"Your organization has {most} people, the most it may have.", code="too_many_people")
        return await self._add(maker.tenant_id, email, password, role, actor=actor_of(maker))

    async def change(self, maker: Principal, user_id: str, *, role: str | None, disabled: bool | None) -> User:
        """Give a person another role, shut them out, or let them in again.

        Raises:
            Forbidden: the role they have, or are to have, allows more than the maker may.
        """
        person = await self._accounts.users.get(maker.tenant_id, user_id)
        for allows in {person.role, role or person.role}:
            check_grant(maker, allows, ["*"])
        await self._check_unlimited(maker)
        changes = {name: value for name, value in (("role", role), ("disabled", disabled)) if value is not None}
        await self._accounts.audit(maker.tenant_id, actor_of(maker), "user.change", user_id, **changes)

        def apply(user: User) -> None:
            user.change_role(role if role is not None else user.role)
            user.disable(disabled if disabled is not None else user.disabled)

        return await self._accounts.users.update(maker.tenant_id, user_id, apply)

    async def _check_unlimited(self, maker: Principal) -> None:
        """A person has neither limits nor an end, so a key that has them gives nobody entry."""
        key = await self._accounts.key_of(maker)
        if key is not None and key.limited:
            raise Forbidden("A key with limits or an end may not let people in. Use one without.")

    async def _add(self, tenant_id: str, email: str, password: str, role: str, *, actor: str) -> User:
        user = User(
            id=request_id_for("user_", new_id("user_")),
            tenant_id=tenant_id,
            created_at=now(),
            email=checked_email(email),
            password_hash=await self._passwords.hash(checked_password(password)),
            role=known_role(role),
        )
        await self._accounts.audit(tenant_id, actor, "user.create", user.id, role=role)
        try:
            return await self._accounts.users.add_once(user)
        except Conflict as error:
            raise Conflict("This e-mail address has an account already.", param="email") from error

    async def sign_in(self, email: str, password: str) -> tuple[User, Tenant]:
        """The person with this address and password.

        Raises:
            Unauthenticated: no such person, or a wrong password; the two look the same.
            RateLimited: too many failures of this address.
        """
        email = email.strip().casefold()
        attempt = await self._accounts.begin_sign_in(email)
        if await self._accounts.sign_ins_open(email) > self._limits.sign_in_attempts:
            raise RateLimited("Too many failed sign-ins. Wait 15 minutes and try again.", retry_after=900)
        user = await self._accounts.user_by_email(email)
        good = await self._passwords.matches(user.password_hash if user else None, password)
        if user is None or not good or user.disabled:
            raise Unauthenticated("E-mail address and password do not match.", code="wrong_credentials")
        await self._accounts.end_sign_in(attempt)
        await self._accounts.audit(user.tenant_id, user.id, "user.sign_in", user.id)
        return user, await self._accounts.tenants.get(user.tenant_id, user.tenant_id)


def actor_of(principal: Principal) -> str:
    """Who acts, for the audit trail."""
    return principal.user_id or principal.key_id
