"""The states of a job, and what they are called elsewhere."""

from __future__ import annotations

from typing import Literal

State = Literal[
    "waiting_for_dataset",
    "queued",
    "paused",
    "running",
    "evaluating",
    "awaiting_arm",
    "succeeded",
    "failed",
    "cancelled",
]
"""`awaiting_arm`: its training, or its adapter, came to nothing, and its arm is not decided yet."""

Trigger = Literal["request", "upload", "labels", "feedback", "drift"]

ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")
CLAIMABLE: tuple[State, ...] = ("queued", "running")
OPEN: tuple[State, ...] = ("waiting_for_dataset", "queued", "paused", "running", "evaluating", "awaiting_arm")
ARM_IS_BETTER = "arm_is_better"
"""Code of the registry's refusal of an adapter that does no better than the arm that serves its name."""

OPENAI_STATUS: dict[State, str] = {
    "waiting_for_dataset": "validating_files",
    "queued": "queued",
    "paused": "queued",
    "running": "running",
    "evaluating": "running",
    "awaiting_arm": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
