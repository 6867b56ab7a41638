"""Makes, verifies and ends API keys."""

from __future__ import annotations

import secrets
import string

from pydantic import BaseModel

from accounts.domain import KEY_PREFIX, ApiKey, NewKey, Tenant, check_event_types, check_grant
from accounts.store import Accounts
from accounts.use_cases.limits import Limits, actor_of
from chassis.auth import Principal, hash_key
from chassis.errors import Forbidden, Invalid, NotFound, Unauthenticated
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from chassis.limits import Allowance
from chassis.text import quoted

BASE62 = string.digits + string.ascii_letters
SECRET_CHARACTERS = 43


class KeyFacts(BaseModel):
    """Who a key belongs to and what it may do, as the other services cache it."""

    tenant_id: str
    key_id: str
    user_id: str | None
    role: str
    owner_role: str
    scopes: list[str]
    organization: str
    expires_at: int | None
    event_types: list[str]
    allowances: list[Allowance]


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
        tenant = await self._accounts.tenant(maker.tenant_id)
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
            person = await self._accounts.person(maker.tenant_id, asked.user_id)
            check_grant(maker, person.role, ["*"])
        # Users of an app get keys of nobody: with their maker's they would be one user and see the maker's things.
        user_id = asked.user_id or (None if asked.role == "end_user" else maker.user_id)
        return await self.issue(maker.tenant_id, asked, user_id=user_id, actor=actor_of(maker))

    async def issue(self, tenant_id: str, asked: NewKey, *, user_id: str | None, actor: str) -> tuple[ApiKey, str]:
        """Make and store a key without asking who may.

        A request that is repeated under its `Idempotency-Key` because its answer was lost gets the same key with a new
        secret.
        """
        secret = _new_secret()
        key = ApiKey(
            id=request_id_for("key_", new_id("key_")),
            tenant_id=tenant_id,
            created_at=now(),
            name=asked.name,
            key_hash=hash_key(secret),
            hint=_hint(secret),
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
        stored = await self._accounts.add_key(key)
        if stored.key_hash != key.key_hash:
            stored = await self._accounts.change_key(
                tenant_id, key.id, lambda it: it.reissue(key.key_hash, key.hint, now())
            )
        return stored, secret

    async def rotate(self, maker: Principal, key_id: str, grace_seconds: int) -> tuple[ApiKey, str]:
        """Another secret for a key that stays what it is; those before it hold for the grace.

        Who manages keys may rotate what they might have made; every other key, if it may, itself alone.

        Args:
            maker: who asks.
            key_id: which key; `own` for the one that is asked with.
            grace_seconds: how long.

        Raises:
            NotFound: there is no such key, or it is not the caller's to see.
            Forbidden: it allows more than who rotates it, or a secret that was replaced already asks.
            Conflict: see `ApiKey.rotate`.
        """
        tenant_id, rotation = maker.tenant_id, request_id_for("rot_", new_id("rot_"))
        if key_id == "own":
            key_id = maker.key_id
        if not maker.may("organization:write") and key_id != maker.key_id:
            raise NotFound(f"No such key: {quoted(key_id)}.", param="key_id")
        key = await self._accounts.key(tenant_id, key_id)
        own = await self._accounts.key_of(maker)
        if own is None or own.id != key.id:
            await self._check_could_make(maker, own, key)
        elif maker.key_hash != key.key_hash and rotation != key.rotation:
            raise Forbidden(
                "This secret of the key was replaced already. Use the new one, or ask who manages your keys.",
                code="replaced_api_key",
            )
        secret = _new_secret()
        hashed, hint = hash_key(secret), _hint(secret)

        def change(it: ApiKey) -> None:
            it.rotate(hashed, hint, rotation=rotation, at=now(), grace_seconds=grace_seconds)

        change(key)  # what is refused leaves no line in the trail
        await self._accounts.audit(
            tenant_id, actor_of(maker), "key.rotate", key_id, name=key.name, grace_seconds=grace_seconds
        )
        return await self._accounts.change_key(tenant_id, key_id, change), secret

    async def _check_could_make(self, maker: Principal, own: ApiKey | None, key: ApiKey) -> None:
        """Whoever gets a key's secret gets its rights: they must be such as they could give.

        Raises:
            Forbidden: they are not.
        """
        check_grant(maker, key.role, key.scopes)
        if key.user_id is not None and key.user_id != maker.user_id:
            person = await self._accounts.person(maker.tenant_id, key.user_id)
            check_grant(maker, person.role, ["*"])
        if own is not None and not own.could_make(key):
            raise Forbidden("This key may use more than yours, so yours cannot rotate it.", code="key_exceeds_yours")

    async def revoke(self, maker: Principal, key_id: str) -> ApiKey:
        """End a key; every service forgets it as soon as the event reaches it.

        Raises:
            Forbidden: it allows more than who ends it.
        """
        tenant_id = maker.tenant_id
        key = await self._accounts.key(tenant_id, key_id)
        check_grant(maker, key.role, key.scopes)
        await self._accounts.audit(tenant_id, actor_of(maker), "key.revoke", key_id)
        return await self._accounts.change_key(tenant_id, key_id, lambda it: it.revoke(now()))

    async def verify(self, key_hash: str) -> KeyFacts:
        """Who a key belongs to and what it may do.

        Raises:
            Unauthenticated: unknown, expired, replaced or revoked.
        """
        key = await self._accounts.key_by_hash(key_hash)
        if key is None:
            raise Unauthenticated("Incorrect API key provided. Make one in the console or with `sartor keys create`.")
        ends_at = key.ends_for(key_hash, now())
        owner = await self._accounts.owner_of(key)
        scopes = key.scopes_for(owner)
        organization, allowances = "", list[Allowance]()
        if key.tenant_id:
            tenant = await self._accounts.tenant(key.tenant_id)
            organization, allowances = tenant.slug, self._allowances(key, tenant)
        self._accounts.note_use(key)
        return KeyFacts(
            tenant_id=key.tenant_id,
            key_id=key.id,
            user_id=key.user_id,
            role=key.role_for(owner),
            owner_role=owner.role if owner else "",
            scopes=sorted(scopes),
            organization=organization,
            expires_at=ends_at,
            event_types=key.event_types,
            allowances=allowances,
        )

    async def operator(self, key_hash: str) -> KeyFacts:
        """As `verify`, of the operator's key, who comes in by it.

        Raises:
            Unauthenticated: it is not the operator's.
        """
        known = await self.verify(key_hash)
        if known.role != "operator":
            raise Unauthenticated("This is not the operator's key.", code="wrong_credentials")
        await self._accounts.audit("", known.key_id, "operator.sign_in", known.key_id)
        return known

    def _allowances(self, key: ApiKey, tenant: Tenant) -> list[Allowance]:
        """What the key may use by itself, with its makers, and with all keys of its tenant."""
        return [key.allowance(self._limits.usual_key), *key.makers, tenant.allowance(self._limits.usual_tenant)]

    async def register_operator(self, known: list[str]) -> None:
        """Make these the installation's operator keys: one, or while it is being replaced the one before it too."""
        await self._accounts.set_operator_keys([_operator_key(secret) for secret in known])


def _new_secret() -> str:
    return KEY_PREFIX + "".join(secrets.choice(BASE62) for _ in range(SECRET_CHARACTERS))


def _hint(secret: str) -> str:
    """By which a person knows a key among others; it opens nothing."""
    return f"{secret[:13]}…{secret[-4:]}"


def _operator_key(secret: str) -> ApiKey:
    hashed = hash_key(secret)
    return ApiKey(
        id=derived_id("key_", hashed),
        tenant_id="",
        created_at=now(),
        name="operator",
        key_hash=hashed,
        hint=_hint(secret),
        role="operator",
    )
