"""Lets people in and shuts them out, by sign-up, invitations, passwords and roles."""

from __future__ import annotations

import secrets

from accounts.domain import (
    INVITATION_SECONDS,
    RESET_SECONDS,
    Tenant,
    User,
    check_grant,
    checked_email,
    checked_password,
    known_role,
)
from accounts.passwords import Passwords
from accounts.store import SIGN_UP_WINDOW, Accounts
from accounts.use_cases.limits import Limits, actor_of
from accounts.use_cases.tenants import Tenants
from chassis.auth import Principal, hash_key
from chassis.errors import Conflict, Forbidden, RateLimited, Unauthenticated
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from schemas import TenantPolicy

TAKEN = "This e-mail address has an account already; sign in instead."
WRONG_CODE = "This code is not known, or was used already. Ask who invited you for another one."


class People:
    """Signs people up and in, and says who comes in as what."""

    def __init__(self, accounts: Accounts, tenants: Tenants, passwords: Passwords, limits: Limits) -> None:
        self._accounts = accounts
        self._tenants = tenants
        self._passwords = passwords
        self._limits = limits

    async def sign_up(self, organization: str, email: str, password: str, address: str) -> tuple[User, Tenant]:
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
            raise Conflict(TAKEN, param="email")
        await self._check_door(address)
        # The id follows from the address: who was cut off after the first write gets the same tenant next time.
        tenant = await self._tenants.found(derived_id("tenant_", email), organization, TenantPolicy(), actor=email)
        user = User(
            id=request_id_for("user_", new_id("user_")),
            tenant_id=tenant.id,
            created_at=now(),
            email=email,
            password_hash=await self._passwords.hash(password),
        )
        await self._accounts.audit(tenant.id, email, "user.create", user.id, role="owner")
        try:
            user = await self._accounts.add_person(user)
        except Conflict as error:
            raise Conflict(TAKEN, param="email") from error
        await self._count_owner(user)
        return user, tenant

    async def invite(self, maker: Principal, email: str, role: str) -> tuple[User, str]:
        """A person of the maker's tenant, and the one-time code by which they choose a password and come in.

        Somebody who was invited before and has not come gets a new code.

        Raises:
            Forbidden: the role allows more than the maker may, or there are too many people.
            Invalid: no such role, or no address.
            Conflict: they are of the tenant already.
        """
        check_grant(maker, role, ["*"])
        await self._check_unlimited(maker)
        tenant = await self._accounts.tenant(maker.tenant_id)
        email, role = checked_email(email), known_role(role)
        person = await self._accounts.person_of(tenant.id, email)
        if person is None:
            await self._check_room(tenant)
            user_id = request_id_for("user_", new_id("user_"))
            person = User(id=user_id, tenant_id=tenant.id, created_at=now(), email=email, role=role)
            await self._accounts.audit(tenant.id, actor_of(maker), "user.invite", user_id, role=role)
            person = await self._accounts.add_person(person)
        elif person.status != "invited":
            raise Conflict("This person is of your organization already.", param="email")
        else:
            check_grant(maker, person.role, ["*"])
            await self._accounts.audit(tenant.id, actor_of(maker), "user.invite", person.id, role=role)
        return await self._give_code(person, INVITATION_SECONDS, role=role)

    async def withdraw(self, maker: Principal, user_id: str) -> None:
        """Take an invitation back, of somebody who has not come.

        Raises:
            Forbidden: their role allows more than the maker may.
            Conflict: they came.
        """
        person = await self._accounts.person(maker.tenant_id, user_id)
        check_grant(maker, person.role, ["*"])
        await self._accounts.audit(maker.tenant_id, actor_of(maker), "user.withdraw", user_id)
        if not await self._accounts.remove_invited(maker.tenant_id, user_id):
            raise Conflict("This person has come in already. Shut them out instead.", code="not_invited")

    async def begin_tenant(self, name: str, policy: TenantPolicy, email: str, actor: str) -> tuple[Tenant, User, str]:
        """A new tenant with its first owner, and a code for them; it has no keys.

        Raises:
            Invalid: name, policy or address will not do; nothing was made.
        """
        checked_email(email)
        tenant = await self._tenants.begin(name, policy, actor)
        return tenant, *await self.let_in(tenant.id, email, actor)

    async def look(self, code: str) -> tuple[User, Tenant]:
        """Whom a code was given to, which stays good.

        Raises:
            Unauthenticated: no such code, or it is over, or they were shut out.
        """
        person = await self._of_code(code)
        return person, await self._accounts.tenant(person.tenant_id)

    async def _of_code(self, code: str) -> User:
        person = await self._accounts.user_by_code(hash_key(code))
        if person is None or person.disabled or person.code_expires_at <= now():
            raise Unauthenticated(WRONG_CODE, code="wrong_code")
        return person

    async def let_in(self, tenant_id: str, email: str, actor: str) -> tuple[User, str]:
        """An owner of any tenant, and a code for them: how the operator begins a tenant, or helps one without owners.

        Somebody who was shut out comes in by the code only: their password may be why.

        Raises:
            NotFound: no such tenant.
            Invalid: no address.
        """
        tenant, email = await self._accounts.tenant(tenant_id), checked_email(email)
        person = await self._accounts.person_of(tenant.id, email)
        user_id = person.id if person else request_id_for("user_", new_id("user_"))
        await self._accounts.audit(tenant.id, actor, "user.let_in", user_id, role="owner")
        if person is None:
            new = User(id=user_id, tenant_id=tenant.id, created_at=now(), email=email, role="owner")
            person = await self._accounts.add_person(new)

        def change(user: User) -> None:
            user.change_role("owner")
            if user.disabled:
                user.password_hash = ""
            user.disable(disabled=False)

        person = await self._accounts.change_person(tenant.id, person.id, change)
        await self._count_owner(person)
        return await self._give_code(person, INVITATION_SECONDS, role="owner")

    async def reset(self, maker: Principal, user_id: str) -> tuple[User, str]:
        """A code by which a person who lost their password chooses another; the old one holds until they do.

        Raises:
            Forbidden: their role allows more than the maker may.
        """
        person = await self._accounts.person(maker.tenant_id, user_id)
        check_grant(maker, person.role, ["*"])
        await self._check_unlimited(maker)
        await self._accounts.audit(maker.tenant_id, actor_of(maker), "user.reset", user_id)
        return await self._give_code(person, INVITATION_SECONDS if person.status == "invited" else RESET_SECONDS)

    async def _give_code(self, person: User, seconds: int, role: str = "") -> tuple[User, str]:
        code = secrets.token_urlsafe(32)

        def change(user: User) -> None:
            user.unchanged_since(person)
            user.change_role(role or user.role)
            user.give_code(hash_key(code), now() + seconds)

        return await self._accounts.change_person(person.tenant_id, person.id, change), code

    async def join(self, code: str, password: str) -> tuple[User, Tenant]:
        """The person a code was given to, with the password they chose.

        Raises:
            Unauthenticated: no such code, or it is over, or they were shut out.
            Invalid: the password will not do.
            Conflict: their address has an account elsewhere.
        """
        checked_password(password)
        person = await self._of_code(code)
        password_hash = await self._passwords.hash(password)
        await self._accounts.audit(person.tenant_id, person.id, "user.password", person.id)
        person = await self._set_password(person, password_hash, hash_key(code))
        await self._count_owner(person)
        return person, await self._accounts.tenant(person.tenant_id)

    async def change_password(
        self, tenant_id: str, user_id: str, current: str, new: str, address: str
    ) -> tuple[User, Tenant]:
        """The person, with another password.

        Raises:
            Invalid: the new one will not do.
            Forbidden: the current one is wrong.
            RateLimited: it was wrong too often.
        """
        checked_password(new)
        person = await self._accounts.person(tenant_id, user_id)
        attempt = await self._begin(person.email, address)
        if not await self._passwords.matches(person.password_hash or None, current):
            raise Forbidden("The current password is wrong.", code="wrong_credentials", param="current")
        await self._accounts.end_sign_in(attempt)
        password_hash = await self._passwords.hash(new)
        await self._accounts.audit(tenant_id, user_id, "user.password", user_id)
        person = await self._set_password(person, password_hash)
        return person, await self._accounts.tenant(tenant_id)

    async def _set_password(self, person: User, password_hash: str, code_hash: str = "") -> User:
        at = now()
        try:
            return await self._accounts.change_person(
                person.tenant_id, person.id, lambda it: it.choose_password(password_hash, at, code_hash)
            )
        except Conflict as error:
            if error.code != "duplicate":
                raise
            raise Conflict(TAKEN, param="email") from error

    async def change(self, maker: Principal, user_id: str, *, role: str | None, disabled: bool | None) -> User:
        """Give a person another role, shut them out, or let them in again.

        Raises:
            Forbidden: the role they have, or are to have, allows more than the maker may.
            Conflict: nobody else is an owner.
        """
        person = await self._accounts.person(maker.tenant_id, user_id)
        for allows in {person.role, role or person.role}:
            check_grant(maker, allows, ["*"])
        await self._check_unlimited(maker)
        changes = {name: value for name, value in (("role", role), ("disabled", disabled)) if value is not None}

        def apply(user: User) -> None:
            user.unchanged_since(person)
            user.change_role(role if role is not None else user.role)
            user.disable(disabled if disabled is not None else user.disabled)

        if not changes:
            return person
        apply(changed := person.model_copy())
        # Owners leave the tenant's list before they cease to be one, and enter it after: of two owners who shut each
        # other out at the same time, one is refused.
        if person.counts_as_owner and not changed.counts_as_owner:
            known = await self._accounts.owners(person.tenant_id)
            await self._accounts.change_tenant(person.tenant_id, lambda it: it.lose_owner(user_id, known))
        await self._accounts.audit(maker.tenant_id, actor_of(maker), "user.change", user_id, **changes)
        try:
            return await self._accounts.change_person(maker.tenant_id, user_id, apply)
        finally:  # also where it failed: who stays an owner is counted as one
            await self._count_owner(await self._accounts.person(maker.tenant_id, user_id))

    async def _count_owner(self, person: User) -> None:
        if person.counts_as_owner:
            known = await self._accounts.owners(person.tenant_id)
            await self._accounts.change_tenant(person.tenant_id, lambda it: it.count_owner(person.id, known))

    async def _check_unlimited(self, maker: Principal) -> None:
        """A person has neither limits nor an end, so a key that has them gives nobody entry."""
        key = await self._accounts.key_of(maker)
        if key is not None and key.limited:
            raise Forbidden("A key with limits or an end may not let people in. Use one without.")

    async def _check_room(self, tenant: Tenant) -> None:
        most = tenant.ceiling(self._limits.usual_tenant).people
        if await self._accounts.count_people(tenant.id, most) >= most:
            raise Forbidden(f"Your organization has {most} people, the most it may have.", code="too_many_people")

    async def sign_in(self, email: str, password: str, address: str) -> tuple[User, Tenant]:
        """The person with this address and password.

        Raises:
            Unauthenticated: no such person, or a wrong password; the two look the same.
            RateLimited: too many failures of this person.
        """
        email = email.strip().casefold()
        attempt = await self._begin(email, address)
        user = await self._accounts.user_by_email(email)
        good = await self._passwords.matches(user.password_hash if user else None, password)
        if user is None or not good or user.disabled:
            raise Unauthenticated("E-mail address and password do not match.", code="wrong_credentials")
        await self._accounts.end_sign_in(attempt)
        await self._accounts.audit(user.tenant_id, user.id, "user.sign_in", user.id)
        return user, await self._accounts.tenant(user.tenant_id)

    async def _begin(self, email: str, address: str) -> str:
        """Count an attempt to give this person's password; guesses from elsewhere keep nobody out for long.

        Raises:
            RateLimited: too many were wrong.
        """
        attempt = await self._accounts.begin_sign_in(email, address)
        here, anywhere = await self._accounts.sign_ins_open(email, address)
        if here > self._limits.sign_in_attempts or anywhere > self._limits.sign_in_attempts_anywhere:
            await self._accounts.end_sign_in(attempt)  # it was no guess, and must not count against others
            raise RateLimited("Too many failed sign-ins. Wait 15 minutes and try again.", retry_after=900)
        return attempt

    async def _check_door(self, address: str) -> None:
        """Count a new tenant, and what one network address makes apart, so that nobody shuts the door for all.

        Raises:
            RateLimited: there were too many in the last hour.
        """
        each = await self._accounts.note_sign_up(address)
        every = await self._accounts.tenants_since(now() - SIGN_UP_WINDOW)
        if each > self._limits.sign_ups_per_hour_each or every >= self._limits.sign_ups_per_hour:
            raise RateLimited(
                "Too many people sign up at the moment. Try again in an hour.", retry_after=SIGN_UP_WINDOW
            )
