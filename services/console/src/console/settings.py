"""The console's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the console reads from the environment besides the settings every service has."""

    public_url: str = Field("http://127.0.0.1:8080", description="Where people open it; https makes cookies secure.")
    session_secret_file: Path | None = Field(None, description="File with the secret form tokens are made from.")
    session_hours: int = Field(12, description="How long a sign-in lasts.")
    base_model: str = Field("gemma-3-270m", description="The base model shown beside one's own.")
