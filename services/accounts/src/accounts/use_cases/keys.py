"""Makes, verifies and ends API keys."""

from __future__ import annotations

import secrets
import string
from dataclasses import asdict
from typing import Any

from accounts.domain import KEY_PREFIX, ApiKey, NewKey, Tenant, check_event_types, check_grant
from accounts.store import Accounts
from accounts.use_cases.limits import Limits, actor_of
from chassis.auth import Principal, hash_key
from chassis.errors import Forbidden, Invalid, Unauthenticated
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from chassis.limits import Allowance

BASE62 = string.digits + string.ascii_letters
SECRET_CHARACTERS = 43


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
        check_event_types(asked)
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
            event_types=list(asked.event_types),
        )
        publishes = {"event_types": ", ".join(key.event_types)} if key.event_types else {}
        await self._accounts.audit(tenant_id, actor, "key.create", key.id, name=key.name, role=key.role, **publishes)
        stored = await self._accounts.keys.add_once(key)
        if stored.key_hash != key.key_hash:
            stored = await self._accounts.keys.update(tenant_id, key.id, lambda it: it.reissue(key.key_hash, key.hint))
        return stored, secret

    async def revoke(self, maker: Principal, key_id: str) -> ApiKey:
        """End a key; every service forgets it as soon as the event reaches it.

        Raises:
            Forbidden: it allows more than who ends it.
        """
        tenant_id = maker.tenant_id
        key = await self._accounts.keys.get(tenant_id, key_id)
        check_grant(maker, key.role, key.scopes)
        await self._accounts.audit(tenant_id, actor_of(maker), "key.revoke", key_id)
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
            "event_types": key.event_types,
            "allowances": [asdict(allowance) for allowance in allowances],
        }

    async def operator(self, key_hash: str) -> dict[str, Any]:
        """As `verify`, of the operator's key, who comes in by it.

        Raises:
            Unauthenticated: it is not the operator's.
        """
        known = await self.verify(key_hash)
        if known["role"] != "operator":
            raise Unauthenticated("This is not the operator's key.", code="wrong_credentials")
        await self._accounts.audit("", known["key_id"], "operator.sign_in", known["key_id"])
        return known

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
