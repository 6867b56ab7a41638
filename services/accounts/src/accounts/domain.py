"""Tenants, users and keys: their rules and the only functions that change them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from chassis.auth import Principal
from chassis.errors import Forbidden, Invalid, Unauthenticated
from chassis.limits import Allowance
from chassis.roles import ROLES, SCOPES, expand
from eventbus.aggregate import Aggregate
from schemas import KeyRevoked, TenantCreated, TenantPolicy, TenantPolicyChanged

KEY_PREFIX = "sk-sartor-"
GRANTABLE = tuple(role for role in ROLES if role != "operator")
SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 256
MOST_MAKERS = 8
"""Limited keys that made each other, one after the other."""

# One @ with something on both sides and a dot in the domain; real proof is a mail that arrives.
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[^@\s.]{2,}")
# What may not stand in the slug that goes into model names.
NOT_SLUG = re.compile(r"[^a-z0-9]+")


class Ceiling(BaseModel):
    """What a tenant may use in all, whatever its owners grant; only the operator changes it."""

    model_config = ConfigDict(frozen=True)

    requests_per_minute: int
    tokens_per_minute: int
    keys: int
    people: int


class Tenant(Aggregate):
    """One customer of the installation.

    `raised` holds the parts of its ceiling that the operator set apart from the installation's.
    """

    created_at: int
    name: str
    slug: str
    policy: TenantPolicy = Field(default_factory=TenantPolicy)
    policy_revision: int = 0
    raised: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def create(cls, tenant_id: str, name: str, policy: TenantPolicy, at: int) -> Tenant:
        """A new tenant.

        Raises:
            Invalid: the name is empty or too long.
        """
        name = " ".join(name.split())
        if not 1 <= len(name) <= 100:
            raise Invalid("name: give the tenant a name of 1 to 100 characters.", param="name")
        tenant = cls(
            id=tenant_id, tenant_id=tenant_id, created_at=at, name=name, slug=make_slug(name, tenant_id), policy=policy
        )
        tenant.record(TenantCreated(tenant_id=tenant_id, name=name, slug=tenant.slug, policy=policy))
        return tenant

    def ceiling(self, usual: Ceiling) -> Ceiling:
        """What the tenant may use; `usual` where the operator set nothing else."""
        return usual.model_copy(update=self.raised)

    def allowance(self, usual: Ceiling) -> Allowance:
        """What all who are of the tenant may use together."""
        ceiling = self.ceiling(usual)
        return Allowance(self.id, ceiling.requests_per_minute, ceiling.tokens_per_minute)

    def change_ceiling(self, changes: dict[str, int]) -> None:
        """Set some parts of the ceiling."""
        self.raised = self.raised | changes

    def change_policy(self, policy: TenantPolicy) -> None:
        """Replace the policy."""
        if policy != self.policy:
            self.policy = policy
            self.policy_revision += 1
            self.record(TenantPolicyChanged(tenant_id=self.id, policy=policy, revision=self.policy_revision))


def make_slug(name: str, tenant_id: str) -> str:
    """A short name for `ft:` model names: ASCII words of the name and four characters that keep it unique."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = NOT_SLUG.sub("-", ascii_name).strip("-")[:24].strip("-") or "org"
    return f"{words}-{hashlib.sha256(tenant_id.encode()).hexdigest()[:4]}"


class User(Aggregate):
    """A person who signs in; `email` is unique in the installation, casefolded."""

    created_at: int
    email: str
    password_hash: str
    role: str = "owner"
    disabled: bool = False

    def change_role(self, role: str) -> None:
        """Give the person another role.

        Raises:
            Invalid: there is no such role.
        """
        self.role = known_role(role)

    def disable(self, disabled: bool) -> None:
        """Shut the person out, or let them in again."""
        self.disabled = disabled


def checked_email(email: str) -> str:
    """The address in the form it is stored in.

    Raises:
        Invalid: it does not look like one.
    """
    folded = email.strip().casefold()
    if len(folded) > 254 or not EMAIL.fullmatch(folded):
        raise Invalid("email: this does not look like an e-mail address.", param="email")
    return folded


