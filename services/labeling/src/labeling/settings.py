"""The labeling service's settings."""

from __future__ import annotations

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What labeling reads from the environment besides the settings every service has."""

    labeling_task_seconds: float = Field(600, description="How long a task is kept for the person who took it.")
    labeling_rows: int = Field(10_000, description="Most tasks of a project.")
    labeling_projects: int = Field(
        1_000,
        ge=1,
        description="About the most projects that a tenant makes.",
    )
