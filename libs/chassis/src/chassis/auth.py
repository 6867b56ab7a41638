"""Who is calling: an API key is checked by accounts, and a service's token by `chassis.tokens`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
from fastapi import Request
from fastapi.params import Depends as Dependency
from pydantic import JsonValue, TypeAdapter, ValidationError
from starlette.types import Scope

from chassis.believed import Believed
from chassis.clock import wall
from chassis.errors import Forbidden, Transient, Unauthenticated
from chassis.limits import Allowance
from chassis.roles import ROLES, covers

if TYPE_CHECKING:
    from chassis.tokens import Tokens

log = structlog.get_logger()

TOKEN_REFUSED = "service_token_refused"  # noqa: S105 - an error code

OF_SERVICE = "service:"
"""Begins the key id of a service that acts for itself."""
MOST_ENDED = 10_000
"""Keys whose end is remembered, so that they are refused while accounts is away."""

REVOKED = 0.0
"""When a key ended that was revoked: always before now."""

REPLACED = "This API key was replaced by another one, and the time is over in which both held. Use the new one."


@dataclass(frozen=True)
class Principal:
    """The authenticated caller of one request.

    `tenant_id` is what every query below the API carries. `caller` names the service for calls between services.
    `allowances` are what it may use in a minute: a key's own, its makers' where they are limited, its tenant's.
    `event_types` are the types of event that a key of a service outside may publish.
    `key_hash` is the SHA-256 of the key that was shown, where one was.
    `owner_role` is the role today of the person whom a key belongs to; empty where it belongs to nobody.
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
    key_hash: str = ""
    owner_role: str = ""

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


PRINCIPALS = TypeAdapter(Principal)


class KeyVerifier(Protocol):
    """Who knows the API keys: accounts, over HTTP or in its own process."""

    async def ask(
        self, path: str, /, *, json: dict[str, str], tenant_id: str, timeout: float | None = None
    ) -> Mapping[str, JsonValue]:
        """What `POST /internal/keys/verify` answers; see `Peer.ask`."""
        ...


def hash_key(api_key: str) -> str:
    """SHA-256 of an API key in hex: what is stored and looked up, never the key."""
    return hashlib.sha256(api_key.encode()).hexdigest()


class Authenticator:
    """Turns the `Authorization` header into a `Principal`.

    API keys are asked of accounts once and believed for `cache_seconds`, and for `stale_seconds` while accounts cannot
    be asked; `forget` (called on `key.revoked`) ends that at once, `end` (on `key.rotated`) to the second. Only good
    answers are kept, so a new key works immediately.
    """

    def __init__(
        self, tokens: Tokens, accounts: KeyVerifier, *, cache_seconds: float = 30.0, stale_seconds: float = 600.0
    ) -> None:
        self._tokens = tokens
        self._accounts = accounts
        self._known: Believed[str, Principal] = Believed(cache_seconds, stale_seconds)
        self._ends: dict[str, float] = {}

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
        self._check_ended(hashed)
        principal = await self._known.get(hashed, lambda deadline: self._ask(hashed, deadline))
        self._check_ended(hashed)  # perhaps while it was asked
        if principal.expires_at is not None and principal.expires_at <= wall():
            raise Unauthenticated("This API key has expired. Ask for a new one.", code="expired_api_key")
        return principal

    async def _ask(self, hashed: str, deadline: float | None) -> Principal:
        asked = {"key_hash": hashed}
        answer = await self._accounts.ask("/internal/keys/verify", json=asked, tenant_id="", timeout=deadline)
        return _principal({**answer, "key_hash": hashed})

    def _check_ended(self, hashed: str) -> None:
        ends_at = self._ends.get(hashed, math.inf)
        if ends_at == REVOKED:
            raise Unauthenticated("This API key was revoked. Use another one.", code="revoked_api_key")
        if ends_at <= wall():
            raise Unauthenticated(REPLACED, code="replaced_api_key")

    def ask(self, accounts: KeyVerifier) -> None:
        """Verify keys with `accounts` instead of the peer: for the accounts service itself."""
        self._accounts = accounts

    def forget(self, key_hash: str) -> None:
        """Believe a key no more, whoever can be asked about it: it was revoked."""
        self._known.forget(key_hash)
        self.end(key_hash, REVOKED)

    def end(self, key_hash: str, at: float) -> None:
        """Believe a key until then (unix seconds), or until an earlier end that was said before: it was replaced."""
        self._ends[key_hash] = min(at, self._ends.get(key_hash, at))
        if len(self._ends) > MOST_ENDED:
            self._ends.pop(next(iter(self._ends)))


def _principal(answer: Mapping[str, JsonValue]) -> Principal:
    """What accounts says of a key, whose scopes it must name; fields that a newer accounts adds are left out.

    Raises:
        Transient: it says something else, as another release of it may; what was believed before holds.
    """
    try:
        return PRINCIPALS.validate_python({**answer, "scopes": answer["scopes"]})
    except (KeyError, ValidationError) as error:
        log.error("key_answer_unknown", answered=sorted(answer))
        raise Transient("accounts answered about an API key in a way that is not known here.") from error


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
        caller = await app_state.authenticator.authenticate(credential.decode("latin-1") if credential else None)
        structlog.contextvars.bind_contextvars(tenant_id=caller.tenant_id)
        state["principal"] = caller
        if caller.caller is None:
            app_state.limiters[0].admit(caller.allowances)
    principal: Principal = state["principal"]
    return principal


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


def require(*scopes: str) -> Dependency:
    """A FastAPI dependency giving the `Principal` if it may do one of `scopes`.

    Use as `principal: Annotated[Principal, require("files:write")]`.
    """
    return Dependency(Requires(scopes))


def operator() -> Dependency:
    """A FastAPI dependency giving the `Principal` if it is the operator's."""
    return Dependency(Requires())


def internal() -> Dependency:
    """A FastAPI dependency that admits only other services' tokens."""

    async def dependency(request: Request) -> Principal:
        principal = await caller_of(request.scope)
        if principal.caller is None:
            raise Forbidden("This address is for services only.")
        return principal

    return Dependency(dependency)
