"""API keys: what they allow, and that nobody gives away more than they have."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import BaseModel, Field

from accounts.domain.users import User, known_role
from chassis.auth import REPLACED, Principal
from chassis.errors import Conflict, Forbidden, Invalid, Unauthenticated
from chassis.limits import Allowance
from chassis.roles import ROLES, SCOPES, expand
from chassis.text import quoted
from eventbus import Aggregate
from schemas import PUBLISHABLE, KeyRevoked, KeyRotated

KEY_PREFIX = "sk-sartor-"
MOST_MAKERS = 8
"""Limited keys that made each other, one after the other."""
MOST_REPLACED = 4
"""Secrets of one key that were replaced and hold still."""


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
    event_types: tuple[str, ...] = ()


class ReplacedSecret(BaseModel):
    """A secret of a key that another one took the place of; it holds until its end."""

    key_hash: str
    hint: str
    ends_at: int


class ApiKey(Aggregate):
    """An API key as stored: its SHA-256 and what it may do; never the key.

    `makers` are the allowances of the limited keys it was made by: what it uses counts under theirs too. With
    `event_types` it is a producer: a service outside that publishes these types of event, and no others. `rotation` is
    the request that gave it its newest secret, where one was replaced.
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
    event_types: list[str] = Field(default_factory=list)
    replaced: list[ReplacedSecret] = Field(default_factory=list)
    rotation: str = ""

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
        beyond = sorted(set(made.event_types) - set(self.event_types)) if self.event_types else []
        if beyond:
            raise Forbidden(f"event_types: this key may not grant {', '.join(beyond)}.", param="event_types")
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

    def could_make(self, key: ApiKey) -> bool:
        """Whether a key of another one's rights and limits is no more than this one may make.

        It has no limit less than this one, publishes nothing that this one may not, and what it uses counts under all
        that this one's uses does.
        """
        if self.event_types and not set(key.event_types) <= set(self.event_types):
            return False
        for name in ("requests_per_minute", "tokens_per_minute", "expires_at"):
            own, its = getattr(self, name), getattr(key, name)
            if own is not None and (its is None or its > own):
                return False
        counted = {maker.of for maker in self.makers}
        if self.requests_per_minute is not None or self.tokens_per_minute is not None:
            counted.add(self.id)
        return counted <= {maker.of for maker in key.makers}

    def rotate(self, key_hash: str, hint: str, *, rotation: str, at: int, grace_seconds: int) -> None:
        """Give the key another secret. Those before it hold for the grace, and never longer than was said before.

        A rotation that is repeated because its answer was lost puts another secret in the place of the one that
        reached nobody.

        Raises:
            Conflict: the key has ended, or too many of its secrets hold still.
        """
        if self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= at):
            raise Conflict("This key has ended. Make another one.", code="key_ended")
        if rotation == self.rotation:
            self.reissue(key_hash, hint, at)
            return
        holding = [secret for secret in self.replaced if secret.ends_at > at]
        if grace_seconds and len(holding) >= MOST_REPLACED:
            raise Conflict(
                f"{MOST_REPLACED} earlier secrets of this key hold still. Wait until one ends, or end them all: "
                "rotate with grace_seconds 0.",
                code="too_many_secrets",
            )
        ends_at = min(at + grace_seconds, self.expires_at or at + grace_seconds)
        nearer = [secret.model_copy(update={"ends_at": ends_at}) for secret in holding if secret.ends_at > ends_at]
        nearer.append(ReplacedSecret(key_hash=self.key_hash, hint=self.hint, ends_at=ends_at))
        for secret in nearer:
            self.record(
                KeyRotated(tenant_id=self.tenant_id, key_id=self.id, key_hash=secret.key_hash, ends_at=secret.ends_at)
            )
        self.replaced = [secret for secret in holding if secret.ends_at <= ends_at] + nearer
        self.key_hash, self.hint, self.rotation = key_hash, hint, rotation

    def ends_for(self, key_hash: str, at: int) -> int | None:
        """When one of its secrets ends; None for never.

        Raises:
            Unauthenticated: it has ended.
        """
        if self.revoked_at is not None:
            raise Unauthenticated("This API key was revoked. Use another one.", code="revoked_api_key")
        if self.expires_at is not None and self.expires_at <= at:
            raise Unauthenticated("This API key has expired. Ask for a new one.", code="expired_api_key")
        before = next((secret.ends_at for secret in self.replaced if secret.key_hash == key_hash), None)
        if before is not None and before <= at:
            raise Unauthenticated(REPLACED, code="replaced_api_key")
        return self.expires_at if before is None else before

    def reissue(self, key_hash: str, hint: str, at: int) -> None:
        """Put another secret in the place of one whose answer never reached anybody; the key itself lives on."""
        self.record(KeyRotated(tenant_id=self.tenant_id, key_id=self.id, key_hash=self.key_hash, ends_at=at))
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
            holding = [secret.key_hash for secret in self.replaced if secret.ends_at > at]
            for key_hash in (self.key_hash, *holding):
                self.record(KeyRevoked(tenant_id=self.tenant_id, key_id=self.id, key_hash=key_hash))


def check_event_types(asked: NewKey) -> None:
    """What a producer may publish is said type by type, beside the scope that lets it publish.

    Raises:
        Invalid: no service outside may publish one of the types, or the key may not publish at all.
    """
    unknown = sorted(set(asked.event_types) - set(PUBLISHABLE))
    if unknown:
        raise Invalid(
            f"event_types: services outside may publish {', '.join(PUBLISHABLE)}; not {quoted(unknown[0])}.",
            param="event_types",
        )
    if asked.event_types and "events:publish" not in expand(asked.scopes) & expand(ROLES[asked.role]):
        raise Invalid("event_types: the key also needs the scope 'events:publish', and a role with it.", param="scopes")


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
