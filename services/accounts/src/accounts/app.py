"""Wires accounts together."""

from __future__ import annotations

from fastapi import FastAPI

from accounts.api import dead_letter_routes, internal_routes, organization_routes
from accounts.domain import ApiKey, Tenant, User
from accounts.passwords import Passwords
from accounts.settings import Settings
from accounts.store import Accounts
from accounts.use_cases import Keys, Limits, People, Tenants
from eventbus.dead_letters import DeadLetters
from eventbus.service import Service


class LocalKeys:
    """Answers the authenticator's question here, where the other services ask over HTTP."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def post(self, _path: str, *, json: dict[str, str], tenant_id: str) -> dict[str, object]:
        """Verify a key, as `POST /internal/keys/verify` does."""
        del tenant_id
        return await self._keys.verify(json["key_hash"])


def build(settings: Settings) -> FastAPI:
    """The accounts application."""
    service = Service("accounts", settings)
    accounts = Accounts(
        service.aggregates("tenants", Tenant),
        service.aggregates("users", User),
        service.aggregates("keys", ApiKey),
        service.collection("audit"),
        service.collection("sign_in_attempts"),
        service.collection("audit_heads"),
    )
    limits = Limits(
        settings.requests_per_minute,
        settings.tokens_per_minute,
        settings.sign_in_attempts,
        settings.sign_up,
        settings.sign_ups_per_hour,
    )
    keys = Keys(accounts, limits)
    tenants = Tenants(accounts, keys)
    people = People(accounts, tenants, Passwords(), limits)
    service.authenticator.ask(LocalKeys(keys))

    async def register_operator() -> None:
        if settings.operator_key_file:
            await keys.register_operator(settings.operator_key_file.read_text().strip())

    service.on_start(accounts.prepare)
    service.on_start(register_operator)
    dead_letters = DeadLetters(settings, service.bus, service.collection("replays"))
    return service.app(
        [
            organization_routes(accounts, tenants, keys, people),
            dead_letter_routes(accounts, dead_letters),
            internal_routes(accounts, keys, people),
        ]
    )
