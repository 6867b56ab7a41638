"""The registry's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the registry reads from the environment besides the settings every service has."""

    models_dir: Path = Field(Path("models"), description="Folder of base models: `{models_dir}/{base id}/base.json`.")
    base_model: str = Field("", description="Id of the default base model; the first of the catalogue if empty.")
    registry_replica_seconds: float = Field(
        60.0, description="A replica that asks for its adapters and then falls silent this long is not routed to."
    )
    registry_aliases: int = Field(200, description="Aliases a tenant may have.")
    registry_downloads_at_a_time: int = Field(16, ge=1, description="Copies of adapters under way in a replica.")
    registry_downloads_of_a_tenant: int = Field(4, ge=1, description="Those of one tenant.")
