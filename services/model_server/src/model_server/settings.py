"""The model server's settings."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from serving import ReplicaSettings


class Settings(ReplicaSettings):
    """What the model server reads from the environment besides the settings every replica has."""

    engine: ClassVar[str] = "model-server"

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
