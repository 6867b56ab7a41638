"""What a job's history lists: its lines, and its checkpoints."""

from __future__ import annotations

from pydantic import BaseModel


class JobEvent(BaseModel):
    """One line of a job's history.

    Attributes:
        order: its place among the job's lines, which the database gives it.
    """

    id: str
    job_id: str
    tenant_id: str
    created_at: int
    order: int
    level: str
    message: str
    type: str
    data: dict[str, int | float]


class JobCheckpoint(BaseModel):
    """One checkpoint as listed."""

    id: str
    job_id: str
    tenant_id: str
    created_at: int
    step: int
    metrics: dict[str, float]
