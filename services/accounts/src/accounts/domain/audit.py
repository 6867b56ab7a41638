"""The audit trail: lines of which each covers the one before it."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, Field, JsonValue


class AuditEntry(BaseModel):
    """One line of a tenant's audit trail; `digest` covers the line and the digest before it."""

    tenant_id: str
    position: int
    at: int
    actor: str
    action: str
    target: str
    details: dict[str, JsonValue] = Field(default_factory=dict)
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
