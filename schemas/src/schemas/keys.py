"""What becomes of API keys: each ends, at once or at a time that is said before."""

from __future__ import annotations

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id


class KeyRevoked(Event):
    """An API key must not be believed any more."""

    type, topic, key = "key.revoked.v1", "accounts", "tenant_id"

    key_id: Id = Field(description="Id of the key.")
    key_hash: Id = Field(description="SHA-256 of the key: what caches are keyed by.")


class KeyRotated(Event):
    """A secret of an API key was replaced by another one, and must not be believed from a time on."""

    type, topic, key = "key.rotated.v1", "accounts", "tenant_id"

    key_id: Id = Field(description="Id of the key, which stays.")
    key_hash: Id = Field(description="SHA-256 of the secret that was replaced: what caches are keyed by.")
    ends_at: int = Field(description="When it ends (unix seconds); said again where that comes nearer.")
