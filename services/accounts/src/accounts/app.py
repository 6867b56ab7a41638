"""Wires accounts together."""

from __future__ import annotations

import asyncio
from typing import Unpack

from fastapi import FastAPI
from pydantic import JsonValue

from accounts.api import (
    dead_letter_routes,
    internal_routes,
    leftover_routes,
    organization_routes,
    tenant_routes,
)
from accounts.domain import ApiKey, Ceiling, Tenant, User
from accounts.passwords import Passwords
from accounts.settings import Settings
from accounts.store import Accounts
from accounts.use_cases import Keys, Leftovers, Limits, People, ReplayLetters, Tenants
from chassis.errors import Transient
from chassis.limits import Allowance
from chassis.peers import LONGEST_CALL_SECONDS
from eventbus import DeadLetters
from runtime import Overrides, Service
from stores.mongo import is_away

OWNERS = ("ingest", "registry", "trainer")
"""Services whose things people delete, and which say so to all who made something of them."""


class LocalKeys:
    """Answers the authenticator's question here, where the other services ask over HTTP."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def ask(
        self, _path: str, *, json: dict[str, str], tenant_id: str, timeout: float | None = None
    ) -> dict[str, JsonValue]:
        """Verify a key, as `POST /internal/keys/verify` does.

        Raises:
            Transient: the database is away.
        """
        del tenant_id
        try:
            async with asyncio.timeout(timeout or LONGEST_CALL_SECONDS):
                return (await self._keys.verify(json["key_hash"])).model_dump()
        except Exception as error:  # which errors mean "away" is told by `is_away` alone; every other one goes on
            if is_away(error) or isinstance(error, TimeoutError):
                raise Transient("The keys cannot be read at the moment; try again shortly.", retry_after=1) from error
            raise


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The accounts application."""
    service = Service("accounts", settings, **overrides)
    accounts = Accounts(
        service.aggregates("tenants", Tenant),
        service.aggregates("users", User),
        service.aggregates("keys", ApiKey),
        service.collection("audit"),
        service.collection("sign_in_attempts"),
        service.collection("audit_heads"),
        service.collection("sign_ups"),
    )
    limits = Limits(
        Allowance("", settings.requests_per_minute, settings.tokens_per_minute),
        Ceiling(
            requests_per_minute=settings.tenant_requests_per_minute,
            tokens_per_minute=settings.tenant_tokens_per_minute,
            keys=settings.tenant_keys,
            people=settings.tenant_people,
        ),
        settings.sign_in_attempts,
        settings.sign_in_attempts_anywhere,
        settings.sign_up,
        settings.sign_ups_per_hour,
        settings.sign_ups_per_hour_each,
    )
    keys = Keys(accounts, limits)
    tenants = Tenants(accounts, keys, service.peer("registry"))
    people = People(accounts, tenants, Passwords(), limits)
    service.authenticator.ask(LocalKeys(keys))

    operator_keys = settings.operator_keys()

    async def register_operator() -> None:
        if operator_keys:
            await keys.register_operator(operator_keys)

    service.on_start(accounts.prepare)
    service.background("last_used", accounts.write_uses)
    service.on_start(register_operator)
    dead_letters = DeadLetters(settings, service.bus.producer, service.collection("replays"))
    return service.app(
        [
            tenant_routes(accounts, tenants, people, limits.usual_tenant),
            organization_routes(accounts, tenants, keys, people, limits.usual_tenant),
            dead_letter_routes(dead_letters, ReplayLetters(accounts, dead_letters)),
            leftover_routes(Leftovers(accounts, {name: service.peer(name) for name in OWNERS})),
            internal_routes(accounts, keys, people, limits.usual_tenant),
        ]
    )
