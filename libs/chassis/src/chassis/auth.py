"""Who is calling: API keys checked against accounts, and short-lived signed tokens between services."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import structlog
from fastapi import Depends, Request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey
from starlette.types import Scope

from chassis.believed import Believed
from chassis.errors import Forbidden, Unauthenticated
from chassis.limits import Allowance
from chassis.roles import ROLES, covers

TOKEN_SECONDS = 60
CLOCK_SKEW_SECONDS = 10
TOKEN_REFUSED = "service_token_refused"  # noqa: S105 - an error code

OF_SERVICE = "service:"
"""Begins the key id of a service that acts for itself."""
MOST_REVOKED = 10_000
"""Revoked keys that are remembered, so that they are refused while accounts is away."""


@dataclass(frozen=True)
class Principal:
    """The authenticated caller of one request.

    `tenant_id` is what every query below the API carries. `caller` names the service for calls between services.
    `allowances` are what it may use in a minute: a key's own, its makers' where they are limited, its tenant's.
    `event_types` are the types of event that a key of a service outside may publish.
    """

    tenant_id: str
    key_id: str = ""
    user_id: str | None = None
    role: str = "owner"
    scopes: frozenset[str] = frozenset({"*"})
    caller: str | None = None
    organization: str = ""
    expires_at: int | None = None
    allowances: tuple[Allowance, ...] = ()
    event_types: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """Whose things are that it makes: its person's, or its own where a key belongs to nobody."""
        return self.user_id or self.key_id

    @property
    def only(self) -> dict[str, str]:
        """The condition that leaves what it may see of its tenant's: an end user sees their own."""
        return {"owner": self.owner} if self.role == "end_user" else {}

    def may(self, scope: str) -> bool:
        """Whether both the role and the key's own scopes allow `scope`."""
        role = ROLES.get(self.role, frozenset())
        return covers(role, scope) and covers(self.scopes, scope)


def hash_key(api_key: str) -> str:
    """SHA-256 of an API key in hex: what is stored and looked up, never the key."""
    return hashlib.sha256(api_key.encode()).hexdigest()


class Tokens:
    """Signs and verifies the tokens services show each other (Ed25519, audience-bound, 60 s).

    Args:
        service: this service's package name, the `iss` of what it signs and the `aud` of what it accepts.
        private_key: Ed25519 key in PEM.
        public_keys: JWKS holding every service's public key, `kid` = service name.
    """

    def __init__(self, service: str, private_key: bytes, public_keys: str) -> None:
        self.service = service
        self._private = OKPKey.import_key(private_key)
        self._public = KeySet.import_key_set(json.loads(public_keys))

    @classmethod
    def from_files(cls, service: str, private_key_file: Path | None, public_keys_file: Path | None) -> Tokens:
        """Read the keys named in the settings.

        Raises:
            ValueError: a file is not named or cannot be read.
        """
        if private_key_file is None or public_keys_file is None:
            raise ValueError("set SARTOR_TOKEN_PRIVATE_KEY_FILE and SARTOR_TOKEN_PUBLIC_KEYS_FILE")
        return cls(service, private_key_file.read_bytes(), public_keys_file.read_text())

    def sign(self, audience: str, tenant_id: str, user: Principal | None = None) -> str:
        """A token that lets this service act for `tenant_id` at service `audience` for a minute.

        Args:
            audience: package name of the service called.
            tenant_id: the tenant acted for.
            user: whom it acts for; their role and scopes then limit what the token may do.
        """
        issued = int(time.time())
        claims = {
            "iss": self.service,
            "aud": audience,
            "tenant": tenant_id,
            "user": user.user_id if user else None,
            "key": user.key_id if user else "",
            "role": user.role if user else "operator",
            "scopes": sorted(user.scopes) if user else ["*"],
            "organization": user.organization if user else "",
            "allowances": [asdict(allowance) for allowance in user.allowances] if user else [],
            "iat": issued,
            "exp": issued + TOKEN_SECONDS,
        }
        return jwt.encode({"alg": "Ed25519", "kid": self.service}, claims, self._private, algorithms=["Ed25519"])

    def verify(self, token: str) -> Principal:
        """The service and tenant a token names.

        Raises:
            Unauthenticated: wrong signature, audience or issuer, or expired.
        """
        try:
            decoded = jwt.decode(token, self._public, algorithms=["Ed25519"])
            claims = decoded.claims
            rules = jwt.JWTClaimsRegistry(
                leeway=CLOCK_SKEW_SECONDS,
                aud={"essential": True, "value": self.service},
                exp={"essential": True},
                iss={"essential": True, "value": str(decoded.header.get("kid"))},
                tenant={"essential": True, "allow_blank": True},
            )
            rules.validate(claims)
        except (JoseError, ValueError, KeyError) as error:
            raise Unauthenticated(f"The service token was refused: {error}.", code=TOKEN_REFUSED) from error
        return Principal(
            tenant_id=str(claims["tenant"]),
            user_id=claims.get("user"),
            role=str(claims.get("role")),
            scopes=frozenset(claims.get("scopes", ["*"])),
            organization=str(claims.get("organization")),
            allowances=tuple(map(Allowance.read, claims.get("allowances", ()))),
            caller=str(claims["iss"]),
            key_id=str(claims.get("key") or f"{OF_SERVICE}{claims['iss']}"),
        )


