"""Jobs, the fits of their arms, and the only functions that change them."""

from trainer.domain.arm import ArmFit, ArmOfJob, FittedArm
from trainer.domain.job import Job
from trainer.domain.parts import Adapter, Checkpoint, Failure, GateWait, Text
from trainer.domain.states import ARM_IS_BETTER, CLAIMABLE, ENDED, OPEN, OPENAI_STATUS, State, Trigger

__all__ = [
    "ARM_IS_BETTER",
    "CLAIMABLE",
    "ENDED",
    "OPEN",
    "OPENAI_STATUS",
    "Adapter",
    "ArmFit",
    "ArmOfJob",
    "Checkpoint",
    "Failure",
    "FittedArm",
    "GateWait",
    "Job",
    "State",
    "Text",
    "Trigger",
]
