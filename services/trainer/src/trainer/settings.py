"""The trainer's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, TypeAdapter, field_validator

from chassis.settings import ServiceSettings
from schemas.artifacts import ArmKind

ARM_KINDS = TypeAdapter(list[ArmKind])


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
    trainer_niceness: int = Field(
        10,
        ge=0,
        le=19,
        description="How far training gives way to what else its container runs, or its machine; 0: not.",
    )
    trainer_save_every_steps: int = Field(20, description="Steps between checkpoints.")
    trainer_max_length: int = Field(
        1024, description="Longest row in tokens; longer ones are left out. Text is cut into windows of it."
    )
    trainer_stall_seconds: float = Field(900, description="A run that reports nothing for so long is tried again.")
    trainer_open_jobs: int = Field(20, description="Jobs of a tenant that may wait or run at the same time.")
    trainer_arms: str = Field(
        "head,nearest",
        description="Ways to answer on embeddings that are tried for jobs with rows while they are trained; the best "
        "is tested, and answers until the adapter does better. `head`, `nearest`, or both with a comma; none if empty.",
    )
    trainer_generating_arms: bool = Field(
        True, description="Whether the base model, shown the closest rows, is tried where hardly an answer comes again."
    )
    trainer_attempts: int = Field(4, description="Attempts at a job before an unexplained failure is final.")

    @field_validator("trainer_arms")
    @classmethod
    def _known_arms(cls, said: str) -> str:
        ARM_KINDS.validate_python(_names(said))
        return said

    @property
    def arms(self) -> list[ArmKind]:
        """The kinds of arms that are tried."""
        return ARM_KINDS.validate_python(_names(self.trainer_arms))


def _names(said: str) -> list[str]:
    return [name.strip() for name in said.split(",") if name.strip()]
