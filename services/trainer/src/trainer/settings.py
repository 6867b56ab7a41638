"""The trainer's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the trainer reads from the environment besides the settings every service has."""

    models_dir: Path = Field(Path("models"), description="Folder of base models: `{models_dir}/{base id}/base.json`.")
    base_model: str = Field("", description="Base model of automatic fine-tunes whose tenant names none.")
    trainer_work_dir: Path | None = Field(None, description="Where runs lie while trained; in the system's if unset.")
    trainer_lease_seconds: float = Field(20, description="Lease on a job; a dead worker's job is taken over after it.")
    trainer_slice_seconds: float = Field(
        600, description="How long a job trains before it gives its place, at a checkpoint, to a tenant who waits."
    )
    trainer_threads: int = Field(0, description="Threads of a training run; all cores if 0.")
    trainer_save_every_steps: int = Field(20, description="Steps between checkpoints.")
    trainer_max_length: int = Field(
        1024, description="Longest row in tokens; longer ones are left out. Text is cut into windows of it."
    )
    trainer_stall_seconds: float = Field(900, description="A run that reports nothing for so long is tried again.")
    trainer_open_jobs: int = Field(20, description="Jobs of a tenant that may wait or run at the same time.")
    trainer_attempts: int = Field(4, description="Attempts at a job before an unexplained failure is final.")
