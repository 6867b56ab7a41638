"""The tenants' own names for their models."""

from __future__ import annotations

from collections.abc import Callable

from chassis.errors import Conflict, NotFound
from eventbus import AggregateStore
from registry.alias import Alias, alias_id


class Aliases:
    """The tenants' own names for their models."""

    def __init__(self, aggregates: AggregateStore[Alias]) -> None:
        self._aliases = aggregates

    async def find(self, tenant_id: str, name: str) -> Alias | None:
        """The tenant's alias of that name, if there is one."""
        return await self._aliases.find_one(tenant_id, {"_id": alias_id(tenant_id, name)})

    async def get(self, tenant_id: str, name: str) -> Alias:
        """The tenant's alias of that name.

        Raises:
            NotFound: there is none.
        """
        alias = await self.find(tenant_id, name)
        if alias is None:
            raise NotFound(f"There is no alias '{name}'.", code="alias_not_found")
        return alias

    async def select(self, tenant_id: str, *, limit: int, after: str | None, order: str) -> list[Alias]:
        """The tenant's aliases by age."""
        return await self._aliases.find(tenant_id, limit=limit, after=after, newest_first=order == "desc")

    async def all(self, tenant_id: str) -> list[Alias]:
        """One tenant's aliases, or all tenants' where `tenant_id` is empty."""
        if tenant_id:
            return await self._aliases.find(tenant_id)
        return [alias async for alias in self._aliases.for_service({})]

    async def count(self, tenant_id: str, most: int) -> int:
        """How many aliases the tenant has; counted to `most`."""
        return int(await self._aliases.collection.count_documents({"tenant_id": tenant_id}, limit=most))

    async def put(self, alias: Alias, change: Callable[[Alias], None]) -> Alias:
        """Add the alias, or apply `change` to the one of that name."""
        try:
            await self._aliases.add(alias)
        except Conflict:
            return await self._aliases.update(alias.tenant_id, alias.id, change)
        return alias

    async def delete(self, alias: Alias) -> None:
        """Remove an alias."""
        await self._aliases.collection.delete_one({"_id": alias.id, "tenant_id": alias.tenant_id})
