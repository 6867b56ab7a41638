"""Identifiers, random or derived so that the same cause gives the same thing, and the two clocks."""

from __future__ import annotations

import hashlib
import secrets

from chassis.clock import wall

SERVER_MS: dict[str, str] = {"$toLong": "$$NOW"}
"""The database's clock in milliseconds, as an aggregation expression: whatever several machines compare is by it."""


def new_id(prefix: str) -> str:
    """A fresh identifier, for example `file-3f…` (96 random bits in hex)."""
    return f"{prefix}{secrets.token_hex(12)}"


def derived_id(prefix: str, *parts: str) -> str:
    """The identifier that follows from `parts`, so that a repeated event names the same thing."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
    return f"{prefix}{digest[:24]}"


def now() -> int:
    """Unix time in whole seconds, as OpenAI's `created_at` fields use."""
    return int(wall())
