"""How tenants, keys, people and dead letters are shown."""

from __future__ import annotations

from typing import Literal

from fastapi import Response
from pydantic import BaseModel

from accounts.domain import ApiKey, AuditEntry, Ceiling, Tenant, User
from accounts.use_cases import Left
from chassis.http import Page
from chassis.ids import now
from chassis.limits import Allowance
from eventbus import DeadLetter
from schemas import TenantPolicy


class TenantView(BaseModel):
    """A tenant."""

    object: Literal["organization.tenant"] = "organization.tenant"
    id: str
    tenant_id: str
    created_at: int
    name: str
    slug: str
    policy: TenantPolicy
    limits: Ceiling

    @classmethod
    def of(cls, tenant: Tenant, usual: Ceiling) -> TenantView:
        """A tenant as shown."""
        return cls(
            id=tenant.id,
            tenant_id=tenant.id,
            created_at=tenant.created_at,
            name=tenant.name,
            slug=tenant.slug,
            policy=tenant.policy,
            limits=tenant.ceiling(usual),
        )


class TenantWithKey(TenantView):
    """A new tenant, with its first key, which is shown only now."""

    api_key: str


class ReplacedView(BaseModel):
    """A former secret of a key that holds still."""

    hint: str
    ends_at: int


class KeyView(BaseModel):
    """A key: never the key itself."""

    object: Literal["organization.api_key"] = "organization.api_key"
    id: str
    created_at: int
    name: str
    hint: str
    role: str
    scopes: list[str]
    user_id: str | None
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    event_types: list[str]
    replaced: list[ReplacedView]

    @classmethod
    def of(cls, key: ApiKey) -> KeyView:
        """A key as shown."""
        holding = [secret for secret in key.replaced if secret.ends_at > now()]
        replaced = [ReplacedView(hint=secret.hint, ends_at=secret.ends_at) for secret in holding]
        shared = set(cls.model_fields) & set(ApiKey.model_fields) - {"replaced"}
        return cls(**key.model_dump(include=shared), replaced=replaced)


class KeyWithSecret(KeyView):
    """A key with its secret, which is shown only now."""

    api_key: str


class KeyDeleted(BaseModel):
    """A key that ended."""

    object: Literal["organization.api_key.deleted"] = "organization.api_key.deleted"
    id: str
    deleted: bool = True


class UserView(BaseModel):
    """A person."""

    object: Literal["organization.user"] = "organization.user"
    id: str
    email: str
    role: str
    disabled: bool
    created_at: int
    status: str

    @classmethod
    def of(cls, user: User) -> UserView:
        """A person as shown."""
        shared = set(cls.model_fields) & set(User.model_fields)
        return cls(**user.model_dump(include=shared), status=user.status)


class UserDeleted(BaseModel):
    """An invitation that was taken back."""

    object: Literal["organization.user.deleted"] = "organization.user.deleted"
    id: str
    deleted: bool = True


class Invitation(BaseModel):
    """The code by which a person chooses a password, which is shown only now."""

    code: str
    path: str
    expires_at: int


class InvitedView(UserView):
    """A person with their invitation."""

    invitation: Invitation

    @classmethod
    def shown(cls, user: User, code: str, response: Response) -> InvitedView:
        """A person as shown, in an answer that nobody keeps."""
        response.headers["cache-control"] = "no-store"
        invitation = Invitation(code=code, path=f"/join#{code}", expires_at=user.code_expires_at)
        return cls(**UserView.of(user).model_dump(), invitation=invitation)


class TenantWithOwner(TenantView):
    """A new tenant, with its first owner, who was invited."""

    owner: InvitedView


class PersonView(BaseModel):
    """A person, for the console's session."""

    tenant_id: str
    user_id: str
    role: str
    email: str
    organization: str
    name: str
    disabled: bool
    password_changed_at: int
    allowances: list[Allowance]

    @classmethod
    def of(cls, user: User, tenant: Tenant, usual: Ceiling) -> PersonView:
        """A person as shown."""
        return cls(
            tenant_id=tenant.id,
            user_id=user.id,
            role=user.role,
            email=user.email,
            organization=tenant.slug,
            name=tenant.name,
            disabled=user.disabled,
            password_changed_at=user.password_changed_at,
            allowances=[tenant.allowance(usual)],
        )


class Invited(BaseModel):
    """Whom a code was given to."""

    email: str
    role: str
    name: str


class LineView(AuditEntry):
    """A line of the audit trail."""

    id: str


class TrailPage(Page):
    """A page of the audit trail, and whether it is as it was written."""

    intact: bool


class LeftView(BaseModel):
    """What is left of what was deleted, by service."""

    object: Literal["list"] = "list"
    data: list[Left]


class Replayed(BaseModel):
    """How many dead letters were sent back, and which cannot be."""

    object: Literal["list"] = "list"
    replayed: int
    skipped: list[str]


class LetterView(BaseModel):
    """A dead letter."""

    object: Literal["organization.dead_letter"] = "organization.dead_letter"
    id: str
    topic: str
    type: str | None
    tenant_id: str | None
    consumer: str
    code: str
    reason: str
    attempts: int
    died_at: int
    replayed_at: int | None

    @classmethod
    def of(cls, letter: DeadLetter) -> LetterView:
        """A dead letter as shown."""
        shared = set(cls.model_fields) - {"object", "type", "tenant_id"}
        event = {"type": letter.headers.get("ce_type"), "tenant_id": letter.headers.get("ce_tenantid")}
        return cls(**{name: getattr(letter, name) for name in shared}, **event)


class WholeLetter(LetterView):
    """A dead letter with what was in it."""

    headers: dict[str, str]
    key: str | None
    value: str

    @classmethod
    def whole(cls, letter: DeadLetter) -> WholeLetter:
        """A dead letter as shown, whole."""
        return cls(
            **LetterView.of(letter).model_dump(),
            headers=letter.headers,
            key=letter.key.decode("utf-8", "replace") if letter.key else None,
            value=letter.value.decode("utf-8", "replace"),
        )
