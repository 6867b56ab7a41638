"""What is asked of accounts: the bodies of requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from chassis.bodies import Body

Name = Annotated[str, Field(max_length=200)]
Word = Annotated[str, Field(max_length=100)]
Email = Annotated[str, Field(max_length=320)]
Password = Annotated[str, Field(max_length=1024)]
BaseModelId = Annotated[str, Field(max_length=200, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")]
"""A folder's name in the catalogue, never a path; empty for the installation's default."""

PerMinute = Annotated[int, Field(ge=1, le=1_000_000_000)]
HowMany = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[int, Field(ge=0, le=2**40)]


class PolicyAsked(Body):
    """A tenant's policy; what is left out is as `TenantPolicy` says."""

    tune_on_upload: bool = True
    gate: Literal["auto", "approval", "advisory"] = "auto"
    base_model: BaseModelId = ""


class TenantAsked(Body):
    """A tenant to be made."""

    name: Name
    policy: PolicyAsked = Field(default_factory=PolicyAsked)
    owner: Email | None = Field(None, description="Who is to be its first owner; it gets a code for them, and no key.")


class PolicyChange(Body):
    """The fields of a policy to be changed."""

    tune_on_upload: bool | None = None
    gate: Literal["auto", "approval", "advisory"] | None = None
    base_model: BaseModelId | None = None


class CeilingChange(Body):
    """What a tenant may use in all, where that changes."""

    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    keys: HowMany | None = None
    people: HowMany | None = None


class KeyAsked(Body):
    """A key to be made."""

    name: str = Field("key", min_length=1, max_length=100)
    role: Word = "engineer"
    scopes: list[Word] = Field(default_factory=lambda: ["*"], max_length=100)
    expires_at: Seconds | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    user_id: Word | None = None
    event_types: list[Word] = Field(
        default_factory=list, max_length=20, description="Types of event that a service outside publishes with the key."
    )


class Rotation(Body):
    """A key's secret to be replaced."""

    grace_seconds: int = Field(
        86_400, ge=0, le=30 * 86_400, description="How long the secrets before it hold; 0 ends them at once."
    )


class LettersAsked(Body):
    """Which dead letters to send back; all of them if nothing is given."""

    consumer: Word | None = None
    code: Word | None = None


class PersonAsked(Body):
    """A person to be invited."""

    email: Email
    role: Word = "end_user"


class OwnerAsked(Body):
    """A person to be an owner."""

    email: Email


class PersonChange(Body):
    """What to change about a person."""

    role: Word | None = None
    disabled: bool | None = None


class KeyHash(Body):
    """A key to be verified, by its SHA-256."""

    key_hash: str = Field(pattern="^[0-9a-f]{64}$")


class SignUp(Body):
    """A new organisation and its owner, and the network address they come from."""

    organization: Name
    email: Email
    password: Password
    address: Word = ""


class SignIn(Body):
    """Who wants in, from which network address."""

    email: Email
    password: Password
    address: Word = ""


class Code(Body):
    """A one-time code."""

    code: Name


class Joining(Body):
    """A one-time code, and the password chosen by it."""

    code: Name
    password: Password


class PasswordChange(Body):
    """A person's password, and the one they want."""

    current: Password
    new: Password
    address: Word = ""
