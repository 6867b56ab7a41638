"""Which replica holds which adapter."""

from __future__ import annotations

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id, Sentence


class AdapterResident(Event):
    """A replica holds an adapter and has proved it by digest and fingerprint."""

    type, topic, key = "adapter.resident.v1", "adapters", "adapter_id"

    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    model_id: Id = Field(description="The model it serves.")
    replica_id: Id = Field(description="The replica.")
    replica_url: Id = Field(description="Where the replica's TGI API answers.")
    fingerprint_delta: float = Field(ge=0, description="Largest log-prob difference from the trainer's fingerprint.")
    base_delta: float = Field(ge=0, description="Largest log-prob difference from the base model on the same probes.")


class AdapterLoadFailed(Event):
    """A replica could not take an adapter that it should hold."""

    type, topic, key = "adapter.load_failed.v1", "adapters", "adapter_id"

    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    model_id: Id = Field(description="The model it serves.")
    replica_id: Id = Field(description="The replica.")
    replica_url: Id = Field("", description="Where the replica's TGI API answers.")
    permanent: bool = Field(description="The adapter itself is wrong here; otherwise the replica keeps trying.")
    reason: Sentence = Field(description="What went wrong, in a sentence.")


class AdapterEvicted(Event):
    """A replica no longer holds an adapter."""

    type, topic, key = "adapter.evicted.v1", "adapters", "adapter_id"

    adapter_id: Id = Field(description="Content-addressed id of the adapter.")
    replica_id: Id = Field(description="The replica.")
