"""Who is signed in: an opaque cookie, its record in MongoDB, and a form token bound to it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from chassis.auth import Principal
from chassis.errors import Forbidden
from stores.mongo import Collection

COOKIE = "sartor_session"


@dataclass(frozen=True)
class Session:
    """A signed-in person."""

    id: str
    tenant_id: str
    user_id: str
    role: str
    email: str
    organization: str
    name: str

    @property
    def principal(self) -> Principal:
        """The person, for calls to other services in their name."""
        return Principal(tenant_id=self.tenant_id, user_id=self.user_id, role=self.role, organization=self.organization)

    @property
    def who(self) -> dict[str, Any]:
        """Keyword arguments of a call to another service in the person's name."""
        return {"tenant_id": self.tenant_id, "user": self.principal}


class Sessions:
    """Opens, finds and ends sessions.

    Args:
        records: the collection; only the cookie's hash is stored.
        secret: form tokens are made from it.
        hours: how long a sign-in lasts.
    """

    def __init__(self, records: Collection, secret: str, hours: int) -> None:
        self._records = records
        self._secret = secret.encode()
        self._hours = hours

    async def prepare(self) -> None:
        """Let MongoDB drop what is over."""
        await self._records.create_index("expires_at", expireAfterSeconds=0)

    async def open(self, person: dict[str, Any]) -> str:
        """Start a session; returns the cookie's value."""
        cookie = secrets.token_urlsafe(32)
        known = ("tenant_id", "user_id", "role", "email", "organization", "name")
        session = Session(id=_hash(cookie), **{name: person[name] for name in known})
        expires = datetime.now(UTC) + timedelta(hours=self._hours)
        await self._records.insert_one({"_id": session.id, **asdict(session), "expires_at": expires})
        return cookie

    async def find(self, cookie: str | None) -> Session | None:
        """The session of a cookie, if it has one that is not over."""
        if not cookie:
            return None
        query = {"_id": _hash(cookie), "expires_at": {"$gt": datetime.now(UTC)}}
        found = await self._records.find_one(query)
        return Session(**{name: found[name] for name in Session.__dataclass_fields__}) if found else None

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
        if not hmac.compare_digest(self.form_token(session_id), token or ""):
            raise Forbidden("This form is too old. Go back, reload the page and try again.", code="stale_form")


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