def checked_password(password: str) -> str:
    """The password, if it is long enough.

    Raises:
        Invalid: too short or too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Invalid(
            f"password: use {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters; a few words are a good choice.",
            param="password",
        )
    return password


def known_role(role: str) -> str:
    """The role, if a tenant may give it.

    Raises:
        Invalid: there is no such role.
    """
    if role not in GRANTABLE:
        raise Invalid(f"role: '{role}' is not one of {', '.join(GRANTABLE)}.", param="role")
    return role


@dataclass(frozen=True)
class NewKey:
    """A key as asked for."""

    name: str
    role: str = "owner"
    scopes: tuple[str, ...] = ("*",)
    expires_at: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    user_id: str | None = None
    makers: tuple[Allowance, ...] = ()


class ApiKey(Aggregate):
    """An API key as stored: its SHA-256 and what it may do; never the key.

    `makers` are the allowances of the limited keys it was made by: what it uses counts under theirs too.
    """

    created_at: int
    name: str
    key_hash: str
    hint: str
    role: str
    scopes: list[str] = Field(default_factory=lambda: ["*"])
    user_id: str | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    makers: list[Allowance] = Field(default_factory=list)

    @property
    def limited(self) -> bool:
        """Whether it has less than any key of its tenant: limits or an end, its own or its makers'."""
        own = (self.expires_at, self.requests_per_minute, self.tokens_per_minute)
        return bool(self.makers) or any(limit is not None for limit in own)

    def allowance(self, usual: Allowance) -> Allowance:
        """What it may use by itself; `usual` where it names no limit."""
        return Allowance(
            self.id,
            self.requests_per_minute or usual.requests_per_minute,
            self.tokens_per_minute or usual.tokens_per_minute,
        )

    def bind(self, made: NewKey, usual: Allowance) -> NewKey:
        """What is asked for, within what this key has: nobody gives away more than they have.

        Args:
            made: the key asked for.
            usual: the limits of a key that names none.

        Raises:
            Forbidden: more is asked for by name than this key has.
        """
        for name in ("requests_per_minute", "tokens_per_minute", "expires_at"):
            own, asked = getattr(self, name), getattr(made, name)
            if own is not None and asked is not None and asked > own:
                raise Forbidden(f"{name}: this key may grant at most its own {own}.", param=name)
        limited = self.requests_per_minute is not None or self.tokens_per_minute is not None
        makers = (*self.makers, self.allowance(usual)) if limited else tuple(self.makers)
        if len(makers) > MOST_MAKERS:
            raise Forbidden("Too many limited keys made each other. Use one that was made earlier.")
        return replace(
            made,
            requests_per_minute=made.requests_per_minute or self.requests_per_minute,
            tokens_per_minute=made.tokens_per_minute or self.tokens_per_minute,
            expires_at=made.expires_at or self.expires_at,
            makers=makers,
        )

    def reissue(self, key_hash: str, hint: str) -> None:
        """Put another secret in the place of one whose answer never reached anybody."""
        self.record(KeyRevoked(tenant_id=self.tenant_id, key_id=self.id, key_hash=self.key_hash))
        self.key_hash, self.hint = key_hash, hint

    def scopes_for(self, owner: User | None) -> frozenset[str]:
        """What the key allows now: its scopes, within its role, within what its owner may do today.

        Raises:
            Unauthenticated: its owner was shut out.
        """
        granted = expand(self.scopes)
        if owner is None:
            return granted
        if owner.disabled:
            raise Unauthenticated("The person this API key belongs to was shut out.", code="revoked_api_key")
        return granted & expand(ROLES[owner.role])

    def role_for(self, owner: User | None) -> str:
        """The key's role; that of an end user if its owner is one today, who sees their own things only."""
        return "end_user" if owner is not None and owner.role == "end_user" else self.role

    def revoke(self, at: int) -> None:
        """End the key; ending it again changes nothing."""
        if self.revoked_at is None:
            self.revoked_at = at
            self.record(KeyRevoked(tenant_id=self.tenant_id, key_id=self.id, key_hash=self.key_hash))


def check_grant(maker: Principal, role: str, scopes: list[str]) -> None:
    """Nobody gives away more than they have.

    Raises:
        Forbidden: what is granted goes beyond the maker's own.
        Invalid: there is no such role or scope, or the role does not have the scope.
    """
    of_role = expand(ROLES[known_role(role)])
    for scope in scopes:
        meant = expand([scope])
        if not meant:
            raise Invalid(
                f"scopes: there is no '{scope}'; use '*' or some of {', '.join(sorted(SCOPES))}.", param="scopes"
            )
        if not meant & of_role:
            raise Invalid(f"scopes: role '{role}' does not have '{scope}'.", param="scopes")
    beyond = sorted(scope for scope in of_role & expand(scopes) if not maker.may(scope))
    if beyond:
        raise Forbidden(f"You may not grant {', '.join(beyond)}: you do not have it yourself.")


class AuditEntry(BaseModel):
    """One line of a tenant's audit trail; `digest` covers the line and the digest before it."""

    tenant_id: str
    position: int
    at: int
    actor: str
    action: str
    target: str
    details: dict[str, Any] = Field(default_factory=dict)
    previous: str
    digest: str = ""

    def sealed(self) -> AuditEntry:
        """The entry with its digest."""
        body = self.model_dump_json(exclude={"digest"})
        return self.model_copy(update={"digest": hashlib.sha256(body.encode()).hexdigest()})


class Chain:
    """Checks the lines of a trail one after the other, oldest first."""

    def __init__(self, position: int = 0, digest: str = "") -> None:
        self._position = position
        self._digest = digest

    @classmethod
    def after(cls, entry: AuditEntry) -> Chain:
        """A chain that goes on with this line, whatever came before it."""
        return cls(entry.position - 1, entry.previous)

    def follows(self, entry: AuditEntry) -> bool:
        """Whether this line is the next one and nobody changed it."""
        self._position += 1
        intact = (
            entry.position == self._position
            and entry.previous == self._digest
            and entry.sealed().digest == entry.digest
        )
        self._digest = entry.digest
        return intact
