"""The tenants' own names for their models."""

from __future__ import annotations

import re

from chassis.crash import crash_point
from chassis.errors import Forbidden, Invalid
from chassis.ids import now
from registry.alias import Alias
from registry.catalogue import Catalogue
from registry.domain import is_version_id, name_of
from registry.store import Aliases, Models

# Lower case, digits and . _ - : it can never be taken for an `ft:` name or need escaping in an address.
ALIAS_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Naming:
    """The tenants' aliases.

    Args:
        aliases: where they are kept.
        models: what they point at.
        catalogue: whose names no alias takes.
        most: aliases of a tenant.
    """

    def __init__(self, aliases: Aliases, models: Models, catalogue: Catalogue, most: int) -> None:
        self._aliases = aliases
        self._models = models
        self._catalogue = catalogue
        self._most = most

    async def point(self, tenant_id: str, name: str, model_id: str, by: str) -> Alias:
        """Point an alias at one of the tenant's models in production, making the alias if there is none.

        Raises:
            Invalid: the name is not allowed, or the model is not in production, or is a version and no name.
            NotFound: no such model.
            Forbidden: it would be one alias too many.
        """
        if not ALIAS_NAME.fullmatch(name):
            raise Invalid(
                f"'{name}' cannot be an alias: use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit.",
                param="name",
                code="invalid_alias",
            )
        if self._catalogue.find(name) is not None:
            raise Invalid(f"'{name}' is a base model; choose another alias.", param="name", code="invalid_alias")
        model = await self._models.version(tenant_id, model_id)
        if is_version_id(model_id):
            raise Invalid(
                f"'{model_id}' is one version of '{model.name}'; an alias points at the name, whatever serves it.",
                param="model",
                code="model_is_a_version",
            )
        if not await self._models.serving(tenant_id, [model_id]):
            raise Invalid(
                f"Model {model_id} is {model.state}; an alias points at a model in production.",
                param="model",
                code="model_not_in_production",
            )
        if await self._aliases.find(tenant_id, name) is None:
            await self._refuse_too_many(tenant_id)
        alias = await self._aliases.put(
            Alias.create(tenant_id, name, model_id, by, now()), lambda alias: alias.point(model_id, by, now())
        )
        crash_point("registry.alias_pointed")
        return alias

    async def _refuse_too_many(self, tenant_id: str) -> None:
        """Each question for a route reads all aliases of its tenant."""
        if await self._aliases.count(tenant_id, self._most) >= self._most:
            raise Forbidden(
                f"Your organization has {self._most} aliases, the most it may have. Delete some, or point one anew.",
                code="too_many_aliases",
            )

    async def get(self, tenant_id: str, name: str) -> Alias:
        """The tenant's alias."""
        return await self._aliases.get(tenant_id, name)

    async def select(self, tenant_id: str, *, limit: int, after: str | None, order: str) -> list[Alias]:
        """The tenant's aliases by age."""
        return await self._aliases.select(tenant_id, limit=limit, after=after, order=order)

    async def of_nothing(self, tenant_id: str, model_id: str) -> list[str]:
        """The names of the tenant's aliases that point at a model's name, if no version of it is in production."""
        name = name_of(model_id)
        if await self._models.serving(tenant_id, [name]):
            return []
        return sorted(alias.name for alias in await self._aliases.all(tenant_id) if alias.model == name)

    async def delete(self, tenant_id: str, name: str) -> Alias:
        """Remove an alias; the model stays."""
        alias = await self._aliases.get(tenant_id, name)
        await self._aliases.delete(alias)
        return alias
