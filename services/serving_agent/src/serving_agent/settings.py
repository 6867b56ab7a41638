"""The serving agent's settings."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from serving import ReplicaSettings


class Settings(ReplicaSettings):
    """What the serving agent reads from the environment besides the settings every replica has."""

    engine: ClassVar[str] = "tgi"

    serving_agent_adapters: int = Field(100, ge=1, description="Most adapters held; of more, the newest are.")
    serving_agent_sync_seconds: float = Field(5, description="How often the registry is asked which adapters to hold.")
    adapters_dir: Path = Field(
        Path("/adapters"), description="Where verified adapters lie for TGI; of this replica only."
    )
    tgi_port: int = Field(8080, description="Port TGI listens on inside the container.")
    tgi_restart_seconds: float = Field(
        60,
        description="TGI is started again for new adapters at most so often; those that come meanwhile share a start.",
    )
    tgi_prove_again_seconds: float = Field(
        300, description="How often one of the adapters, by chance, is proven again: TGI's answers name no adapter."
    )
    tgi_launcher: str = Field("text-generation-launcher", description="The launcher's command.")

    @property
    def engine_port(self) -> int:
        """Where TGI listens; the agent has a port of its own (`service_port`)."""
        return self.tgi_port
