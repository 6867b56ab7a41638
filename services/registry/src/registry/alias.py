"""A tenant's own names for its models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from chassis.ids import derived_id
from eventbus import Aggregate

KEPT_ALIAS_CHANGES = 20


class AliasChange(BaseModel):
    """Where an alias pointed from `at` on (Unix seconds), and who pointed it there."""

    model_config = ConfigDict(frozen=True)

    model: str
    by: str
    at: int


class Alias(Aggregate):
    """A tenant's own name for one of its models, which can be pointed at another one."""

    created_at: int
    name: str
    history: list[AliasChange]

    @classmethod
    def create(cls, tenant_id: str, name: str, model: str, by: str, at: int) -> Alias:
        """A new alias that points at `model`."""
        change = AliasChange(model=model, by=by, at=at)
        return cls(id=alias_id(tenant_id, name), tenant_id=tenant_id, created_at=at, name=name, history=[change])

    @property
    def model(self) -> str:
        """The model it points at."""
        return self.history[-1].model

    def point(self, model: str, by: str, at: int) -> None:
        """Point the alias at `model`; the last changes are kept."""
        if model != self.model:
            self.history = [*self.history, AliasChange(model=model, by=by, at=at)][-KEPT_ALIAS_CHANGES:]


def alias_id(tenant_id: str, name: str) -> str:
    """The id of a tenant's alias, which follows from its name."""
    return derived_id("alias_", tenant_id, name)
