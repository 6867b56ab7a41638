"""Tenants, users, keys and the audit trail in MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from pydantic import JsonValue

from accounts.domain import ApiKey, AuditEntry, Chain, Tenant, User
from chassis.auth import Principal
from chassis.clock import utc_now
from chassis.errors import Conflict
from chassis.ids import new_id, now
from chassis.text import quoted
from eventbus import AggregateStore
from stores.mongo import Collection, DuplicateKeyError, PyMongoError, Query, ensure_index
from stores.paging import NEWEST_FIRST, page

log = structlog.get_logger()

LAST_USED_EVERY = 60
LAST_USED_WRITTEN_EVERY = 5.0
MOST_NOTED = 10_000
VERIFIED_AT_A_TIME = 200
"""Lines of an audit trail that are checked before other requests, and other trails, have their turn."""

ATTEMPT_WINDOW = 15 * 60
SIGN_UP_WINDOW = 3600

HAS_PASSWORD = {"password_hash": {"$gt": ""}}
"""Of people who came: an invitation keeps nobody's address from them."""


class LastUsed:
    """When keys were last used, to the minute. Noted in memory and written later, as nobody waits for it.

    What is noted may be lost: a use is no evidence.
    """

    def __init__(self, keys: Collection) -> None:
        self._keys = keys
        self._noted: dict[str, int] = {}

    def note(self, key: ApiKey) -> None:
        """A key was used now."""
        at = now()
        if (key.last_used_at or 0) < at - LAST_USED_EVERY and len(self._noted) < MOST_NOTED:
            self._noted[key.id] = at

    async def run(self) -> None:
        """Write what was noted, until cancelled."""
        while True:
            await asyncio.sleep(LAST_USED_WRITTEN_EVERY)
            noted, self._noted = self._noted, {}
            try:
                for key_id, at in noted.items():
                    await self._keys.update_one({"_id": key_id}, {"$max": {"last_used_at": at}})
            except PyMongoError as error:
                log.warning("last_used_not_written", keys=len(noted), error=f"{type(error).__name__}: {error}")


