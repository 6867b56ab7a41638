"""Tenants: what one may use in all, its policy, its owners, its name in model ids."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from chassis.errors import Conflict, Invalid
from chassis.limits import Allowance
from eventbus import Aggregate
from schemas import TenantCreated, TenantPolicy, TenantPolicyChanged

# What may not stand in the slug that goes into model names.
NOT_SLUG = re.compile(r"[^a-z0-9]+")
SLUG_DIGITS = 4


class Ceiling(BaseModel):
    """What a tenant may use in all, whatever its owners grant; only the operator changes it."""

    model_config = ConfigDict(frozen=True)

    requests_per_minute: int
    tokens_per_minute: int
    keys: int
    people: int


class Tenant(Aggregate):
    """One customer of the installation.

    `raised` holds the parts of its ceiling that the operator set apart from the installation's; `owners` the people
    who are owners and not shut out, each of whom is one: it may lack somebody for a moment, or all where it was
    never written.
    """

    created_at: int
    name: str
    slug: str
    policy: TenantPolicy = Field(default_factory=TenantPolicy)
    policy_revision: int = 0
    raised: dict[str, int] = Field(default_factory=dict)
    owners: list[str] = Field(default_factory=list)

    @classmethod
    def create(cls, tenant_id: str, name: str, policy: TenantPolicy, at: int, attempt: int = 0) -> Tenant:
        """A new tenant; a further `attempt` has another slug.

        Raises:
            Invalid: the name is empty or too long.
        """
        name = " ".join(name.split())
        if not 1 <= len(name) <= 100:
            raise Invalid("name: give the tenant a name of 1 to 100 characters.", param="name")
        slug = make_slug(name, tenant_id, attempt)
        tenant = cls(id=tenant_id, tenant_id=tenant_id, created_at=at, name=name, slug=slug, policy=policy)
        tenant.record(TenantCreated(tenant_id=tenant_id, name=name, slug=slug, policy=policy))
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

    def count_owner(self, user_id: str, known: Iterable[str]) -> None:
        """Somebody is an owner now; `known` are those there are, for a tenant whose owners were never written."""
        self.owners = sorted({*(self.owners or known), user_id})

    def lose_owner(self, user_id: str, known: Iterable[str]) -> None:
        """Somebody is to be an owner no more; `known` are those there were when that was asked.

        Raises:
            Conflict: nobody else is one.
        """
        left = {*(self.owners or known)} & {*known} - {user_id}
        if not left:
            raise Conflict(
                "This is the last owner. Make somebody else an owner first, or nobody could manage the organization.",
                code="last_owner",
            )
        self.owners = sorted(left)

    def change_policy(self, policy: TenantPolicy) -> None:
        """Replace the policy."""
        if policy != self.policy:
            self.policy = policy
            self.policy_revision += 1
            self.record(TenantPolicyChanged(tenant_id=self.id, policy=policy, revision=self.policy_revision))


def make_slug(name: str, tenant_id: str, attempt: int = 0) -> str:
    """A short name for `ft:` model names: ASCII words of the name, and four characters that tell equal names apart.

    Where they do not, each further `attempt` has two characters more.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = NOT_SLUG.sub("-", ascii_name).strip("-")[:24].strip("-") or "org"
    return f"{words}-{hashlib.sha256(tenant_id.encode()).hexdigest()[: SLUG_DIGITS + 2 * attempt]}"