class Authenticator:
    """Turns the `Authorization` header into a `Principal`.

    API keys are asked of accounts once and believed for `cache_seconds`, and for `stale_seconds` while accounts cannot
    be asked; `forget` (called on `key.revoked`) ends that at once. Only good answers are kept, so a new key works
    immediately.
    """

    def __init__(
        self, tokens: Tokens, accounts: Any, *, cache_seconds: float = 30.0, stale_seconds: float = 600.0
    ) -> None:
        self._tokens = tokens
        self._accounts = accounts
        self._known: Believed[str, Principal] = Believed(cache_seconds, stale_seconds)
        self._revoked: dict[str, None] = {}

    async def authenticate(self, authorization: str | None) -> Principal:
        """The caller named by an `Authorization: Bearer …` header.

        Raises:
            Unauthenticated: no header, or a key or token that is unknown, expired or revoked.
            Transient: accounts cannot be asked.
        """
        scheme, _, credential = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not credential.strip():
            raise Unauthenticated(
                "No API key was given. Send it in the header 'Authorization: Bearer sk-…'.", code="missing_api_key"
            )
        credential = credential.strip()
        if not credential.startswith("sk-"):
            return self._tokens.verify(credential)
        hashed = hash_key(credential)
        self._check_revoked(hashed)
        principal = await self._known.get(hashed, lambda deadline: self._ask(hashed, deadline))
        self._check_revoked(hashed)  # perhaps while it was asked
        if principal.expires_at is not None and principal.expires_at <= time.time():
            raise Unauthenticated("This API key has expired. Ask for a new one.", code="expired_api_key")
        return principal

    async def _ask(self, hashed: str, deadline: float | None) -> Principal:
        timeout = {"timeout": deadline} if deadline else {}
        answer = await self._accounts.ask("/internal/keys/verify", json={"key_hash": hashed}, tenant_id="", **timeout)
        return _principal(answer)

    def _check_revoked(self, hashed: str) -> None:
        if hashed in self._revoked:
            raise Unauthenticated("This API key was revoked. Use another one.", code="revoked_api_key")

    def ask(self, accounts: Any) -> None:
        """Verify keys with `accounts` instead of the peer: for the accounts service itself."""
        self._accounts = accounts

    def forget(self, key_hash: str) -> None:
        """Believe a key no more, whoever can be asked about it: it was revoked."""
        self._known.forget(key_hash)
        self._revoked[key_hash] = None
        if len(self._revoked) > MOST_REVOKED:
            self._revoked.pop(next(iter(self._revoked)))


def _principal(answer: Mapping[str, Any]) -> Principal:
    """What accounts says of a key; fields that a newer accounts adds are left out."""
    known = {name: value for name, value in answer.items() if name in Principal.__dataclass_fields__}
    lists = {"scopes": frozenset(answer["scopes"]), "event_types": tuple(answer.get("event_types", ()))}
    return Principal(**{**known, **lists, "allowances": tuple(map(Allowance.read, answer.get("allowances", ())))})


async def caller_of(scope: Scope) -> Principal:
    """Who sent a request: authenticated and counted once, however often it is asked.

    A call that another service makes was counted where that service was called.

    Raises:
        Unauthenticated: see `Authenticator`.
        RateLimited: nothing is left of one of the caller's allowances.
    """
    state = scope.setdefault("state", {})
    if "principal" not in state:
        app_state = scope["app"].state
        credential = dict(scope["headers"]).get(b"authorization")
        principal = await app_state.authenticator.authenticate(credential.decode("latin-1") if credential else None)
        structlog.contextvars.bind_contextvars(tenant_id=principal.tenant_id)
        state["principal"] = principal
        if principal.caller is None:
            app_state.limiters[0].admit(principal.allowances)
    return cast("Principal", state["principal"])


@dataclass(frozen=True)
class Requires:
    """What a route asks of its caller: one of some scopes, or to be the operator where none is named."""

    scopes: tuple[str, ...] = ()

    async def __call__(self, request: Request) -> Principal:
        """The caller.

        Raises:
            Unauthenticated, Forbidden, RateLimited: as the names say.
        """
        principal = await caller_of(request.scope)
        if not self.scopes:
            return _operator(principal)
        if not any(principal.may(scope) for scope in self.scopes):
            lacks = f"This key has role '{principal.role}' and may not do '{self.scopes[0]}'."
            raise Forbidden(f"{lacks} Use a key with that permission.", param=self.scopes[0])
        if not principal.tenant_id and "audit:read" not in self.scopes:  # the operator's own acts have a trail
            raise Forbidden("An operator key acts on tenants, not as one. Use a key of the tenant.")
        return principal

    def allows(self, role: str) -> bool:
        """Whether a key of this role that is narrowed no further comes through."""
        if role == "operator":
            return not self.scopes or "audit:read" in self.scopes
        return any(covers(ROLES[role], scope) for scope in self.scopes)


def _operator(principal: Principal) -> Principal:
    """The caller, who is the operator, by their key or signed in to the console.

    Raises:
        Forbidden: it is somebody else, or a service that acts for itself.
    """
    signed_in = principal.caller == "console" and not principal.key_id.startswith(OF_SERVICE)
    if principal.role != "operator" or not (principal.caller is None or signed_in):
        raise Forbidden("Only the operator may do this. Use the operator key that the first start made.")
    return principal


def require(*scopes: str) -> Any:
    """A FastAPI dependency giving the `Principal` if it may do one of `scopes`.

    Use as `principal: Annotated[Principal, require("files:write")]`.
    """
    return Depends(Requires(scopes))


def operator() -> Any:
    """A FastAPI dependency giving the `Principal` if it is the operator's."""
    return Depends(Requires())


def internal() -> Any:
    """A FastAPI dependency that admits only other services' tokens."""

    async def dependency(request: Request) -> Principal:
        principal = await caller_of(request.scope)
        if principal.caller is None:
            raise Forbidden("This address is for services only.")
        return principal

    return Depends(dependency)