class Accounts:
    """The service's documents, in its own words.

    Args:
        tenants: one aggregate per tenant.
        users: one per person.
        keys: one per API key.
        audit: the audit trail, append-only.
        attempts: sign-ins that were not good, dropped by MongoDB after 15 minutes.
        heads: by tenant, the newest line of its audit trail, so that a line missing at the end is noticed.
        sign_ups: attempts to make a tenant, dropped by MongoDB after an hour.
    """

    def __init__(
        self,
        tenants: AggregateStore[Tenant],
        users: AggregateStore[User],
        keys: AggregateStore[ApiKey],
        audit: Collection,
        attempts: Collection,
        heads: Collection,
        sign_ups: Collection,
    ) -> None:
        self._tenants = tenants
        self._users = users
        self._keys = keys
        self._last_used = LastUsed(keys.collection)
        self._audit = audit
        self._attempts = attempts
        self._heads = heads
        self._sign_ups = sign_ups
        self._verifying = asyncio.Lock()

    async def prepare(self) -> None:
        """Create the indexes that keep keys, addresses and slugs unique."""
        await ensure_index(self._tenants.collection, "slug", unique=True)
        await ensure_index(self._users.collection, "email", unique=True, partialFilterExpression=HAS_PASSWORD)
        await ensure_index(self._users.collection, [("tenant_id", 1), ("email", 1)], unique=True)
        await ensure_index(self._users.collection, "code_hash")
        await ensure_index(self._keys.collection, "key_hash", unique=True)
        await ensure_index(self._keys.collection, "replaced.key_hash", sparse=True)
        await ensure_index(self._keys.collection, [("tenant_id", 1), ("revoked_at", 1)])
        await ensure_index(self._audit, [("tenant_id", 1), ("position", 1)], unique=True)
        await ensure_index(self._audit, [("tenant_id", 1), ("digest", 1)])
        await ensure_index(self._attempts, "at", expireAfterSeconds=ATTEMPT_WINDOW)
        await ensure_index(self._attempts, "email")
        await ensure_index(self._sign_ups, "at", expireAfterSeconds=SIGN_UP_WINDOW)
        await ensure_index(self._sign_ups, "address")

    async def tenant(self, tenant_id: str) -> Tenant:
        """The tenant of that id.

        Raises:
            NotFound: there is none.
        """
        return await self._tenants.get(tenant_id, tenant_id)

    async def add_tenant(self, tenant: Tenant) -> Tenant:
        """Add a tenant, or return the one that is there.

        Raises:
            Conflict: another tenant has its slug.
        """
        return await self._tenants.add_once(tenant)

    async def change_tenant(self, tenant_id: str, change: Callable[[Tenant], None]) -> Tenant:
        """The tenant, changed."""
        return await self._tenants.update(tenant_id, tenant_id, change)

    async def all_tenants(self, *, limit: int, after: str | None) -> list[Tenant]:
        """Every tenant, newest first: for the operator only.

        Raises:
            NotFound: there is no tenant `after`.
        """
        behind = {"_id": after} if after else None
        missing = f"No such tenant: {quoted(after or '')}."
        found = await page(self._tenants.collection, {}, NEWEST_FIRST, limit=limit, after=behind, missing=missing)
        return [Tenant.model_validate({**document, "id": document["_id"]}) for document in found]

    async def tenants_since(self, at: int) -> int:
        """Tenants made since then (unix seconds)."""
        return int(await self._tenants.collection.count_documents({"created_at": {"$gte": at}}))

    async def key(self, tenant_id: str, key_id: str) -> ApiKey:
        """A key of the tenant.

        Raises:
            NotFound: there is none such.
        """
        return await self._keys.get(tenant_id, key_id)

    async def keys_page(self, tenant_id: str, *, limit: int, after: str | None) -> list[ApiKey]:
        """The tenant's keys, newest first."""
        return await self._keys.find(tenant_id, limit=limit, after=after)

    async def add_key(self, key: ApiKey) -> ApiKey:
        """Add a key, or return the one that is there."""
        return await self._keys.add_once(key)

    async def change_key(self, tenant_id: str, key_id: str, change: Callable[[ApiKey], None]) -> ApiKey:
        """The key, changed."""
        return await self._keys.update(tenant_id, key_id, change)

    def note_use(self, key: ApiKey) -> None:
        """A key was used now; nothing is written before `write_uses` comes to it."""
        self._last_used.note(key)

    async def write_uses(self) -> None:
        """Write which keys were used, until cancelled."""
        await self._last_used.run()

    async def key_by_hash(self, key_hash: str) -> ApiKey | None:
        """The key with this SHA-256, or that had it before it was rotated, whoever's it is."""
        keys = self._keys.collection
        document = await keys.find_one({"key_hash": key_hash}) or await keys.find_one({"replaced.key_hash": key_hash})
        return ApiKey.model_validate({**document, "id": document["_id"]}) if document else None

    async def user_by_email(self, email: str) -> User | None:
        """The person who signs in with this address."""
        return await self._user({"email": email, **HAS_PASSWORD})

    async def user_by_code(self, code_hash: str) -> User | None:
        """The person to whom the one-time code with this SHA-256 was given."""
        return await self._user({"code_hash": code_hash})

    async def _user(self, query: Query) -> User | None:
        document = await self._users.collection.find_one(query)
        return User.model_validate({**document, "id": document["_id"]}) if document else None

    async def person(self, tenant_id: str, user_id: str) -> User:
        """A person of the tenant.

        Raises:
            NotFound: there is none such.
        """
        return await self._users.get(tenant_id, user_id)

    async def people_page(self, tenant_id: str, *, email: str | None, limit: int, after: str | None) -> list[User]:
        """The tenant's people, newest first; only the one with an address where one is given."""
        query = {} if email is None else {"email": email}
        return await self._users.find(tenant_id, query, limit=limit, after=after)

    async def add_person(self, person: User) -> User:
        """Add a person, or return the one that is there.

        Raises:
            Conflict: their address has an account.
        """
        return await self._users.add_once(person)

    async def change_person(self, tenant_id: str, user_id: str, change: Callable[[User], None]) -> User:
        """The person, changed.

        Raises:
            Conflict: with the code `duplicate`, their address has an account elsewhere.
        """
        return await self._users.update(tenant_id, user_id, change)

    async def person_of(self, tenant_id: str, email: str) -> User | None:
        """The person of a tenant with this address, whether they came or not."""
        return await self._users.find_one(tenant_id, {"email": email})

    async def owners(self, tenant_id: str) -> list[str]:
        """Ids of a tenant's people who can act as owners."""
        found = await self._users.find(tenant_id, {"role": "owner", "disabled": False, **HAS_PASSWORD})
        return [person.id for person in found]

    async def key_of(self, principal: Principal) -> ApiKey | None:
        """The key somebody calls with; None for who came another way, such as a person through the console."""
        if principal.caller is not None:
            return None
        return await self._keys.get(principal.tenant_id, principal.key_id)

    async def owner_of(self, key: ApiKey) -> User | None:
        """The person a key belongs to; None where it is nobody's, or they are gone."""
        return await self._users.find_one(key.tenant_id, {"_id": key.user_id}) if key.user_id else None

    async def keys_in_use(self, tenant_id: str, most: int) -> int:
        """How many keys of the tenant may be used; counted to `most`."""
        over = {"$or": [{"expires_at": None}, {"expires_at": {"$gt": now()}}]}
        mine = {"tenant_id": tenant_id, "revoked_at": None, **over}
        return int(await self._keys.collection.count_documents(mine, limit=most))

    async def count_people(self, tenant_id: str, most: int) -> int:
        """How many people the tenant has; counted to `most`."""
        return int(await self._users.collection.count_documents({"tenant_id": tenant_id}, limit=most))

    async def remove_invited(self, tenant_id: str, user_id: str) -> bool:
        """Forget somebody who was invited and has not come; whether that was so."""
        query = {"_id": user_id, "tenant_id": tenant_id, "password_hash": ""}
        return bool((await self._users.collection.delete_one(query)).deleted_count)

    async def set_operator_keys(self, keys: Sequence[ApiKey]) -> None:
        """Make these the only operator keys of the installation."""
        ids = [key.id for key in keys]
        stale = self._keys.for_service({"role": "operator", "revoked_at": None, "_id": {"$nin": ids}})
        async for other in stale:
            await self._keys.update("", other.id, lambda it: it.revoke(now()))
        for key in keys:
            if (await self._keys.add_once(key)).revoked_at is not None:
                log.error("operator_key_revoked", key=key.id, mend="put a key that was never used before into its file")

    async def audit(self, tenant_id: str, actor: str, action: str, target: str, **details: JsonValue) -> AuditEntry:
        """Append to the tenant's audit trail."""
        for _ in range(20):
            last = await self._audit.find_one({"tenant_id": tenant_id}, sort=[("position", -1)])
            entry = AuditEntry(
                tenant_id=tenant_id,
                position=(last["position"] if last else 0) + 1,
                at=now(),
                actor=actor,
                action=action,
                target=target,
                details=details,
                previous=last["digest"] if last else "",
            ).sealed()
            try:
                await self._audit.insert_one(entry.model_dump())
            except DuplicateKeyError:
                continue
            await self._note_head(entry)
            return entry
        raise Conflict("The audit trail is too busy; try again.")

    async def _note_head(self, entry: AuditEntry) -> None:
        older = {"_id": entry.tenant_id, "position": {"$lt": entry.position}}
        head = {"position": entry.position, "digest": entry.digest}
        try:
            await self._heads.update_one(older, {"$set": head}, upsert=True)
        except DuplicateKeyError:
            return  # a newer line was faster

    async def audit_page(self, tenant_id: str, *, limit: int, after: str | None) -> list[AuditEntry]:
        """Lines of the tenant's trail, newest first.

        Raises:
            NotFound: `after` is no line of it.
        """
        found = await page(
            self._audit,
            {"tenant_id": tenant_id},
            [("position", -1)],
            limit=limit,
            after=None if after is None else {"tenant_id": tenant_id, "digest": after},
            missing=f"No such line of the audit trail: '{after}'.",
        )
        return [AuditEntry.model_validate(document) for document in found]

    async def audit_page_intact(self, tenant_id: str, lines: Sequence[AuditEntry], *, newest: bool) -> bool:
        """Whether no line of a page was changed, and none is missing between them.

        Args:
            tenant_id: whose trail.
            lines: those of the page, newest first.
            newest: whether the page begins with the newest line of the trail.
        """
        chain = Chain.after(lines[-1]) if lines else Chain()
        unbroken = all(chain.follows(entry) for entry in reversed(lines))
        if not newest:
            return unbroken
        head = await self._heads.find_one({"_id": tenant_id})
        return unbroken and (head is None or any(entry.digest == head["digest"] for entry in lines))

    async def audit_intact(self, tenant_id: str) -> bool:
        """Whether no line of the trail was changed, removed or put in, from the first to the newest.

        Reads the whole trail, so of those that are verified at the same time each has some lines checked in its turn.
        """
        head = await self._heads.find_one({"_id": tenant_id})
        newest = head["digest"] if head else ""
        chain, reaches_head = Chain(), not newest
        lines = self._audit.find({"tenant_id": tenant_id}).sort("position", 1).batch_size(VERIFIED_AT_A_TIME)
        while True:
            async with self._verifying:
                part = await lines.to_list(VERIFIED_AT_A_TIME)
                entries = [AuditEntry.model_validate(line) for line in part]
                if not all(map(chain.follows, entries)):
                    return False
            reaches_head = reaches_head or any(entry.digest == newest for entry in entries)
            if len(part) < VERIFIED_AT_A_TIME:
                return reaches_head

    async def begin_sign_in(self, email: str, address: str) -> str:
        """Count an attempt before it is known whether it is good, so that many at once are counted too."""
        attempt = new_id("attempt_")
        await self._attempts.insert_one({"_id": attempt, "email": email, "address": address, "at": utc_now()})
        return attempt

    async def end_sign_in(self, attempt: str) -> None:
        """It was good: count it no more."""
        await self._attempts.delete_one({"_id": attempt})

    async def sign_ins_open(self, email: str, address: str) -> tuple[int, int]:
        """A person's attempts of 15 minutes that were not good, or are under way: from there, from anywhere."""
        here = await self._attempts.count_documents({"email": email, "address": address})
        return int(here), int(await self._attempts.count_documents({"email": email}))

    async def note_sign_up(self, address: str) -> int:
        """Count an attempt to make a tenant; how many came from there in the last hour."""
        await self._sign_ups.insert_one({"address": address, "at": utc_now()})
        return int(await self._sign_ups.count_documents({"address": address}))
