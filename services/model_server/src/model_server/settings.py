"""The model server's settings."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the model server reads from the environment besides the settings every service has."""

    models_dir: Path = Field(Path("models"), description="Folder of base models: `{models_dir}/{base id}/base.json`.")
    base_model: str = Field("gemma-3-270m", description="The base model it holds.")
    model_server_threads: int = Field(0, description="Threads of the engine; all cores if 0.")
    model_server_batch: int = Field(16, description="Most sequences computed together.")
    model_server_queue: int = Field(128, description="Most requests that wait; more get 429.")
    model_server_max_tokens: int = Field(2048, description="Longest prompt and answer together, in tokens.")
    model_server_adapters: int = Field(
        100,
        ge=1,
        description="Most adapters held; of more, the newest and last used are. Rank 16 on a 270M base: 8 MB each.",
    )
    model_server_sync_seconds: float = Field(5, description="How often the registry is asked which adapters to hold.")
    replica_url: str = Field(
        "",
        description="Where this one replica is reached; `{host}` is its host name. `model_server_url` if empty: "
        "only right where there is one replica.",
    )

    @property
    def own_url(self) -> str:
        """What this replica says of itself: answers under it must come from it and from nobody else."""
        return (self.replica_url or self.model_server_url).replace("{host}", socket.gethostname()).rstrip("/")
