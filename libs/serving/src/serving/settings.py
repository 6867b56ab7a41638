"""The settings of a replica, whatever its engine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from chassis.settings import ServiceSettings

EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - what a server that listens there is not reached by


class ReplicaSettings(ServiceSettings):
    """What the service of a replica reads from the environment besides the settings every service has.

    Attributes:
        engine: what its id begins with where none is given.
    """

    engine: ClassVar[str] = "replica"

    models_dir: Path = Field(Path("models"), description="Folder of base models: `{models_dir}/{base id}/base.json`.")
    base_model: str = Field("gemma-3-270m", description="The base model it holds.")
    replica_id: str = Field(
        "",
        description="Name of this one replica, in what it says of its adapters and in leases; no other has the same. "
        "Made of its own address if empty.",
    )
    replica_url: str = Field(
        "",
        description="Where the engine of this one replica is reached, and no other's; `{host}` is the host name. Where "
        "it listens if empty.",
    )

    @property
    def engine_port(self) -> int:
        """Where the engine listens; the service itself unless it only stands beside the engine."""
        return self.service_port

    @property
    def own_url(self) -> str:
        """What this replica says of itself: answers under it must come from it and from nobody else."""
        host = "{host}" if self.service_host in EVERY_ADDRESS else self.service_host
        url = self.replica_url or f"http://{host}:{self.engine_port}"
        return url.replace("{host}", socket.gethostname()).rstrip("/")

    @property
    def own_id(self) -> str:
        """The name of this replica: the given one, or one that stays while its address does."""
        return self.replica_id or f"{self.engine}@{self.own_url.partition('://')[2]}"
