"""The ingest service's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What ingest reads from the environment besides the settings every service has."""

    ingest_max_file_bytes: int = Field(512 * 1024 * 1024, description="Largest upload.")
    ingest_tenant_bytes: int = Field(20 * 1024**3, description="Most bytes a tenant may have stored.")
    ingest_uploads_at_a_time: int = Field(16, description="Uploads a replica receives at the same time; more get 429.")
    ingest_uploads_of_a_tenant: int = Field(4, description="Uploads of one tenant among them; more get 429.")
    ingest_upload_silence_seconds: float = Field(20, description="Longest that nothing comes of an upload.")
    ingest_upload_bytes_per_second: int = Field(16 * 1024, description="Least rate of an upload once it has begun.")
    ingest_lease_seconds: float = Field(15, description="Lease on a file being parsed.")
    ingest_parse_seconds: int = Field(120, description="Longest a parse may take.")
    ingest_parse_memory_bytes: int = Field(2 * 1024**3, description="Most memory a parse may use.")
    ingest_work_dir: Path | None = Field(None, description="Where files lie while parsed; the system's if unset.")
    ingest_validation_share: float = Field(0.05, description="Share of rows kept for validation loss.")
    ingest_heldout_share: float = Field(0.15, description="Share of rows never trained on, for the evaluation.")
