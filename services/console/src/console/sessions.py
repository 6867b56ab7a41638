"""Who is signed in: an opaque cookie, its record in MongoDB, and a form token bound to it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import TypedDict

import structlog
from pydantic import BaseModel, ConfigDict

from chassis.auth import Principal
from chassis.clock import utc_now
from chassis.errors import Forbidden, NotFound, SartorError, Unauthenticated
from chassis.limits import Allowance
from chassis.peers import Peer
from stores.mongo import Collection, ensure_index

log = structlog.get_logger()

COOKIE = "sartor_session"
VERIFY = "/internal/keys/verify"
LOOK_AGAIN_AFTER = timedelta(minutes=1)


class Who(TypedDict):
    """Keyword arguments of a call to another service in somebody's name."""

    tenant_id: str
    user: Principal


class Standing(BaseModel):
    """As what a person may come in by now, as accounts says it.

    `password_changed_at` is that of the password they have.
    """

    model_config = ConfigDict(frozen=True)

    role: str
    password_changed_at: int = 0
    allowances: tuple[Allowance, ...] = ()
    """None in a session of an earlier release, until accounts is asked again."""


class Person(Standing):
    """Who comes in, or the operator by their key: of no tenant, with `key_id` and the SHA-256 of the key.

    `password_changed_at` is that of the password they came in by.
    """

    tenant_id: str
    user_id: str
    email: str
    organization: str
    name: str
    key_id: str = ""
    key_hash: str = ""


class Session(Person):
    """A person who is signed in, as stored."""

    id: str

    @property
    def principal(self) -> Principal:
        """The person, for calls to other services in their name."""
        known = ("tenant_id", "user_id", "role", "organization", "key_id", "allowances")
        return Principal(**{name: getattr(self, name) for name in known})

    @property
    def who(self) -> Who:
        """Keyword arguments of a call to another service in the person's name."""
        return {"tenant_id": self.tenant_id, "user": self.principal}


class Sessions:
    """Opens, finds and ends sessions.

    Args:
        records: the collection; only the cookie's hash is stored.
        secret: form tokens are made from it.
        hours: how long a sign-in lasts.
        accounts: knows whether a person may still come in, and as what.
    """

    def __init__(self, records: Collection, secret: str, hours: int, accounts: Peer) -> None:
        self._records = records
        self._secret = secret.encode()
        self._hours = hours
        self._accounts = accounts

    async def prepare(self) -> None:
        """Let MongoDB drop what is over."""
        await ensure_index(self._records, "expires_at", expireAfterSeconds=0)

    async def open(self, person: Person) -> str:
        """Start a session; returns the cookie's value."""
        cookie = secrets.token_urlsafe(32)
        session = Session(id=_hash(cookie), **dict(person))
        opened = utc_now()
        times = {"checked_at": opened, "expires_at": opened + timedelta(hours=self._hours)}
        await self._records.insert_one({"_id": session.id, **session.model_dump(), **times})
        return cookie

    async def find(self, cookie: str | None) -> Session | None:
        """The session of a cookie, if it has one that is not over, with the role its person has by now."""
        if not cookie:
            return None
        now = utc_now()
        found = await self._records.find_one({"_id": _hash(cookie), "expires_at": {"$gt": now}})
        if found is None:
            return None
        session = Session.model_validate(found)
        checked_at = found.get("checked_at")
        fresh = checked_at is not None and checked_at > now - LOOK_AGAIN_AFTER
        return session if fresh else await self._look_again(session, now)

    async def _look_again(self, session: Session, now: datetime) -> Session | None:
        """Ask accounts about the person; what is known already holds while accounts is away."""
        await self._records.update_one({"_id": session.id}, {"$set": {"checked_at": now}})
        try:
            if session.role == "operator":
                known = await self._accounts.ask(VERIFY, json={"key_hash": session.key_hash}, tenant_id="")
                if known["role"] == "operator":
                    return session
                await self.end(session)
                return None
            found = await self._accounts.get("/internal/users/{}", session.user_id, tenant_id=session.tenant_id)
        except (NotFound, Unauthenticated):
            await self.end(session)
            return None
        except SartorError as error:
            log.warning("person_not_looked_up", code=error.code, error=error.message)
            return session
        standing = Standing.model_validate(found)
        if found["disabled"] or standing.password_changed_at != session.password_changed_at:
            await self.end(session)
            return None
        changed = session.model_copy(update=dict(standing))
        await self._records.update_one({"_id": session.id}, {"$set": changed.model_dump()})
        return changed

    async def begin_operator(self, key_hash: str) -> Person:
        """The operator, by the SHA-256 of their key, as `open` takes them.

        Raises:
            Unauthenticated: it is no operator's key.
        """
        known = await self._accounts.ask("/internal/keys/operator", json={"key_hash": key_hash}, tenant_id="")
        return Person(
            tenant_id="",
            user_id="",
            role="operator",
            email="",
            organization="",
            name="Operator",
            key_id=known["key_id"],
            key_hash=key_hash,
        )

    async def end(self, session: Session) -> None:
        """Sign out."""
        await self._records.delete_one({"_id": session.id})

    def form_token(self, session_id: str) -> str:
        """What a form of this session must carry."""
        return hmac.new(self._secret, session_id.encode(), hashlib.sha256).hexdigest()

    def check_form(self, session_id: str, token: str | None) -> None:
        """Refuse a form that another site made.

        Raises:
            Forbidden: the token is not this session's.
        """
        if not hmac.compare_digest(self.form_token(session_id).encode(), (token or "").encode(errors="replace")):
            raise Forbidden("This form is too old. Go back, reload the page and try again.", code="stale_form")


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
