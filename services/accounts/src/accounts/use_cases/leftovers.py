"""Asks the services that own what people delete for what earlier releases left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from accounts.store import Accounts
from chassis.peers import Peer


@dataclass(frozen=True)
class Left:
    """What one service found: how many things are left, and how many were removed just now."""

    service: str
    found: int
    purged: int


class Leftovers:
    """Looks for the operator, and removes.

    Args:
        accounts: keeps the trail.
        owners: the services that own what people delete.
    """

    def __init__(self, accounts: Accounts, owners: Mapping[str, Peer]) -> None:
        self._accounts = accounts
        self._owners = owners

    async def look(self) -> list[Left]:
        """What is left; changes nothing."""
        return await self._ask(purge=False)

    async def purge(self, actor: str) -> list[Left]:
        """Remove a slice of what is left in each service; the rest goes when it is asked for again."""
        await self._accounts.audit("", actor, "leftovers.purge", "installation")
        return await self._ask(purge=True)

    async def _ask(self, *, purge: bool) -> list[Left]:
        said = {
            name: await peer.post("/internal/leftovers", json={"purge": purge}, tenant_id="")
            for name, peer in self._owners.items()
        }
        return [Left(name, one["found"], one["purged"]) for name, one in said.items()]
