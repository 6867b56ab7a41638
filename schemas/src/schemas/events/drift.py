"""What a model is asked is not what it was trained for any more; so far services outside detect it."""

from __future__ import annotations

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id


class DriftDetected(Event):
    """What a model is asked, or how well it answers, has moved away from what it was measured on."""

    type, topic, key = "drift.detected.v1", "drift", "drift_id"

    drift_id: Id = Field(description="Id of the finding.")
    model: Id = Field(description="The model it is about.")
    metric: Id = Field(description="What was measured, for example `psi`.")
    value: float = Field(allow_inf_nan=False, description="Its value.")
    threshold: float = Field(allow_inf_nan=False, description="The value from which it is drift.")
    producer: Id = Field("", description="Id of the API key of the service outside that detected it.")
