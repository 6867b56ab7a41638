"""Which replica answers with which base model."""

from __future__ import annotations

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id


class ReplicaReady(Event):
    """A replica has proved which base model it holds; it says so at every start and every minute."""

    type, topic, key = "replica.ready.v1", "replicas", "replica_id"

    replica_id: Id = Field(description="The replica.")
    replica_url: Id = Field(description="Where its engine answers, and no other replica's.")
    engine: Id = Field(description="Kind of the engine: whose HTTP API answers there, for example `tgi`.")
    base_model: Id = Field(description="Base model id.")
    base_digest: Id = Field(description="Digest of the base model's files, which it has computed itself.")
    capabilities: list[Id] = Field(
        default_factory=list,
        max_length=20,
        description="What it does beyond that API; `echo`: each answer names the base and the adapter it comes from.",
    )
